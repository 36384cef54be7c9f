"""Source context: the lines around a frame's line, from source bundles or from directories that the user names.

A frame's path comes from a debug file and may be anything. It is looked for under the roots only: as it is where it
lies in one, else with the root in the place of its drive or first slash, after the user's rules for prefixes. No part
of a path is dropped to make it fit: another file of the same name would give lines that were never compiled.
"""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from typing import TYPE_CHECKING

from deadreckon.errors import ConfigError, DeadreckonError
from deadreckon.objects.sourcebundle import SourceBundle, same_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from deadreckon.model.event import Frame

__all__ = ["SourceContext"]

_MAX_FILE = 16 << 20
_MAX_LINE = 1024
"""Characters; what is beyond them is left out."""
_MAX_BYTES = 64 << 20
_MAX_FILES = 4096
"""What is read for one crash."""
_MAX_PATH = 4096


class SourceContext:
    """Finds the lines around a frame's line; safe to use from several threads, since it keeps nothing.

    ``roots`` are directories; ``remap`` rules ``prefix=>prefix``, the first that fits counts; ``lines`` is how many
    are shown on each side. Raises ConfigError for a rule of another form.
    """

    def __init__(self, roots: Sequence[str], remap: Sequence[str] = (), lines: int = 5) -> None:
        self._roots = [os.path.realpath(root) for root in roots]
        self._rules = [_rule(text) for text in remap]
        self._lines = max(0, lines)

    def add(self, frames: Iterable[Frame], bundles: Mapping[str, Sequence[str]]) -> None:
        """Fill ``pre_context``, ``context_line`` and ``post_context`` of frames that have a path and a line.

        ``bundles`` are paths of source bundles by the debug id that they belong to. Without these and without roots
        nothing is read. A frame whose file is not found, or is shorter than its line, stays as it is.
        """
        if not self._roots and not bundles:
            return
        with ExitStack() as opened:
            files = _Files(self, opened)
            for frame in frames:
                path, number = frame.abs_path, frame.lineno
                if not path or number is None or frame.context_line is not None or len(path) > _MAX_PATH:
                    continue
                for origin in (*bundles.get(frame.debug_id or "", ()), ""):
                    lines = files.lines(origin, path)
                    if 0 < number <= len(lines):
                        at = number - 1
                        frame.pre_context = [_text(line) for line in lines[max(0, at - self._lines) : at]]
                        frame.context_line = _text(lines[at])
                        frame.post_context = [_text(line) for line in lines[at + 1 : at + 1 + self._lines]]
                        break

    def from_roots(self, path: str) -> bytes | None:
        """Return the content of the file with a path, None where it is under none of the roots."""
        mapped = self._mapped(path)
        parts = [part for part in _without_anchor(mapped).split("/") if part not in {"", "."}]
        if "\0" in mapped or ".." in parts or not parts:
            return None
        for root in self._roots:
            within = os.path.join(root, *parts)
            # A path that the rules, or the build itself, put below the root.
            for candidate in (mapped, within) if mapped.startswith("/") else (within,):
                data = _read_below(root, candidate)
                if data is not None:
                    return data
        return None

    def _mapped(self, path: str) -> str:
        """Return a path with the first rule that fits applied, its separators being slashes."""
        text = path.replace("\\", "/") if _is_windows(path) else path
        key = same_path(path)
        for old, new in self._rules:
            if key == old or key.startswith(old + "/"):
                return (new + text[len(old) :]) if new else text[len(old) :].lstrip("/")
        return text


def _rule(text: str) -> tuple[str, str]:
    old, arrow, new = text.partition("=>")
    if not arrow or not old.strip():
        raise ConfigError(f"source path rule {text!r}: expected prefix=>prefix")
    old, new = old.strip().rstrip("/\\"), new.strip().rstrip("/\\")
    return same_path(old), new.replace("\\", "/") if _is_windows(new) else new


def _is_windows(path: str) -> bool:
    return path[1:2] == ":" or path.startswith("\\\\") or ("\\" in path and "/" not in path)


def _without_anchor(path: str) -> str:
    return path[2:] if path[1:2] == ":" else path


def _read_below(root: str, path: str) -> bytes | None:
    """Return a regular file's content, None where there is none, it is too large, or it lies outside of the root."""
    try:
        real = os.path.realpath(path)
        if os.path.commonpath((root, real)) != root:
            return None
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_FILE:
            return None
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(_MAX_FILE)
    except OSError:
        return None
    finally:
        os.close(descriptor)


class _Files:
    """The files of one crash, each read once; what there isn't has no lines."""

    def __init__(self, context: SourceContext, opened: ExitStack) -> None:
        self._context = context
        self._opened = opened
        self._bundles: dict[str, SourceBundle | None] = {}
        self._lines: dict[tuple[str, str], list[bytes]] = {}
        self._left = _MAX_BYTES

    def lines(self, origin: str, path: str) -> list[bytes]:
        """Return a file's lines; ``origin`` is a bundle's path, empty for the roots."""
        found = self._lines.get((origin, path))
        if found is None:
            data = None
            if self._left > 0 and len(self._lines) < _MAX_FILES:
                data = self._from_bundle(origin, path) if origin else self._context.from_roots(path)
            self._left -= len(data or b"")
            found = self._lines[origin, path] = _split(data or b"")
        return found

    def _from_bundle(self, origin: str, path: str) -> bytes | None:
        try:
            if origin not in self._bundles:
                self._bundles[origin] = None
                stream = open(origin, "rb")  # noqa: SIM115  (closed with the others)
                self._bundles[origin] = SourceBundle(self._opened.enter_context(stream))
            bundle = self._bundles[origin]
            return bundle.source(path, _MAX_FILE) if bundle is not None else None
        except (OSError, DeadreckonError):
            return None


def _split(data: bytes) -> list[bytes]:
    if data[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        data = data.decode("utf-16", "replace").encode()
    return data.removeprefix(b"\xef\xbb\xbf").splitlines()


def _text(line: bytes) -> str:
    # At most four bytes make a character.
    return line[: 4 * _MAX_LINE].decode("utf-8", "replace")[:_MAX_LINE]
