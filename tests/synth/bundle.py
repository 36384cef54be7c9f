"""Writes source bundles, from Sentry's description of them."""

from __future__ import annotations

import io
import json
import struct
import zipfile


def bundle(files: dict[str, bytes], debug_id: str = "", listed: dict[str, object] | None = None) -> bytes:
    """Return a bundle of files by their original path; ``listed`` is added to the manifest's list."""
    out = io.BytesIO()
    entries: dict[str, object] = dict(listed or {})
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, (path, content) in enumerate(files.items()):
            archive.writestr(f"files/{number}", content)
            entries[f"files/{number}"] = {"type": "source", "path": path}
        manifest = {"files": entries, "debug_id": debug_id, "arch": "x86_64", "object_name": "app"}
        archive.writestr("manifest.json", json.dumps(manifest))
    return b"SYSB" + struct.pack("<I", 2) + out.getvalue()
