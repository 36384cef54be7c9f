"""job.json and the files beside it: whatever contradicts docs/jobs.md is refused with a reason, nothing is followed."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadreckon.errors import Malformed
from deadreckon.model.event import decode_event
from deadreckon.worker import files
from deadreckon.worker.description import decode_description
from deadreckon.worker.spool import Spool
from deadreckon.worker.submit import submit
from synth.worker import claim, drain, event_of, reason

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from deadreckon.worker.description import Job

CRASH = {"id": "x", "files": [{"name": "crash", "role": "crash"}]}


def make(jobdir: Path, description: object, **files: bytes) -> str:
    """Put in a job with a crash file and others."""
    job = submit(jobdir, [("crash", b"fine")])
    place = jobdir / "new" / job
    text = description if isinstance(description, bytes) else json.dumps(description).encode()
    (place / "job.json").write_bytes(text)
    for name, content in files.items():
        (place / name).write_bytes(content)
    return job


def load(jobdir: Path) -> Job:
    with Spool(jobdir) as spool:
        return spool.load(claim(spool))


def test_only_the_id_is_required(jobdir: Path) -> None:
    make(jobdir, {"id": "x"}, another=b"")
    assert [(f.name, f.role) for f in load(jobdir).files] == [("another", "crash"), ("crash", "crash")]


def test_files_that_are_not_listed_are_not_used(jobdir: Path) -> None:
    make(jobdir, {"id": "x", "files": [{"name": "crash"}], "later": {"version": 2}}, another=b"")
    assert [(f.name, f.role) for f in load(jobdir).files] == [("crash", "crash")]


def test_values_of_other_types_become_text(jobdir: Path) -> None:
    attributes = {"a": 7, "b": True, "c": None, "d": "text", "e": 1 << 100}
    make(jobdir, {**CRASH, "attributes": attributes, "project": 41})
    told = load(jobdir)
    assert told.attributes == {"a": "7", "b": "true", "c": "null", "d": "text", "e": str(1 << 100)}
    assert told.project == "41"


def test_forged_results_are_input_like_any_other(jobdir: Path) -> None:
    job = make(jobdir, {**CRASH, "id": "../../x"}, **{"event.jsonl": b"forged", "diagnostics.json": b"forged"})
    assert drain(jobdir) == ["done"]
    assert decode_event((jobdir / "done" / job / "event.jsonl").read_bytes()) == event_of(b"fine")


def test_directories_pipes_and_links_inside_a_job(jobdir: Path) -> None:
    inside: dict[str, Callable[[Path], None]] = {
        "a directory": lambda path: path.mkdir(),
        "a fifo": os.mkfifo,
        "a symbolic link": lambda path: path.symlink_to("/etc/passwd"),
    }
    for expected, place in inside.items():
        for name in ("crash", "unlisted"):
            job = make(jobdir, CRASH)
            if name == "crash":
                (jobdir / "new" / job / name).unlink()
            place(jobdir / "new" / job / name)
            assert drain(jobdir) == ["failed"]
            assert f"regular files only, got {expected}, {name!r}" in reason(jobdir, job)


def test_description_that_is_a_link_or_absent(jobdir: Path) -> None:
    job = make(jobdir, b"")
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
def test_file_names(jobdir: Path, name: str) -> None:
    job = make(jobdir, {"id": "x", "files": [{"name": name, "role": "crash"}]})
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
        (b'{"id": "x", "files": []}', "malformed: job.json: files: expected at least one that is no attachment"),
        (b'{"id": "x", "files": {"name": "crash"}}', "$.files"),
        (b'{"id": "x", "files": [{"name": "crash", "role": "owner"}]}', "Invalid enum value 'owner'"),
        (b'{"id": "x", "files": [{"name": "crash", "role": "crash"}], "attributes": {"a": []}}', "$.attributes"),
        (b'{"id": "x", "files": [{"name":"crash","role":"crash"},{"name":"crash","role":"crash"}]}', "beside it"),
        (b'{"id": "x", "event_id": "../../0123456789abcdef0123456789abcdef"}', "$.event_id"),
        (b'{"id": "x", "event_id": "0123456789abcdef0123456789abcdef\\n"}', "$.event_id"),
    ],
)
def test_descriptions(jobdir: Path, text: bytes, expected: str) -> None:
    job = make(jobdir, text)
    assert drain(jobdir) == ["failed"]
    assert expected in reason(jobdir, job)


def test_a_huge_description_is_not_read(jobdir: Path) -> None:
    job = make(jobdir, b"{}")
    with (jobdir / "new" / job / "job.json").open("r+b") as out:
        out.truncate(1 << 30)
    assert drain(jobdir) == ["failed"]
    assert reason(jobdir, job) == "limit_exceeded: job.json: limit bytes is 1048576, got 1073741824"


def test_too_many_files(jobdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_FILES", 2)
    job = make(jobdir, b"{}", more=b"")
    drain(jobdir)
    assert reason(jobdir, job).startswith("limit_exceeded")


WHOLE = json.dumps(
    {
        **CRASH,
        "kind": "minidump",
        "attributes": {"a": 1, "b": 2.5, "c": None},
        "received_at": "2026-01-01T00:00:00Z",
        "attempt": 1,
        "project": "p",
        "event_id": "0" * 32,
    }
).encode()


@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.binary(max_size=3), st.integers(0, 8)), max_size=6))
def test_a_mutated_description_is_read_or_refused(changes: list[tuple[int, bytes, int]]) -> None:
    text = bytearray(WHOLE)
    for at, new, removed in changes:
        text[at : at + removed] = new
    try:
        told = decode_description(bytes(text))
    except Malformed:
        return
    assert told.event_id is None or len(told.event_id) == 32
    assert all(f.role in {None, "crash", "attachment", "symbols", "sourcemap"} for f in told.files or ())
