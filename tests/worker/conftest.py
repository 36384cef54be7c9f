from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TESTS = Path(__file__).parent.parent


@pytest.fixture
def jobdir(tmp_path: Path) -> Iterator[Path]:
    """Give a job directory, in memory where there is one: what is tested is order, not disks."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path / "jobs"
        return
    made = Path(tempfile.mkdtemp(dir=memory, prefix="deadreckon-test-"))
    yield made / "jobs"
    shutil.rmtree(made)


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a function of synth.worker as a program; what still runs at the end of the test is killed."""
    started: list[subprocess.Popen[str]] = []

    def program(function: str, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", f"from synth import worker; worker.{function}()", *arguments]
        path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path}
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=TESTS
        )
        started.append(process)
        return process

    yield program
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def supervise(start: Callable[..., subprocess.Popen[str]]) -> Callable[..., subprocess.Popen[str]]:
    """Start a worker; keywords are those of ``run``, and ``worker`` holds those of WorkerConfig."""

    def worker(jobdir: Path, **told: Any) -> subprocess.Popen[str]:
        return start("supervise", json.dumps({"jobdir": str(jobdir), **told}))

    return worker
