"""What becomes of a job: every one ends in done/ or failed/, by what its processor says or does."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import pytest

from deadreckon.config import Config, WorkerConfig
from deadreckon.model.event import Diagnostic, Event, decode_event
from deadreckon.symbols import housekeeping
from deadreckon.symbols.store import SymbolStore
from deadreckon.worker import jobs
from deadreckon.worker.processor import engine_processor
from deadreckon.worker.runner import work
from deadreckon.worker.spool import Spool
from deadreckon.worker.submit import submit
from synth.sourcemap import source_map
from synth.worker import drain, drop, event_of, names, reason

if TYPE_CHECKING:
    from pathlib import Path

    from deadreckon.worker.runner import Processor


def events_of(jobdir: Path, job: str) -> list[Event]:
    return [decode_event(line) for line in (jobdir / "done" / job / "event.jsonl").read_bytes().splitlines()]


def unread(code: str, status: str = "unreadable") -> Event:
    event = event_of(b"unread")
    event.status = status
    event.diagnostics = [Diagnostic(code=code, severity="error", message="why")]
    return event


def test_done_holds_events_and_input(jobdir: Path) -> None:
    job = submit(jobdir, [("crash", b"fine")])
    assert drain(jobdir) == ["done"]
    case = jobdir / "done" / job
    assert names(case) == ["event.jsonl", "input"]
    assert events_of(jobdir, job) == [event_of(b"fine")]
    assert names(case / "input") == ["crash", "job.json"]
    assert names(jobdir / "active") == names(jobdir / "new") == names(jobdir / "tmp") == []


def test_input_can_be_dropped_but_not_that_of_a_failed_job(jobdir: Path) -> None:
    good = submit(jobdir, [("crash", b"fine")])
    bad = submit(jobdir, [("crash", b"bug here")])
    drain(jobdir, WorkerConfig(keep_input=False))
    assert names(jobdir / "done" / good) == ["event.jsonl"]
    assert (jobdir / "failed" / bad / "input" / "crash").read_bytes() == b"bug here"


def test_redoing_gives_the_same_event(jobdir: Path) -> None:
    first, second = (submit(jobdir, [("crash", b"fine")]) for _ in range(2))
    drain(jobdir)
    assert len({(jobdir / "done" / job / "event.jsonl").read_bytes() for job in (first, second)}) == 1


def test_a_bug_fails_the_job_with_its_traceback(jobdir: Path) -> None:
    job = submit(jobdir, [("crash", "bug \x1b[2Jhere \u202e".encode())])
    assert drain(jobdir) == ["failed"]
    assert reason(jobdir, job) == "internal: ValueError: \x1b[2Jhere \u202e"
    shown = (jobdir / "failed" / job / "traceback.txt").read_text()
    assert "in obey\n" in shown
    assert r"ValueError: \x1b[2Jhere \u202e" in shown
    assert shown.replace("\n", "").isprintable()


def test_an_event_that_can_not_be_written_is_a_bug(jobdir: Path) -> None:
    job = submit(jobdir, [("crash", b"fine")])
    event = event_of(b"fine")
    event.title = "\udcff"
    assert drain(jobdir, processor=lambda _: [event_of(b"fine"), event]) == ["failed"]
    assert reason(jobdir, job).startswith("internal: UnicodeEncodeError")
    assert names(jobdir / "failed" / job) == ["diagnostics.json", "input", "traceback.txt"]


def test_a_failing_disk_is_worth_all_attempts(jobdir: Path) -> None:
    job = submit(jobdir, [("crash", b"disk full")])
    assert drain(jobdir) == ["retried", "retried", "failed"]
    assert reason(jobdir, job) == "unreadable: [Errno 28] full"
    assert json.loads((jobdir / "failed" / job / "diagnostics.json").read_bytes())["attempt"] == 3


def test_part_of_an_archive_lost_to_the_disk_is_not_done(jobdir: Path) -> None:
    tries = iter([[event_of(b"one"), unread("unreadable")], [event_of(b"one"), event_of(b"two")]])
    job = submit(jobdir, [("crash", b"")])
    assert drain(jobdir, processor=lambda _: next(tries)) == ["retried", "done"]
    assert events_of(jobdir, job) == [event_of(b"one"), event_of(b"two")]


def test_one_good_crash_is_enough(jobdir: Path) -> None:
    events = [unread("malformed"), event_of(b"fine")]
    job = submit(jobdir, [("crash", b"")])
    assert drain(jobdir, processor=lambda _: events) == ["done"]
    assert events_of(jobdir, job) == events


@pytest.mark.parametrize("events", [[], [unread("unknown_format")], [unread("unsupported", "unsupported")] * 2])
def test_what_nobody_can_read_is_failed_for_later_versions(jobdir: Path, events: list[Event]) -> None:
    job = submit(jobdir, [("crash", b"?")])
    assert drain(jobdir, processor=lambda _: events) == ["failed"]
    told = json.loads((jobdir / "failed" / job / "diagnostics.json").read_bytes())
    assert [d["code"] for d in told["diagnostics"]] == (
        [d.code for e in events for d in e.diagnostics or []] or ["unknown_format"]
    )
    assert (jobdir / "failed" / job / "input" / "crash").read_bytes() == b"?"


def test_memory_error_leaves_the_lease_for_the_next_worker(jobdir: Path) -> None:
    submit(jobdir, [("crash", b"fine")])

    def exhaust(_: object) -> list[Event]:
        raise MemoryError

    spool = Spool(jobdir)
    with pytest.raises(MemoryError):
        work(spool, exhaust, wait=lambda _: False, once=True)
    assert jobs.status(jobdir)["active"] == 1
    spool.close()
    assert drain(jobdir) == ["done"]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Processor:
    return engine_processor(Config(store=str(tmp_path_factory.mktemp("store"))))


class TestEngine:
    def put(self, jobdir: Path, name: str, variant: Path, **told: object) -> str:
        """Put in a job of this name with a real minidump."""
        job = submit(jobdir, [variant / "dumps" / "inlines.dmp"], **told)  # type: ignore[arg-type]
        next(jobdir.glob(f"new/*/{job}")).rename(jobdir / "new" / name)
        return name

    def functions(self, event: Event) -> set[str]:
        crashed = next(t for t in event.threads or () if t.crashed)
        return {f.function for f in crashed.frames or () if f.status == "symbolicated" and f.function}

    def test_a_jobs_symbols_are_used_for_it_alone(self, jobdir: Path, fixtures: Path, engine: Processor) -> None:
        variant = fixtures / "linux" / "x86_64" / "pie-O2"
        debug = [variant / "crashy.debug", variant / "libcargo.so.debug"]
        found: list[Path] = []
        # One worker, so that the second and third of a name have the same path.
        with Spool(jobdir) as spool:
            for name, symbols in (("with", debug), ("same", []), ("same", debug), ("same", debug[:1]), ("same", [])):
                self.put(jobdir, name, variant, symbols=symbols)
                work(spool, engine, wait=lambda _: False, once=True)
                [case] = set((jobdir / "done").iterdir()) - set(found)
                found.append(case)
        stacks = [self.functions(events_of(jobdir, case.name)[0]) for case in found]
        assert any(name.startswith("nav::") for name in stacks[0])
        assert stacks[2] == stacks[0]
        assert not any(name.startswith("nav::") for stack in (stacks[1], stacks[4]) for name in stack)

    def test_what_the_producer_said_is_in_the_event(self, jobdir: Path, fixtures: Path, engine: Processor) -> None:
        variant = fixtures / "linux" / "x86_64" / "pie-O2"
        name = self.put(
            jobdir,
            "told",
            variant,
            kind="minidump",
            attributes={"build": "7"},
            attach=[("log.txt", b"four")],
            project="p",
            event_id="0123456789abcdef" * 2,
        )
        assert drain(jobdir, processor=engine) == ["done"]
        [event] = events_of(jobdir, name)
        assert event.event_id == "0123456789abcdef" * 2
        assert event.source.name == "inlines.dmp"
        assert {"build": "7", "project": "p"}.items() <= (event.attributes or {}).items()
        assert [(a.name, a.size) for a in event.attachments or ()] == [("log.txt", 4)]

    def test_an_archive_gives_an_event_for_each_crash(self, jobdir: Path, fixtures: Path, engine: Processor) -> None:
        demo = fixtures / "demo" / "crash-demo.tar.xz"
        job = submit(jobdir, [demo])
        assert drain(jobdir, processor=engine) == ["done"]
        events = events_of(jobdir, job)
        assert len(events) > 1
        assert len({e.event_id for e in events}) == len(events)
        assert all(self.functions(e) for e in events)

    @pytest.mark.parametrize("bare", [False, True])
    def test_an_upload_is_for_all_later_jobs(self, jobdir: Path, fixtures: Path, bare: bool) -> None:
        variant = fixtures / "linux" / "x86_64" / "pie-O2"
        fresh = engine_processor(Config(store=str(jobdir.parent / "store")))
        if bare:
            upload = drop(jobdir, "crashy.debug", (variant / "crashy.debug").read_bytes()).name
        else:
            upload = submit(jobdir, [], symbols=[variant / "crashy.debug"], attributes={"build": "7"})
        assert drain(jobdir, processor=fresh) == ["done"]
        assert names(jobdir / "done" / upload) == ["event.jsonl", "input", "symbols.jsonl"]
        assert (jobdir / "done" / upload / "event.jsonl").read_bytes() == b""
        told = json.loads((jobdir / "done" / upload / "symbols.jsonl").read_bytes().splitlines()[0])
        assert told["debug_id"]
        job = submit(jobdir, [variant / "dumps" / "inlines.dmp"])
        assert drain(jobdir, processor=fresh) == ["done"]
        assert any(name.startswith("nav::") for name in self.functions(events_of(jobdir, job)[0]))

    def test_what_is_no_debug_file_is_failed(self, jobdir: Path, engine: Processor) -> None:
        job = submit(jobdir, [], symbols=[("a.debug", b"nothing")])
        assert drain(jobdir, processor=engine) == ["failed"]
        assert reason(jobdir, job) == "malformed: a.debug: no debug file"

    def test_source_maps_are_for_their_release_and_project(self, jobdir: Path, engine: Processor) -> None:
        without = submit(jobdir, [], sourcemaps=[("app.js.map", b"{}")])
        assert drain(jobdir, processor=engine) == ["failed"]
        assert "release" in reason(jobdir, without)
        text = source_map([(0, 0, 0, 0, 0)])
        submit(jobdir, [], sourcemaps=[("app.js.map", text)], attributes={"release": "1"}, project="p")
        assert drain(jobdir, processor=engine) == ["done"]
        stack = b"Error: no\n    at f (https://example.com/app.js:1:1)\n"
        mapped = {}
        for release, project in (("1", "p"), ("2", "p"), ("1", "q")):
            job = submit(jobdir, [("error.txt", stack)], attributes={"release": release}, project=project)
            assert drain(jobdir, processor=engine) == ["done"]
            (exception,) = events_of(jobdir, job)[0].exceptions or []
            mapped[release, project] = (exception.frames or [])[0].origin is not None
        assert mapped == {("1", "p"): True, ("2", "p"): False, ("1", "q"): False}

    def test_uploads_are_pruned_when_no_crash_needed_them(self, jobdir: Path, store: Path) -> None:
        engine = engine_processor(Config())

        def submitted(release: str, *crash: tuple[str, bytes]) -> None:
            maps = [] if crash else [("app.js.map", source_map([(0, 0, 0, 0, 0)], file=release))]
            submit(jobdir, crash, sourcemaps=maps, attributes={"release": release})
            assert drain(jobdir, processor=engine) == ["done"]

        for release in ("1", "2"):
            submitted(release)
        old = time.time() - 5 * housekeeping.DAY
        symbols = SymbolStore(Config())
        entries = symbols.index.entries(kinds=("upload",))
        assert len(entries) == 2
        for entry in entries:
            assert entry.size == (store / entry.key / "app.js.map").stat().st_size
            for file in (store / entry.key).iterdir():
                os.utime(file, (old, old))
        submitted("2", ("error.txt", b"Error: no\n    at f (https://example.com/app.js:1:1)\n"))
        done = housekeeping.prune(symbols.index, older_than=2 * housekeeping.DAY)
        (removed,) = (key for key in done.removed if key.startswith("sourcemaps/"))
        assert not (store / removed).exists()
        (left,) = symbols.index.entries(kinds=("upload",))
        assert json.loads((store / left.key / "app.js.map").read_bytes())["file"] == "2"
        assert housekeeping.check(symbols.index) == []

    @pytest.mark.parametrize(
        ("content", "kind", "expected"),
        [
            (b"", None, "unknown_format"),
            (b"To be, or not to be", None, "unknown_format"),
            (b"MDMP", None, "malformed"),
            (b"MDMP" + bytes(28), "nonsense", "unknown_format"),
        ],
    )
    def test_what_is_no_crash_is_failed(
        self, jobdir: Path, engine: Processor, content: bytes, kind: str | None, expected: str
    ) -> None:
        job = submit(jobdir, [("crash", content)], kind=kind)
        assert drain(jobdir, processor=engine) == ["failed"]
        assert reason(jobdir, job).startswith(f"{expected}: ")
        assert (jobdir / "failed" / job / "input" / "crash").read_bytes() == content
