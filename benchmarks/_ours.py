"""Our own program, and the fixture that benchmarks of one small dump take."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["FIXTURE", "command", "smallest_dump"]

FIXTURE = Path(__file__).parent.parent / "native_fixtures/linux/x86_64/static-O2"


def command() -> list[str]:
    """Return the command that starts the program of this Python."""
    script = Path(sys.executable).with_name("deadreckon")
    return [str(script)] if script.exists() else [sys.executable, "-m", "deadreckon"]


def smallest_dump() -> Path:
    """Return the fixture's smallest minidump."""
    return min(FIXTURE.rglob("*.dmp"), key=lambda path: path.stat().st_size)
