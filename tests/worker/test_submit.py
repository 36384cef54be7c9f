"""Putting jobs in."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import pytest

from deadreckon.config import WorkerConfig
from deadreckon.errors import ConfigError, SpoolError
from deadreckon.worker import submit as submit_module
from deadreckon.worker.spool import Spool
from deadreckon.worker.submit import submit
from synth.worker import drain, names

if TYPE_CHECKING:
    from pathlib import Path


def test_writes_the_contract(jobdir: Path, tmp_path: Path) -> None:
    crash = tmp_path / "app.dmp"
    crash.write_bytes(b"MDMP")
    job = submit(
        jobdir,
        [crash, ("app.dmp", b"second")],
        kind="minidump",
        attributes={"build": "7"},
        attach=[("../../log.txt", b"log")],
        symbols=[("job.json", b"named to annoy")],
        sourcemaps=[("..", b"{}")],
    )
    told = json.loads((jobdir / "new" / job / "job.json").read_bytes())
    assert told["id"] == job
    assert len(job) == 32
    assert int(job, 16)
    *files, last = told["files"]
    assert files == [
        {"name": "app.dmp", "role": "crash"},
        {"name": "2.app.dmp", "role": "crash"},
        {"name": "log.txt", "role": "attachment"},
        {"name": "2.job.json", "role": "symbols"},
    ]
    assert last["role"] == "sourcemap"
    assert (told["kind"], told["attributes"], told["attempt"]) == ("minidump", {"build": "7"}, 1)
    assert told["received_at"].endswith("Z")
    assert (jobdir / "new" / job / "2.app.dmp").read_bytes() == b"second"
    assert (jobdir / "new" / job / last["name"]).read_bytes() == b"{}"
    assert names(jobdir / "tmp") == []


def test_ids_sort_by_time(jobdir: Path) -> None:
    ids = []
    for _ in range(3):
        ids.append(submit(jobdir, [("a", b"a")]))
        time.sleep(0.002)
    assert ids == sorted(ids)


def test_leaves_nothing_behind_when_it_fails(jobdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "fifo")
    with Spool(jobdir):
        pass
    for file, expected in ((tmp_path / "nowhere", "nowhere"), (tmp_path, "irectory"), (tmp_path / "fifo", "fifo")):
        with pytest.raises(SpoolError, match=expected):
            submit(jobdir, [("a", b"a"), file])
    with pytest.raises(SpoolError, match="at least one"):
        submit(jobdir, [])
    with pytest.raises(SpoolError, match="1048576 are allowed"):
        submit(jobdir, [("a", b"a")], attributes={"a": "b" * (1 << 20)})
    with pytest.raises(SpoolError, match="surrogates"):
        submit(jobdir, [("a", b"a")], attributes={"a": "\udcff"})
    with pytest.raises(SpoolError, match="event_id"):
        submit(jobdir, [("a", b"a")], event_id="mine")
    monkeypatch.setattr(submit_module, "MAX_FILES", 3)
    with pytest.raises(SpoolError, match="3 files at most"):
        submit(jobdir, [("a", b"a")] * 3)
    assert names(jobdir / "tmp") == names(jobdir / "new") == []


@pytest.mark.parametrize("durability", ["none", "file", "file+dir"])
def test_durable_jobs_take_the_same_road(jobdir: Path, durability: str, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.path.isdir(f"/proc/self/fd/{descriptor}")))
    job = submit(jobdir, [("a", b"fine")], durability=durability)
    assert drain(jobdir, WorkerConfig(durability=durability)) == ["done"]
    assert names(jobdir / "done") == [job]
    # Two files of the job and its result; the directories that name them before and after.
    assert (synced.count(False), synced.count(True)) == {"none": (0, 0), "file": (3, 0), "file+dir": (3, 4)}[durability]


def test_refuses_an_unknown_durability(jobdir: Path) -> None:
    with pytest.raises(ConfigError):
        submit(jobdir, [("a", b"a")], durability="paranoid")
    with pytest.raises(ConfigError):
        Spool(jobdir, WorkerConfig(durability="paranoid"))
