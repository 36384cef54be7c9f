"""Tables are built in a child process, so that a hostile debug file costs only itself.

A child answers requests one at a time: one JSON object a line in, one out. It limits its own address space; its
parent limits time, kills it where it does not answer, and starts another for the next file. Run as
``python -m deadreckon.symbols.builder``.
"""

from __future__ import annotations

import gc
import json
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import IO, Any

from deadreckon.errors import LimitExceeded, SourceUnavailable, SymbolError

__all__ = ["Builder"]

_MAX_ANSWER = 16 << 20


class _ChildDied(SymbolError):
    """The child ended without an answer."""


class Builder:
    """A child process that identifies debug files and builds their tables; started when first needed.

    One instance may be used from several threads (requests take turns) and survives a fork (the forked process
    starts a child of its own).
    """

    def __init__(self, *, seconds: float, max_bytes: int) -> None:
        self._seconds = seconds
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None
        self._owner = 0

    def identify(self, path: str) -> list[dict[str, Any]]:
        """Return each object's identity (tables.identify). Raises SymbolError, LimitExceeded."""
        return self._ask({"op": "identify", "path": path})

    def build(self, path: str, output: str) -> list[dict[str, Any]]:
        """Write each object's table file (tables.build).

        Raises SymbolError, LimitExceeded; SourceUnavailable where it is the output that can't be written. A file whose
        unwind information takes too long is built once more without it.
        """
        request = {"op": "build", "path": path, "output": output}
        try:
            return self._ask(request)
        except (_ChildDied, LimitExceeded) as first:
            try:
                found = self._ask({**request, "op": "build_without_rules"})
            except (SymbolError, LimitExceeded):
                raise first from None
            for info in found:
                info["problems"].append(f"unwind information: {first}")
            return found

    def close(self) -> None:
        """End the child, if there is one."""
        with self._lock:
            self._stop()

    def __del__(self) -> None:
        self._stop()

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child is None or self._owner != os.getpid():
            return
        child.kill()
        for stream in (child.stdin, child.stdout, self._said):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    pass
        child.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._owner == os.getpid() and self._child.poll() is None:
            return self._child
        self._stop()
        self._owner = os.getpid()
        command = [sys.executable, "-m", "deadreckon.symbols.builder", str(self._max_bytes), str(self._seconds)]
        # What a native library says when it dies is for the message, not for the terminal.
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        self._child = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said
        )
        return self._child

    def _ask(self, request: dict[str, str]) -> list[dict[str, Any]]:
        path = request["path"]
        with self._lock:
            waiting = self._child
            child = self._start()
            try:
                try:
                    line = self._exchange(child, request)
                except (OSError, EOFError) as e:
                    if child is not waiting or isinstance(e, TimeoutError):
                        raise
                    # A child that was waiting may have been killed before this file; a new one tells.
                    self._stop()
                    child = self._start()
                    line = self._exchange(child, request)
            except TimeoutError as e:
                self._stop()
                raise LimitExceeded("symbols.build_seconds", self._seconds, what=path) from e
            except (OSError, EOFError) as e:
                words = self._last_words()
                self._stop()
                raise _ChildDied(f"{path}: the process reading it died ({_ending(child)}{words})") from e
        answer = json.loads(line)
        if "error" in answer:
            raise (SourceUnavailable if answer.get("unavailable") else SymbolError)(answer["error"])
        found: list[dict[str, Any]] = answer["objects"]
        return found

    def _last_words(self) -> str:
        """Return the first line the child left on its standard error."""
        if self._said is None:
            return ""
        self._said.seek(0)
        lines = self._said.read(4096).decode("utf-8", "replace").splitlines()
        return f": {lines[0][:200]}" if lines else ""

    def _exchange(self, child: subprocess.Popen[bytes], request: dict[str, str]) -> bytes:
        assert child.stdin is not None
        assert child.stdout is not None
        assert self._said is not None
        self._said.truncate(0)
        child.stdin.write(json.dumps(request).encode() + b"\n")
        child.stdin.flush()
        return self._read_line(child.stdout.fileno())

    def _read_line(self, descriptor: int) -> bytes:
        deadline = time.monotonic() + self._seconds
        received = bytearray()
        while not received.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                raise TimeoutError
            block = os.read(descriptor, 1 << 16)
            if not block or len(received) > _MAX_ANSWER:
                raise EOFError
            received += block
        return bytes(received)


def _ending(child: subprocess.Popen[bytes]) -> str:
    code = child.returncode
    return "no exit status" if code is None else f"signal {-code}" if code < 0 else f"exit status {code}"


def _serve(max_bytes: int, seconds: float) -> None:
    import resource  # noqa: PLC0415

    resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # What native libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    from deadreckon.symbols import tables  # noqa: PLC0415

    gc.freeze()  # What is imported stays; walking it again for every file would cost more than the file.
    for line in sys.stdin.buffer:
        request = json.loads(line)
        # Whoever would end a build that never returns may have been killed meanwhile.
        signal.alarm(min(math.ceil(seconds) + 2, 1 << 30))
        try:
            if request["op"] == "identify":
                found = tables.identify(request["path"])
            else:
                found = tables.build(request["path"], request["output"], rules=request["op"] == "build")
            answer: dict[str, Any] = {"objects": found}
        except Exception as e:  # noqa: BLE001  (the parent decides what a failure means)
            answer = {"error": f"{request['path']}: {e}" if request["path"] not in str(e) else str(e)}
            answer["unavailable"] = isinstance(e, OSError)
        signal.alarm(0)
        try:
            answers.write(json.dumps(answer).encode() + b"\n")
            answers.flush()
        except BrokenPipeError:
            os._exit(1)


if __name__ == "__main__":
    _serve(int(sys.argv[1]), float(sys.argv[2]))
