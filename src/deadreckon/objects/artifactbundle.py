"""Bundles of scripts and their source maps, as they are uploaded: ZIP archives, with a list of what is in them or not.

Sentry's artifact bundles are ZIP archives, with or without the eight bytes of a source bundle before them, whose
``manifest.json`` says what each entry is: ``{"files": {entry: {"type": "source_map", "url": "~/static/a.js.map",
"headers": {"debug-id": ..., "sourcemap": ...}}}, "release": ..., "dist": ...}``. Types are ``minified_source``,
``source_map``, ``source`` and ``indexed_ram_bundle``. Source: Sentry "What are Artifact Bundles", and the module
documentation of symbolic-debuginfo's ``sourcebundle``. In an archive without that list, entries go by their names.
"""

from __future__ import annotations

import json
import posixpath
import zipfile
from dataclasses import dataclass, field
from typing import IO, Any

from deadreckon.errors import LimitExceeded, Malformed
from deadreckon.objects.sourcebundle import BROKEN, check_directory

__all__ = ["MAP", "OTHER", "SCRIPT", "Artifact", "ArtifactBundle", "kind_of_name"]

SCRIPT, MAP, OTHER = "script", "map", "other"
_KINDS = {"minified_source": SCRIPT, "source_map": MAP, "indexed_ram_bundle": SCRIPT}
_SCRIPTS = (".js", ".mjs", ".cjs", ".jsbundle", ".bundle", ".css", ".wasm")
_MAX_MANIFEST = 64 << 20
_MAX_ENTRIES = 100_000


def kind_of_name(name: str) -> str:
    """Tell scripts and maps by the end of their names; ``app.js.map.json`` and the like are neither."""
    path = name.lower().partition("?")[0]
    return MAP if path.endswith(".map") else SCRIPT if path.endswith(_SCRIPTS) else OTHER


@dataclass(slots=True)
class Artifact:
    """A file of a bundle: its entry, the URL that it is served at, and what was noted with it (names in lower case)."""

    entry: str
    url: str
    kind: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def debug_id(self) -> str | None:
        """The debug id that was noted, in whatever spelling."""
        return self.headers.get("debug-id") or None


class ArtifactBundle:
    """A bundle in an open file, which stays the caller's to close.

    Raises Malformed where it is no ZIP archive, LimitExceeded where its lists are too long.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        try:
            check_directory(stream)
            self._zip = zipfile.ZipFile(stream)
            names = [info.filename for info in self._zip.infolist() if not info.is_dir()][:_MAX_ENTRIES]
            manifest = json.loads(self.read("manifest.json", _MAX_MANIFEST)) if "manifest.json" in names else None
        except (LimitExceeded, Malformed):
            raise
        except (*BROKEN, RecursionError) as e:
            raise Malformed("artifact bundle", expected="a ZIP archive", got=e) from e
        listed = manifest.get("files") if isinstance(manifest, dict) else None
        self.release = _text(manifest, "release")
        self.dist = _text(manifest, "dist")
        if isinstance(listed, dict):
            present = set(names)
            self.artifacts = [_artifact(name, info) for name, info in listed.items() if name in present]
        else:
            self.artifacts = [Artifact(name, f"~/{posixpath.normpath(name)}", kind_of_name(name)) for name in names]

    def read(self, entry: str, max_bytes: int) -> bytes:
        """Return an entry's content. Raises Malformed where it is damaged, LimitExceeded where it is larger."""
        try:
            with self._zip.open(entry) as member:
                data = member.read(max_bytes + 1)
        except BROKEN as e:
            raise Malformed(f"artifact bundle entry {entry[:200]}", got=e) from e
        if len(data) > max_bytes:
            raise LimitExceeded("artifact bundle entry bytes", max_bytes, what=entry[:200])
        return data


def _text(value: Any, name: str) -> str | None:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) else None


def _artifact(entry: str, info: Any) -> Artifact:
    url = _text(info, "url") or _text(info, "path") or f"~/{entry}"
    noted = info.get("headers") if isinstance(info, dict) else None
    headers = {str(k).lower(): v for k, v in noted.items() if isinstance(v, str)} if isinstance(noted, dict) else {}
    if (debug_id := _text(info, "debug_id")) is not None:
        headers.setdefault("debug-id", debug_id)
    return Artifact(entry, url, _KINDS.get(_text(info, "type") or "", kind_of_name(url)), headers)
