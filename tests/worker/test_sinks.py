"""One sink for all events: each event once, whatever happens to the supervisor in the middle of it."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from deadreckon.config import Config, WorkerConfig
from deadreckon.errors import ConfigError, MissingDependency
from deadreckon.model.event import encode_event
from deadreckon.worker import sinks
from deadreckon.worker.sinks import Pump, open_sink
from deadreckon.worker.spool import Spool
from deadreckon.worker.submit import submit
from deadreckon.worker.supervisor import Summary, run
from synth import worker as worker_stubs
from synth.worker import drain, event_of, names

if TYPE_CHECKING:
    from pathlib import Path

    from deadreckon.model.event import Event

CALLS: list[tuple[str, list[Event]]] = []


def fill(jobdir: Path, config: WorkerConfig, count: int, start: int = 0) -> list[bytes]:
    """Have jobs wait for the sink; return the lines that belong in it."""
    contents = [f"fine {n}".encode() for n in range(start, start + count)]
    for content in contents:
        submit(jobdir, [("crash", content)])
    drain(jobdir, config)
    assert len(waiting(jobdir)) == count
    return sorted(encode_event(event_of(content)) for content in contents)


def waiting(jobdir: Path) -> list[str]:
    return [name for name in names(jobdir / "active" / ".sink") if name[0] != "."]


def stored(place: Path) -> list[bytes]:
    return sorted(line for path in place.glob("*.jsonl") for line in path.read_bytes().splitlines())


def test_json_lines(jobdir: Path, tmp_path: Path) -> None:
    config = WorkerConfig(sink=f"jsonl:{tmp_path / 'sink'}")
    lines = fill(jobdir, config, 20)
    pump = Pump(jobdir, config)
    assert pump.flush() == 0  # More may come in a moment.
    assert pump.flush(final=True) == 20
    pump.close()
    assert stored(tmp_path / "sink") == lines
    assert len(names(jobdir / "done")) == 20
    assert all((jobdir / "done" / name / "event.jsonl").is_file() for name in names(jobdir / "done"))
    assert names(jobdir / "active" / ".sink") == [".lock"]


def test_rotation_loses_and_doubles_nothing(jobdir: Path, tmp_path: Path) -> None:
    config = WorkerConfig(sink=f"jsonl:{tmp_path / 'sink'}", sink_rotate_bytes=300)
    pump = Pump(jobdir, config)
    lines = []
    for number in range(5):
        lines += fill(jobdir, config, 2, start=2 * number)
        pump.flush(final=True)
    pump.close()
    assert stored(tmp_path / "sink") == sorted(lines)
    files = names(tmp_path / "sink")
    assert len([f for f in files if f.endswith(".jsonl")]) > 2
    assert "events.jsonl" in files


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_killed_at_any_step_each_event_is_in_the_sink_once(jobdir: Path, tmp_path: Path, kind: str) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    for step in range(100):
        here, place = jobdir / str(step), tmp_path / str(step)
        config = WorkerConfig(sink=f"{kind}:{place}", durability="none")
        lines = fill(here, config, 3)
        pid = os.fork()
        if pid == 0:
            worker_stubs.die_at_step(step)
            Pump(here, config).flush(final=True)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        pump = Pump(here, config)
        pump.flush(final=True)
        pump.close()
        assert (stored(place) if kind == "jsonl" else rows(place)) == lines, step
        assert len(names(here / "done")) == 3
        assert names(here / "active" / ".sink") == [".lock"]
        if status == 0:
            assert step > 5
            return
        assert os.WTERMSIG(status) == signal.SIGKILL
    pytest.fail("it never came to an end")


def rows(place: Path) -> list[bytes]:
    from pyarrow import parquet

    return sorted(
        line.encode()
        for path in place.glob("*.parquet")
        for line in parquet.read_table(path).column("event").to_pylist()
    )


def test_a_full_disk_is_tried_again(jobdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = WorkerConfig(sink=f"jsonl:{tmp_path / 'sink'}")
    lines = fill(jobdir, config, 3)
    pump = Pump(jobdir, config)
    store = sinks.JsonLines.store

    def half(self: sinks.JsonLines, batch: sinks.Batch, mark: dict[str, Any]) -> None:
        store(self, batch[:1], mark)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(sinks.JsonLines, "store", half)
        with pytest.raises(OSError, match="No space"):
            pump.flush(final=True)
    assert len(waiting(jobdir)) == 3
    assert pump.flush(final=True) == 3
    assert stored(tmp_path / "sink") == lines


def test_only_one_supervisor_writes(jobdir: Path, tmp_path: Path) -> None:
    config = WorkerConfig(sink=f"jsonl:{tmp_path / 'sink'}")
    fill(jobdir, config, 2)
    first, second = Pump(jobdir, config), Pump(jobdir, config)
    assert first.flush() == 0  # It has the lock, and waits for more.
    assert second.flush(final=True) == 0
    first.close()
    assert second.flush(final=True) == 2


def test_a_supervisor_empties_what_waits(jobdir: Path, tmp_path: Path) -> None:
    jobs = {submit(jobdir, [("crash", f"fine {n}".encode())]) for n in range(30)}
    config = Config(worker=WorkerConfig(sink=f"jsonl:{tmp_path / 'sink'}"))
    assert run(jobdir, config, once=True, processes=2, processor=worker_stubs.stub) == Summary(done=30)
    assert set(names(jobdir / "done")) == jobs
    assert stored(tmp_path / "sink") == sorted(encode_event(event_of(f"fine {n}".encode())) for n in range(30))


def remember(job: str, events: list[Event]) -> None:
    CALLS.append((job, events))


def test_a_callback(jobdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "my_sink", sys.modules[__name__])
    config = WorkerConfig(sink="call:my_sink:remember")
    CALLS.clear()
    fill(jobdir, config, 2)
    Pump(jobdir, config).flush(final=True)
    assert sorted(job for job, _ in CALLS) == names(jobdir / "done")
    assert {events[0].message for _, events in CALLS} == {"fine 0", "fine 1"}


@pytest.mark.parametrize("spec", ["jsonl", "jsonl:", "csv:x", "call:nowhere:nothing", "call:os:nothing", "x"])
def test_settings_that_can_not_be(spec: str) -> None:
    with pytest.raises(ConfigError):
        open_sink(WorkerConfig(sink=spec))


def test_parquet_without_its_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependency, match=r"deadreckon\[parquet\]"):
        open_sink(WorkerConfig(sink=f"parquet:{tmp_path}"))


def test_leases_and_a_sink_do_not_go_together(jobdir: Path) -> None:
    with pytest.raises(ConfigError):
        Spool(jobdir, WorkerConfig(sink="jsonl:x", claims="lease"))
