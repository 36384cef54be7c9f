"""``deadreckon demo``: the whole road on the crash that comes with the package, in a directory of its own."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from deadreckon.adapters.text import render, safe
from deadreckon.config import Config, WorkerConfig
from deadreckon.engine import Engine
from deadreckon.errors import SourceUnavailable
from deadreckon.worker.submit import submit
from deadreckon.worker.supervisor import run as run_worker

if TYPE_CHECKING:
    from typing import TextIO

__all__ = ["archive", "run"]

_NAME = "crash-demo.tar.xz"


def archive() -> Path:
    """Return the demo's archive: two minidumps of a C++ program with its executable and debug file.

    It lies beside this module in an installed package and in native_fixtures/ in a checkout.
    """
    here = Path(__file__).parent
    for path in (here / _NAME, here.parents[2] / "native_fixtures" / "demo" / _NAME):
        if path.is_file():
            return path
    raise SourceUnavailable(f"{_NAME} is missing from this installation")


def run(out: TextIO) -> None:
    """Process the demo's crashes with the library, then as a job of a worker, and print both."""
    source = archive()
    with tempfile.TemporaryDirectory(prefix="deadreckon-demo-") as scratch:
        config = replace(Config(), store=str(Path(scratch) / "store"), worker=WorkerConfig(poll_seconds=0.05))
        _say(out, f"deadreckon process {_NAME}", "an archive with two minidumps and their symbols")
        with Engine(config) as engine:
            out.writelines(render(event, explain_grouping=True) + "\n" for event in engine.process_all(str(source)))
        jobs = Path(scratch) / "jobs"
        _say(out, f"deadreckon submit JOBDIR {_NAME}; deadreckon worker JOBDIR --once", "the same as a job")
        job = submit(str(jobs), [str(source)])
        summary = run_worker(str(jobs), config, processes=1, once=True)
        out.write(f"{summary.done} job done, {summary.failed} failed; done/{job}/event.jsonl says:\n")
        for line in (jobs / "done" / job / "event.jsonl").read_text().splitlines():
            event_json = json.loads(line)
            out.write(
                safe(f"  {event_json['fingerprint']['id']}  {event_json['title']}  at {event_json['culprit']}") + "\n"
            )


def _say(out: TextIO, command: str, what: str) -> None:
    out.write(f"$ {command}\n# {what}\n\n")
    out.flush()
