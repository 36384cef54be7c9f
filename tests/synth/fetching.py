"""Modules, the files that belong to them, and sources to fetch them from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deadreckon.config import Config, RemoteLimits, SourceConfig
from deadreckon.model.crash import Module
from deadreckon.symbols.remote import RemoteSource
from synth.breakpad import SymFile

if TYPE_CHECKING:
    from deadreckon.symbols.store import SymbolStore
    from synth.symbol_server import SymbolServer

VARIANT = Path(__file__).parent.parent.parent / "native_fixtures/linux/x86_64/pie-O2"

DEBUG_ID = "d8cddba5-5a8c-4d23-327a-dcb845a4f6a5"
BUILD_ID = "a5dbcdd88c5a234d327adcb845a4f6a57cf01f81"
CRASHY = Module(0x5555_0000_0000, 0x10000, "/opt/app/crashy", BUILD_ID, None, DEBUG_ID)
LOOP = Module(0, 0x4000, r"C:\app\loop.exe", "5ab380774000", "loop.pdb", "04030201-0605-0807-090a-0b0c0d0e0f10-1")
LOOP_PATH = "/loop.exe/5AB380774000/loop.exe"
DEBUGINFO, EXECUTABLE = f"/buildid/{BUILD_ID}/debuginfo", f"/buildid/{BUILD_ID}/executable"
LIMITS = RemoteLimits(
    connect_seconds=2, read_seconds=0.3, total_seconds=8, retry_wait_seconds=0.01, max_retry_wait_seconds=0.5
)
CONTENT = {
    "debuginfo": (VARIANT / "crashy.debug").read_bytes(),
    "executable": (VARIANT / "crashy").read_bytes(),
    "breakpad": next((VARIANT / "breakpad/crashy").glob("*/*.sym")).read_bytes(),
}


def source(
    server: SymbolServer | str,
    store: SymbolStore,
    layout: str = "debuginfod",
    limits: RemoteLimits = LIMITS,
    **more: Any,
) -> RemoteSource:
    url = server if isinstance(server, str) else server.url
    return RemoteSource(url, SourceConfig(url, layout, **more), Config(remote=limits), store)


def sym(number: int = 1, name: str = "app") -> tuple[Module, str, bytes]:
    """Return a module, the path of its Breakpad file, and that file."""
    identifier = f"{number:032X}0"
    file = SymFile(id=identifier, name=name)
    file.function(0x1000, 0x10, f"f{number}")
    file.cfi(0x1000, 0x10, ".cfa: $rsp 8 + .ra: .cfa -8 + ^")
    debug_id = (
        f"{identifier[:8]}-{identifier[8:12]}-{identifier[12:16]}-{identifier[16:20]}-{identifier[20:32]}".lower()
    )
    return Module(0, 0x2000, name, None, name, debug_id), f"/{name}/{identifier}/{name}.sym", bytes(file)


def stored(store: SymbolStore) -> list[str]:
    found = (store.root / "remote").glob("*/files/**/*")
    return sorted("/" + str(p.relative_to(store.root / "remote")).split("/", 2)[2] for p in found if p.is_file())


def left_over(store: SymbolStore) -> list[str]:
    return os.listdir(store.temporary)
