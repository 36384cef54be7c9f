"""Runs a command that turns one file into another: for formats that only their vendor's tools read.

The command is the user's and trusted, its input is not: it gets no shell, no terminal and no standard input, a
directory of its own, a time limit and a size limit, and whatever it started is ended with it.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import time
from typing import TYPE_CHECKING

from deadreckon.errors import DeadreckonError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

__all__ = ["ConverterFailed", "convert"]

_POLL_SECONDS = 0.02
_MAX_COMPLAINT = 500


class ConverterFailed(DeadreckonError):
    """A configured converter gave nothing that can be used."""

    code = "converter_failed"


def convert(command: Sequence[str], source: Path, target: Path, *, seconds: float, max_bytes: int) -> None:
    """Run ``command`` with ``{input}`` and ``{output}`` in its arguments replaced, in the target's directory.

    ``max_bytes`` bounds all that is written into that directory, looked at while it runs. Raises ConverterFailed where
    the command can't be started, fails, takes longer than ``seconds``, writes more, or leaves no file at the target.
    """
    argv = [a.replace("{input}", str(source)).replace("{output}", str(target)) for a in command]
    complaints = target.with_name("complaints")
    with complaints.open("xb") as written:
        try:
            running: subprocess.Popen[Any] = subprocess.Popen(  # noqa: S603  (the user's own setting, and no shell)
                argv,
                cwd=target.parent,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=written,
                env={**os.environ, "TMPDIR": str(target.parent)},
                start_new_session=True,
            )
        except (OSError, ValueError) as e:
            raise ConverterFailed(f"{argv[0]}: can't be started: {e}") from e
        try:
            problem = _watched(running, target.parent, seconds, max_bytes)
        finally:
            _end(running)
    if problem is None and running.returncode:
        problem = f"ended with status {running.returncode}"
    if problem is None and not _is_file(target):
        problem = "left no output"
    if problem is not None:
        with complaints.open("rb") as errors:
            errors.seek(max(complaints.stat().st_size - _MAX_COMPLAINT, 0))
            said = errors.read(_MAX_COMPLAINT).decode("utf-8", "replace").strip()
        raise ConverterFailed(f"{argv[0]}: {problem}" + (f"; it said: {said}" if said else ""))


def _watched(running: subprocess.Popen[Any], directory: Path, seconds: float, max_bytes: int) -> str | None:
    """Wait for the command's end and return what it did wrong. It stays a zombie, so that its group's id is its own."""
    deadline = time.monotonic() + seconds
    while True:
        ended = os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        if _size(directory) > max_bytes:
            return f"wrote more than btt.converter_max_bytes, {max_bytes}"
        if ended:
            return None
        if time.monotonic() > deadline:
            return f"took longer than btt.converter_seconds, {seconds:g}"
        time.sleep(_POLL_SECONDS)


def _end(running: subprocess.Popen[Any]) -> None:
    """End the command and what it started, as far as that stayed in its session's process group."""
    try:
        os.killpg(running.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    running.wait()


def _size(directory: Path) -> int:
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except OSError:  # Gone since.
                continue
    return total


def _is_file(path: Path) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size > 0
