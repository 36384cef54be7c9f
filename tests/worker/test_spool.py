"""The job directory: what producers may do, what becomes of it, and what a worker that dies leaves behind."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from deadreckon.config import WorkerConfig
from deadreckon.errors import ConfigError, DeadreckonError, SpoolError
from deadreckon.model.event import Diagnostic, decode_event
from deadreckon.worker import spool as spool_module
from deadreckon.worker.runner import work
from deadreckon.worker.spool import Lease, Spool, jobs_purge, jobs_retry, jobs_status, submit
from synth.worker import event_of, obey

if TYPE_CHECKING:
    from collections.abc import Callable

REASON = Diagnostic(code="internal", severity="error", message="because")


def settle(path: Path) -> Path:
    """Let it look as if written long ago."""
    os.utime(path, (1, 1), follow_symlinks=False)
    return path


def drop(jobdir: Path, name: str, content: bytes = b"fine") -> Path:
    with Spool(jobdir):
        pass
    path = jobdir / "new" / name
    path.write_bytes(content)
    return settle(path)


def drain(jobdir: Path, config: WorkerConfig | None = None) -> list[str]:
    outcomes: list[str] = []
    with Spool(jobdir, config) as spool:
        work(spool, obey, wait=time.sleep, end=outcomes.append, once=True)  # type: ignore[arg-type]
    return outcomes


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def reason(jobdir: Path, job: str) -> str:
    told = json.loads((jobdir / "failed" / job / "diagnostics.json").read_bytes())
    return f"{told['diagnostics'][0]['code']}: {told['diagnostics'][0]['message']}"


def claim(spool: Spool) -> Lease:
    lease = spool.claim()
    assert lease is not None
    return lease


class TestSubmit:
    def test_writes_the_contract(self, jobdir: Path, tmp_path: Path) -> None:
        crash = tmp_path / "app.dmp"
        crash.write_bytes(b"MDMP")
        job = submit(
            jobdir,
            [crash, ("app.dmp", b"second")],
            kind="minidump",
            attributes={"build": "7"},
            attach=[("../../log.txt", b"log")],
            symbols=[("job.json", b"named to annoy")],
        )
        told = json.loads((jobdir / "new" / job / "job.json").read_bytes())
        assert told["id"] == job
        assert len(job) == 32
        assert int(job, 16)
        assert told["files"] == [
            {"name": "app.dmp", "role": "crash"},
            {"name": "2.app.dmp", "role": "crash"},
            {"name": "log.txt", "role": "attachment"},
            {"name": "2.job.json", "role": "symbols"},
        ]
        assert (told["kind"], told["attributes"], told["attempt"]) == ("minidump", {"build": "7"}, 1)
        assert told["received_at"].endswith("Z")
        assert (jobdir / "new" / job / "2.app.dmp").read_bytes() == b"second"
        assert names(jobdir / "tmp") == []

    def test_ids_sort_by_time(self, jobdir: Path) -> None:
        ids = []
        for _ in range(3):
            ids.append(submit(jobdir, [("a", b"a")]))
            time.sleep(0.002)
        assert ids == sorted(ids)

    def test_leaves_nothing_behind_when_it_fails(self, jobdir: Path, tmp_path: Path) -> None:
        with pytest.raises(SpoolError, match="nowhere"):
            submit(jobdir, [("a", b"a"), tmp_path / "nowhere"])
        with pytest.raises(SpoolError, match="irectory"):
            submit(jobdir, [tmp_path])
        with pytest.raises(SpoolError, match="at least one"):
            submit(jobdir, [])
        assert names(jobdir / "tmp") == names(jobdir / "new") == []

    @pytest.mark.parametrize("durability", ["file", "file+dir"])
    def test_durable_jobs_take_the_same_road(self, jobdir: Path, durability: str) -> None:
        job = submit(jobdir, [("a", b"fine")], durability=durability)
        assert drain(jobdir, WorkerConfig(durability=durability)) == ["done"]
        assert names(jobdir / "done") == [job]

    def test_refuses_an_unknown_durability(self, jobdir: Path) -> None:
        with pytest.raises(ConfigError):
            submit(jobdir, [("a", b"a")], durability="paranoid")
        with pytest.raises(ConfigError):
            Spool(jobdir, WorkerConfig(durability="paranoid"))


class TestOutcomes:
    def test_done_holds_events_and_input(self, jobdir: Path) -> None:
        job = submit(jobdir, [("crash", b"fine")])
        assert drain(jobdir) == ["done"]
        case = jobdir / "done" / job
        assert names(case) == ["event.jsonl", "input"]
        assert decode_event((case / "event.jsonl").read_bytes()) == event_of(b"fine")
        assert names(case / "input") == ["crash", "job.json"]
        assert names(jobdir / "active") == names(jobdir / "new") == names(jobdir / "tmp") == []

    def test_input_can_be_dropped_but_not_that_of_a_failed_job(self, jobdir: Path) -> None:
        good = submit(jobdir, [("crash", b"fine")])
        bad = submit(jobdir, [("crash", b"bug here")])
        drain(jobdir, WorkerConfig(keep_input=False))
        assert names(jobdir / "done" / good) == ["event.jsonl"]
        assert (jobdir / "failed" / bad / "input" / "crash").read_bytes() == b"bug here"

    def test_redoing_gives_the_same_event(self, jobdir: Path) -> None:
        first, second = (submit(jobdir, [("crash", b"fine")]) for _ in range(2))
        drain(jobdir)
        assert len({(jobdir / "done" / job / "event.jsonl").read_bytes() for job in (first, second)}) == 1

    def test_a_bug_fails_the_job_with_its_traceback(self, jobdir: Path) -> None:
        job = submit(jobdir, [("crash", b"bug here")])
        assert drain(jobdir) == ["failed"]
        assert reason(jobdir, job) == "internal: ValueError: here"
        assert "in obey" in (jobdir / "failed" / job / "traceback.txt").read_text()

    def test_a_failing_disk_is_worth_all_attempts(self, jobdir: Path) -> None:
        job = submit(jobdir, [("crash", b"disk full")])
        assert drain(jobdir) == ["retried", "retried", "failed"]
        assert reason(jobdir, job) == "internal: [Errno 28] full"
        assert json.loads((jobdir / "failed" / job / "diagnostics.json").read_bytes())["attempt"] == 3

    def test_what_nobody_can_read_is_failed_for_later_versions(self, jobdir: Path) -> None:
        job = submit(jobdir, [("crash", b"garbage")])
        assert drain(jobdir) == ["failed"]
        assert reason(jobdir, job) == "unknown_format: what is this"

    def test_memory_error_leaves_the_lease_for_the_next_worker(self, jobdir: Path) -> None:
        submit(jobdir, [("crash", b"fine")])

        def exhaust(_: object) -> list[object]:
            raise MemoryError

        spool = Spool(jobdir)
        with pytest.raises(MemoryError):
            work(spool, exhaust, wait=lambda _: False, once=True)  # type: ignore[arg-type]
        assert jobs_status(jobdir)["active"] == 1
        spool.close()
        assert drain(jobdir) == ["done"]


class TestClaims:
    def test_bare_files_and_shards(self, jobdir: Path) -> None:
        drop(jobdir, "bare crash.dmp")
        (jobdir / "new" / "07").mkdir()
        drop(jobdir, "07/in shard.dmp")
        job = submit(jobdir, [("crash", b"fine")])
        (jobdir / "new" / job).rename(jobdir / "new" / "07" / job)
        assert drain(jobdir) == ["done"] * 3
        assert names(jobdir / "done") == sorted(["bare crash.dmp", "in shard.dmp", job])
        assert names(jobdir / "new") == ["07"]
        assert (jobdir / "done" / "bare crash.dmp" / "input").read_bytes() == b"fine"

    def test_files_being_written_are_waited_for(self, jobdir: Path) -> None:
        path = drop(jobdir, "half", b"fi")
        with path.open("ab") as out, Spool(jobdir) as spool:
            out.write(b"ne")
            out.flush()
            assert spool.claim() is None
            assert spool.settling
            settle(path)
            lease = claim(spool)
            assert obey(spool.load(lease)) == [event_of(b"fine")]
            assert spool.claim() is None
            assert not spool.settling

    def test_files_from_the_future_are_not_waited_for(self, jobdir: Path) -> None:
        os.utime(drop(jobdir, "tomorrow"), (time.time() + 86400,) * 2)
        assert drain(jobdir) == ["done"]

    def test_hidden_names_are_somebodys_work_in_progress(self, jobdir: Path) -> None:
        drop(jobdir, ".crash.dmp.Xa3f")
        assert drain(jobdir) == []
        assert jobs_status(jobdir)["new"] == 0

    def test_results_of_one_name_stand_side_by_side(self, jobdir: Path) -> None:
        for content in (b"first", b"second", b"third"):
            drop(jobdir, "core", content)
            drain(jobdir)
        assert len(names(jobdir / "done")) == 3
        assert names(jobdir / "done")[0] == "core"
        assert {p.read_bytes() for p in (jobdir / "done").glob("core*/input")} == {b"first", b"second", b"third"}

    def test_files_given_back_do_not_land_on_their_namesake(self, jobdir: Path) -> None:
        spools = [Spool(jobdir) for _ in range(3)]
        for number, spool in enumerate(spools):
            drop(jobdir, "core", str(number).encode())
            claim(spool)
        for spool in spools:
            spool.close()
        assert drain(jobdir) == ["done"] * 3
        assert {p.read_bytes() for p in (jobdir / "done").glob("core*/input")} == {b"0", b"1", b"2"}

    def test_a_name_claimed_twice_by_one_worker_waits(self, jobdir: Path) -> None:
        drop(jobdir, "core")
        with Spool(jobdir) as spool:
            lease = claim(spool)
            drop(jobdir, "core")
            assert spool.claim() is None
            spool.ack(lease, [])
            spool.ack(claim(spool), [])

    def test_a_users_tilde_is_part_of_the_name(self, jobdir: Path) -> None:
        drop(jobdir, "core~2")
        drain(jobdir)
        assert names(jobdir / "done") == ["core~2"]

    def test_four_processes_never_claim_the_same(
        self, jobdir: Path, start: Callable[..., subprocess.Popen[str]]
    ) -> None:
        jobs = {submit(jobdir, [("crash", f"fine {n}".encode())]) for n in range(450)}
        jobs |= {drop(jobdir, f"bare {n}").name for n in range(50)}
        racers = [start("race", str(jobdir)) for _ in range(4)]
        while len(list(jobdir.glob("ready-*"))) < 4:
            time.sleep(0.005)
        (jobdir / "go").touch()
        claimed = [json.loads(racer.communicate()[0]) for racer in racers]
        assert sorted(chain(*claimed)) == sorted(jobs)
        assert set(names(jobdir / "done")) == jobs
        assert names(jobdir / "active") == []


class TestReclaim:
    def test_a_living_workers_claims_are_its_own(self, jobdir: Path) -> None:
        submit(jobdir, [("crash", b"fine")])
        with Spool(jobdir) as spool, Spool(jobdir) as other:
            lease = claim(spool)
            assert not other.reclaim()
            assert other.claim() is None
            spool.ack(lease, [event_of(b"fine")])

    def test_attempts_count_up_to_the_last(self, jobdir: Path) -> None:
        job = submit(jobdir, [("crash", b"fine")])
        for attempt in (1, 2, 3):
            dead = Spool(jobdir)
            assert claim(dead).attempt == attempt
            os.close(dead._lock)
            assert Spool(jobdir).reclaim(reason=REASON) == {"retried" if attempt < 3 else "failed": 1}
        assert reason(jobdir, job) == "internal: because"
        assert (jobdir / "failed" / job / "input" / "crash").read_bytes() == b"fine"

    def test_what_was_given_back_properly_does_not_count(self, jobdir: Path) -> None:
        submit(jobdir, [("crash", b"fine")])
        for _ in range(5):
            with Spool(jobdir) as spool:
                assert claim(spool).attempt == 1

    @pytest.mark.parametrize("keep_input", [True, False])
    def test_a_worker_killed_before_any_step_loses_and_doubles_nothing(
        self, jobdir: Path, start: Callable[..., subprocess.Popen[str]], keep_input: bool
    ) -> None:
        out, _ = start("stop_everywhere", str(jobdir), str(int(keep_input))).communicate()
        told = json.loads(out)
        assert told["wrong"] == []
        assert told["steps"] > 80


class TestHostile:
    """Whatever is found in new/ goes to failed/ with a reason; nothing is followed and nothing blocks."""

    def job(self, jobdir: Path, description: object, **files: bytes) -> str:
        job = submit(jobdir, [("crash", b"fine")])
        place = jobdir / "new" / job
        text = description if isinstance(description, bytes) else json.dumps(description).encode()
        (place / "job.json").write_bytes(text)
        for name, content in files.items():
            (place / name).write_bytes(content)
        return job

    def test_links_and_pipes(self, jobdir: Path, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.write_bytes(b"secret")
        with Spool(jobdir):
            new = jobdir / "new"
        (new / "link").symlink_to(secret)
        (new / "directory link").symlink_to(tmp_path)
        (new / "dangling").symlink_to("nowhere")
        os.mkfifo(new / "fifo")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(new / "socket"))
            assert drain(jobdir) == ["failed"] * 5
        assert reason(jobdir, "fifo").endswith("got a fifo")
        assert reason(jobdir, "socket").endswith("got a socket")
        for name in ("link", "directory link", "dangling"):
            assert reason(jobdir, name).endswith("got a symbolic link")
            assert (jobdir / "failed" / name / "input").is_symlink()
        assert secret.read_bytes() == b"secret"

    def test_names(self, jobdir: Path) -> None:
        with Spool(jobdir):
            new = jobdir / "new"
        hostile = [
            b"new\nline",
            b"\xff\xfe",
            b"x" * 255,
            b"\x1b[31mred",
            "\u202egnp.exe".encode(),
            b"-rf",
            b"~1",
            b"a~1",
        ]
        for name in hostile:
            path = new / os.fsdecode(name)
            path.write_bytes(b"fine")
            settle(path)
        assert drain(jobdir) == ["done"] * len(hostile)
        done = names(jobdir / "done")
        assert len(done) == len(hostile)
        assert all(name.isprintable() and len(name.encode()) < 220 for name in done)

    def test_directories_and_links_inside_a_job(self, jobdir: Path) -> None:
        description = {"id": "x", "files": [{"name": "crash", "role": "crash"}]}
        inside: dict[str, Callable[[Path], None]] = {
            "a directory": Path.mkdir,
            "a fifo": os.mkfifo,
            "a symbolic link": lambda path: path.symlink_to("/etc/passwd"),
        }
        for expected, make in inside.items():
            for name in ("crash", "unlisted"):
                job = self.job(jobdir, description)
                if name == "crash":
                    (jobdir / "new" / job / name).unlink()
                make(jobdir / "new" / job / name)
                assert drain(jobdir) == ["failed"]
                assert f"regular files only, got {expected}, {name!r}" in reason(jobdir, job)

    def test_description_that_is_a_link_or_absent(self, jobdir: Path) -> None:
        job = self.job(jobdir, b"")
        place = jobdir / "new" / job / "job.json"
        place.unlink()
        place.symlink_to("/etc/passwd")
        (jobdir / "new" / "shard" / "empty job").mkdir(parents=True)
        assert drain(jobdir) == ["failed"] * 2
        assert "got a symbolic link, 'job.json'" in reason(jobdir, job)
        assert "expected a file job.json" in reason(jobdir, "empty job")

    @pytest.mark.parametrize(
        "name", ["../../../../etc/passwd", "/etc/passwd", "", ".", "..", "job.json", "missing", "crash\0", "a/../crash"]
    )
    def test_file_names(self, jobdir: Path, name: str) -> None:
        job = self.job(jobdir, {"id": "x", "files": [{"name": name, "role": "crash"}]})
        assert drain(jobdir) == ["failed"]
        assert reason(jobdir, job).startswith("malformed: job.json: files")

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (b"", "malformed: job.json"),
            (b"\xff\xfe{}", "malformed: job.json"),
            (b"[" * 100_000, "malformed: job.json"),
            (b'{"x":' * 100_000, "malformed: job.json"),
            (b"[]", "malformed: job.json"),
            (b'{"files": []}', "malformed: job.json: Object missing required field `id`"),
            (b'{"id": "x", "files": []}', "malformed: job.json: files: expected at least one with the role crash"),
            (b'{"id": "x", "files": [{"name": "crash", "role": "owner"}]}', "Invalid enum value 'owner'"),
            (b'{"id": "x", "files": [{"name": "crash", "role": "crash"}], "attributes": {"a": []}}', "$.attributes"),
            (b'{"id": "x", "files": [{"name":"crash","role":"crash"},{"name":"crash","role":"crash"}]}', "beside it"),
        ],
    )
    def test_descriptions(self, jobdir: Path, text: bytes, expected: str) -> None:
        job = self.job(jobdir, text)
        assert drain(jobdir) == ["failed"]
        assert expected in reason(jobdir, job)

    def test_a_huge_description_is_not_read(self, jobdir: Path) -> None:
        job = self.job(jobdir, b"{}")
        with (jobdir / "new" / job / "job.json").open("r+b") as out:
            out.truncate(1 << 30)
        assert drain(jobdir) == ["failed"]
        assert reason(jobdir, job) == "limit_exceeded: job.json: limit bytes is 1048576"

    def test_too_many_files(self, jobdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(spool_module, "MAX_FILES", 2)
        job = self.job(jobdir, b"{}", more=b"")
        drain(jobdir)
        assert reason(jobdir, job).startswith("limit_exceeded")

    def test_forged_results_are_input_like_any_other(self, jobdir: Path) -> None:
        description = {"id": "../../x", "files": [{"name": "crash", "role": "crash"}], "later": {"version": 2}}
        job = self.job(jobdir, description, **{"event.jsonl": b"forged", "diagnostics.json": b"forged"})
        assert drain(jobdir) == ["done"]
        assert decode_event((jobdir / "done" / job / "event.jsonl").read_bytes()) == event_of(b"fine")

    def test_attributes_of_other_types_become_text(self, jobdir: Path) -> None:
        description = {
            "id": "x",
            "files": [{"name": "crash", "role": "crash"}],
            "attributes": {"a": 7, "b": True, "c": None, "d": "text"},
            "project": "p",
        }
        self.job(jobdir, description)
        with Spool(jobdir) as spool:
            told = spool.load(claim(spool))
        assert told.attributes == {"a": "7", "b": "true", "c": "null", "d": "text"}
        assert told.project == "p"

    @pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
    def test_unreadable_files(self, jobdir: Path) -> None:
        drop(jobdir, "bare").chmod(0)
        assert drain(jobdir) == ["failed"]
        assert reason(jobdir, "bare").startswith("unreadable")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root can rename everything")
    def test_a_directory_that_can_not_be_claimed_stays(self, jobdir: Path) -> None:
        job = submit(jobdir, [("crash", b"fine")])
        (jobdir / "new" / job).chmod(stat.S_IRUSR | stat.S_IXUSR)
        assert drain(jobdir) == []
        assert names(jobdir / "new") == [job]
        assert names(jobdir / "active") == []


class TestHousekeeping:
    def test_status(self, jobdir: Path) -> None:
        assert jobs_status(jobdir) == {
            "new": 0,
            "active": 0,
            "done": 0,
            "failed": 0,
            "workers": 0,
            "oldest_seconds": None,
        }
        for content in (b"fine", b"bug"):
            submit(jobdir, [("crash", content)])
        drain(jobdir)
        for _ in range(2):
            submit(jobdir, [("crash", b"fine")])
        with Spool(jobdir) as spool:
            claim(spool)
            told = jobs_status(jobdir)
        age = told.pop("oldest_seconds")
        assert age is not None
        assert 0 <= age < 60
        assert told == {"new": 1, "active": 1, "done": 1, "failed": 1, "workers": 1}

    def test_retry_starts_over(self, jobdir: Path) -> None:
        one = submit(jobdir, [("crash", b"disk one")])
        drop(jobdir, "two", b"garbage two")
        drain(jobdir)
        assert jobs_retry(jobdir, one) == 1
        assert names(jobdir / "failed") == ["two"]
        assert drain(jobdir) == ["retried", "retried", "failed"]
        assert jobs_retry(jobdir) == 2
        assert names(jobdir / "failed") == names(jobdir / "active") == []
        drain(jobdir)
        assert names(jobdir / "failed") == sorted([one, "two"])
        for unknown in ("three", "../new", "."):
            with pytest.raises(SpoolError):
                jobs_retry(jobdir, unknown)

    def test_purge_takes_what_ended_long_ago(self, jobdir: Path) -> None:
        old, young = (submit(jobdir, [("crash", b"fine")]) for _ in range(2))
        failed = submit(jobdir, [("crash", b"bug")])
        drain(jobdir)
        waiting = submit(jobdir, [("crash", b"fine")])
        (jobdir / "tmp" / "left").mkdir()
        for ended in (f"done/{old}", f"failed/{failed}", "tmp/left", f"new/{waiting}"):
            settle(jobdir / ended)
        assert jobs_purge(jobdir, 3600, states=["done"]) == 1
        assert names(jobdir / "done") == [young]
        assert jobs_purge(jobdir, 3600) == 2
        assert names(jobdir / "failed") == names(jobdir / "tmp") == []
        assert names(jobdir / "new") == [waiting]
        with pytest.raises(SpoolError):
            jobs_purge(jobdir, 0, states=["new"])

    def test_a_directory_that_can_not_be_used(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(DeadreckonError):
            Spool(tmp_path / "file")


def test_importing_the_spool_is_cheap() -> None:
    code = "import sys, deadreckon.worker.spool; assert not {'numpy', 'numba', 'symbolic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
