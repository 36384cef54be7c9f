"""Writes snapshots after docs/snapshot.md, with Python's own zip and JSON."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

MIMETYPE = "application/vnd.deadreckon.snapshot+zip"
STACK = 0x7FFC_1000
MODULE = 0x40_0000


def report(**changes: Any) -> dict[str, Any]:
    """Return a report of one thread with 4 KiB of stack; a value of None leaves the member out."""
    told: dict[str, Any] = {
        "schema": "deadreckon.snapshot/1",
        "event_id": "0123456789abcdef0123456789abcdef",
        "timestamp": "2026-03-01T12:00:00Z",
        "arch": "x86_64",
        "os": {"name": "Linux", "version": "6.1"},
        "process": {"name": "app", "pid": 17},
        "exceptions": [{"type": "SIGSEGV", "value": "SEGV_MAPERR at 0x18", "code": "0xb", "address": "0x18"}],
        "threads": [
            {
                "id": 17,
                "name": "main",
                "crashed": True,
                "registers": {"rip": hex(MODULE + 0x1136), "rsp": hex(STACK + 0x10), "rbp": hex(STACK + 0x40)},
            },
            {"id": 18, "registers": {"rip": hex(MODULE + 0x1200), "rsp": hex(STACK + 0x800)}},
        ],
        "modules": [
            {
                "image_addr": hex(MODULE),
                "image_size": 0x4000,
                "code_file": "/opt/app",
                "debug_id": "2cb1f1f5-8d3b-4a53-9d2c-6b8a6f0f9c1e",
            }
        ],
        "memory": [{"start": hex(STACK), "size": 0x1000, "offset": 0}],
        "regions": [
            {"start": hex(MODULE), "end": hex(MODULE + 0x4000), "access": "r-x"},
            {"start": hex(STACK), "end": hex(STACK + 0x1000), "access": "rw-"},
        ],
    }
    return {key: value for key, value in (told | changes).items() if value is not None}


def pack(
    told: dict[str, Any] | bytes,
    memory: bytes | None = bytes(range(256)) * 16,
    *,
    method: int = zipfile.ZIP_DEFLATED,
    attachments: dict[str, bytes] | None = None,
) -> bytes:
    """Return the container."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        packed.writestr(zipfile.ZipInfo("mimetype"), MIMETYPE)
        text = told if isinstance(told, bytes) else json.dumps(told).encode()
        packed.writestr(zipfile.ZipInfo("report.json"), text, method)
        if memory is not None:
            packed.writestr(zipfile.ZipInfo("memory.bin"), memory, method)
        for name, content in (attachments or {}).items():
            packed.writestr(zipfile.ZipInfo(f"attachments/{name}"), content, method)
    return out.getvalue()
