"""The command line as users and scripts meet it: as a process of its own, by exit code, output and errors."""

from __future__ import annotations

import io
import json
import os
import resource
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from deadreckon import Event

DUMPS = Path(__file__).parent.parent / "native_fixtures/linux/x86_64/pie-O2"
DUMP = DUMPS / "dumps/templates.dmp"
LIMIT = 300 << 20
"""Bytes of memory that no input may take the process beyond."""


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Run the command line in a directory where a write outside the store would be seen."""
    here = tmp_path / "cwd"
    here.mkdir()

    def command(*arguments: str | Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            [sys.executable, "-m", "deadreckon.cli", *map(str, arguments)],
            check=False, capture_output=True, input=stdin, cwd=here, timeout=120,
        )  # fmt: skip
        assert list(here.iterdir()) == []
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        return done

    return command


def events(done: subprocess.CompletedProcess[bytes]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_process_writes_one_json_line_a_crash(run: Callable[..., Any]) -> None:
    done = run("process", DUMP, "--symbols", DUMPS, "--attr", "build=7")
    assert done.returncode == 0
    (event,) = events(done)
    assert event["schema"] == "deadreckon.event/1"
    assert (event["status"], event["source"]["format"], event["attributes"]["build"]) == ("ok", "minidump", "7")
    frame = event["threads"][0]["frames"][0]
    assert (frame["filename"], frame["lineno"], frame["trust"]) == ("vector.hpp", 31, "context")
    assert len(event["fingerprint"]["id"]) == 32


def test_text_shows_the_stack(run: Callable[..., Any]) -> None:
    done = run("process", DUMP, "--symbols", DUMPS, "--format", "text", "--explain-grouping")
    text = done.stdout.decode()
    assert "SIGSEGV in nav::operator*<>" in text
    assert "(vector.hpp:31)" in text
    assert "+ mode_templates  (the application's own code)" in text


def test_standard_input_and_output_file(run: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    done = run("process", "-", "-o", out, stdin=DUMP.read_bytes())
    assert (done.returncode, done.stdout) == (0, b"")
    assert json.loads(out.read_text())["source"]["name"] == "-"


def test_a_directory_gives_its_crashes_in_order(run: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for name in ("b/2.dmp", "a/1.dmp"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(DUMP.read_bytes())
    done = run("process", folder, DUMP)
    assert [e["source"]["name"] for e in events(done)] == ["1.dmp", "2.dmp", "templates.dmp"]


def test_same_bytes_same_event(run: Callable[..., Any]) -> None:
    first, second = (events(run("process", DUMP)) for _ in range(2))
    assert first == second


def test_strict_and_unreadable_exit_codes(run: Callable[..., Any], tmp_path: Path) -> None:
    cut = tmp_path / "cut.dmp"
    cut.write_bytes(DUMP.read_bytes()[:-40])
    assert run("process", cut).returncode == 0
    assert run("process", cut, "--strict").returncode == 1
    text = tmp_path / "notes.txt"
    text.write_text("nothing to see\n")
    done = run("process", text, DUMP)
    assert done.returncode == 3
    assert [e["status"] for e in events(done)] == ["unreadable", "ok"]
    assert done.stderr.decode().startswith(f"deadreckon: {text}: unknown_format: ")


@pytest.mark.parametrize(
    "arguments",
    [["process"], ["nonsense"], ["process", "x", "--attr", "noequals"], ["process", "x", "--symbols", "/nowhere"],
     ["process", "x", "--kind", "nonsense"], ["worker", "x", "--processes", "0"],
     ["lookup", "--debug-file", "x", "zz"]],
)  # fmt: skip
def test_usage_errors(run: Callable[..., Any], arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr


def test_lookup(run: Callable[..., Any]) -> None:
    debug = DUMPS / "crashy.debug"
    done = run("lookup", "--debug-file", debug, "0x2e19")
    assert done.stdout.decode().splitlines()[0].endswith("vector.hpp:31)")
    done = run("lookup", "--debug-file", debug, stdin=b"2e19\n0x2f2f\nffffff\n")
    blocks = done.stdout.decode().split("\n\n")
    assert [len(b.splitlines()) for b in blocks] == [1, 5, 1, 0]
    assert blocks[2] == "??"
    found = json.loads(run("lookup", "--debug-file", debug, "--format", "json", "2e19").stdout)
    assert (found["address"], found["frames"][0]["lineno"]) == ("0x2e19", 31)


def test_symbols_add_then_process_without_naming_them(run: Callable[..., Any]) -> None:
    done = run("symbols", "add", DUMPS / "crashy", DUMPS / "crashy.debug")
    assert done.returncode == 0
    assert done.stdout.count(b"d8cddba5-5a8c-4d23-327a-dcb845a4f6a5") == 2
    assert events(run("process", DUMP))[0]["threads"][0]["frames"][0]["lineno"] == 31
    assert run("lookup", "--debug-id", "D8CDDBA55A8C4D23327ADCB845A4F6A50", "2e19").stdout.count(b"vector.hpp:31") == 1


def test_schema_describes_what_process_writes(run: Callable[..., Any]) -> None:
    import jsonschema

    schema = json.loads(run("schema").stdout)
    for event in events(run("process", DUMP, "--symbols", DUMPS)):
        jsonschema.validate(event, schema)


def test_demo_and_doctor(run: Callable[..., Any]) -> None:
    text = run("demo").stdout.decode()
    assert "vector.hpp:31" in text
    assert "1 job done, 0 failed" in text
    assert "numba" in run("doctor").stdout.decode()


def test_help_imports_no_heavy_package() -> None:
    code = "import sys\nfrom deadreckon.cli import main\ntry:\n main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert not {'numba', 'numpy', 'symbolic', 'msgspec'} & set(sys.modules), sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(40):
        (folder / f"{i}.dmp").write_bytes(DUMP.read_bytes())
    with subprocess.Popen(
        [sys.executable, "-m", "deadreckon.cli", "process", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""


def test_an_output_that_is_no_file_stays_what_it_is(run: Callable[..., Any], tmp_path: Path) -> None:
    pipe, link, there = tmp_path / "pipe", tmp_path / "link", tmp_path / "there"
    os.mkfifo(pipe)
    link.symlink_to(there)
    for command in (["process", DUMP], ["snapshot", DUMP]):
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        try:
            assert run(*command, "-o", pipe).returncode == 0
            assert len(os.read(reader, 1 << 16)) > 1000
        finally:
            os.close(reader)
        assert pipe.is_fifo()
        assert run(*command, "-o", link).returncode == 0
        assert link.is_symlink()
        assert there.stat().st_size > 1000
    done = run("process", DUMP, "-o", tmp_path)
    assert done.returncode == 2
    assert "Is a directory" in done.stderr.decode()


def test_an_output_that_cannot_be_written(run: Callable[..., Any], tmp_path: Path) -> None:
    done = run("process", DUMP, "-o", tmp_path / "nowhere" / "out.jsonl")
    assert done.returncode == 2
    assert b"out.jsonl" in done.stderr
    with open("/dev/full", "wb") as full:
        code = subprocess.run(
            [sys.executable, "-m", "deadreckon.cli", "process", str(DUMP)],
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert code.returncode == 2
    assert b"No space left" in code.stderr


def test_a_bug_in_one_input_does_not_cost_the_others(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    from deadreckon import cli
    from deadreckon.describe import describe as described

    def describe(*arguments: Any) -> Event:
        event = described(*arguments)
        if event.source.name == "bad.dmp":
            raise IndexError("seven")
        return event

    monkeypatch.setattr("deadreckon.engine.describe", describe)
    for name in ("bad.dmp", "good.dmp"):
        (tmp_path / name).write_bytes(DUMP.read_bytes())
    assert cli.main(["process", str(tmp_path / "bad.dmp"), str(tmp_path / "good.dmp"), "--format", "json"]) == 3
    told = capfdbinary.readouterr()
    assert [json.loads(line)["status"] for line in told.out.splitlines()] == ["unreadable", "ok"]
    assert b"bad.dmp: internal: IndexError: seven (test_cli.py:" in told.err
    assert cli.main(["cluster", str(tmp_path), "--format", "json"]) == 3
    told = capfdbinary.readouterr()
    assert b"good.dmp" in told.out
    assert b"bad.dmp: internal: IndexError: seven (test_cli.py:" in told.err


# -- hostile inputs ---------------------------------------------------------------------------------------------------


def limited(path: Path, store: Path) -> tuple[int, list[dict[str, Any]], int]:
    """Process one input in a child; returns exit code, events and the child's peak memory in bytes."""
    # ru_maxrss of RUSAGE_CHILDREN is that of the largest child yet, so each input gets a parent of its own.
    code = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run([sys.executable, '-m', 'deadreckon.cli', 'process', sys.argv[1], '--format', 'json'],"
        " stdout=subprocess.PIPE, timeout=100)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
        "sys.stdout.flush(); sys.stdout.buffer.write(done.stdout); sys.exit(done.returncode)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], check=False, capture_output=True,
        env={**os.environ, "DEADRECKON_STORE": str(store)}, timeout=120,
    )  # fmt: skip
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    peak, _, lines = done.stdout.partition(b"\n")
    return done.returncode, [json.loads(line) for line in lines.splitlines()], int(peak) * 1024


def bomb() -> bytes:
    """Return a zip of a zip of 4 GiB of zeros, some 42 KB: both layers deflated, the inner one a thousandfold."""
    size = 4 << 30
    layer = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = bytes(1 << 24)
    block = layer.compress(zeros) + layer.flush(zlib.Z_FULL_FLUSH)  # After a full flush the same block may follow.
    packed = block * (size >> 24) + layer.flush()
    crc = 0  # The checksum is never reached.
    name = b"0.dmp"
    fields = [20, 0, 8, 0, 0, crc, len(packed), 0xFFFF_FFFF, len(name), 0]
    local = struct.pack("<IHHHHHIIIHH", 0x04034B50, *fields) + name
    central = struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 20, *fields, 0, 0, 0, 0, 0) + name
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 1, 1, len(central), len(local) + len(packed), 0)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as outer:
        outer.writestr("inner.zip", local + packed + central + end)
    return out.getvalue()


def evil_tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("../escaped.dmp", "/tmp/deadreckon-escaped.dmp", "a/../../escaped.dmp"):
            entry = tarfile.TarInfo(name)
            entry.size = DUMP.stat().st_size
            tar.addfile(entry, io.BytesIO(DUMP.read_bytes()))
        for kind, target in (
            (tarfile.SYMTYPE, "/etc/passwd"),
            (tarfile.LNKTYPE, "../../etc/passwd"),
            (tarfile.CHRTYPE, ""),
        ):
            entry = tarfile.TarInfo(f"link-{kind.decode()}")
            entry.type, entry.linkname = kind, target
            tar.addfile(entry)
    return out.getvalue()


def test_empty_and_text_files(tmp_path: Path) -> None:
    for name, content in (("empty", b""), ("text", b"hello\n" * 100), ("zeros", bytes(100)), ("magic", b"MDMP")):
        path = tmp_path / name
        path.write_bytes(content)
        code, found, peak = limited(path, tmp_path / "store")
        assert (code, [e["status"] for e in found]) == (3, ["unreadable"]), name
        assert found[0]["diagnostics"][0]["severity"] == "error"
        assert peak < LIMIT


def test_zip_bomb(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    path.write_bytes(bomb())
    assert path.stat().st_size < 100_000
    code, found, peak = limited(path, tmp_path / "store")
    assert code == 3
    assert "archive_limit" in str(found[0]["diagnostics"])
    assert peak < LIMIT


def test_tar_that_wants_out(tmp_path: Path) -> None:
    path = tmp_path / "in" / "evil.tar"
    path.parent.mkdir()
    path.write_bytes(evil_tar())
    code, found, peak = limited(path, tmp_path / "store")
    assert code == 0
    assert [e["status"] for e in found] == ["degraded"] * 3  # The links were not followed, and that is said.
    assert all("root:" not in str(e) for e in found)
    assert peak < LIMIT
    assert not Path("/tmp/deadreckon-escaped.dmp").exists()
    assert not list(tmp_path.rglob("escaped.dmp"))


def test_minidump_cut_at_every_length() -> None:
    """Through the library, in one process: each length ends in an event that says what was lost."""
    from deadreckon import Engine
    from deadreckon.model.event import encode_event

    data = DUMP.read_bytes()
    with Engine() as engine:
        for step in range(200):
            cut = data[: len(data) * step // 200]
            event = engine.process(cut, symbols=[str(DUMPS)])
            assert event.status in {"unreadable", "degraded"}, len(cut)
            assert event.diagnostics
            assert encode_event(event)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < 4 * LIMIT


@pytest.mark.slow
def test_minidump_cut_on_the_command_line(tmp_path: Path) -> None:
    data = DUMP.read_bytes()
    for length in (31, 32, 200, 2000, 6000, len(data) - 1):
        path = tmp_path / f"{length}.dmp"
        path.write_bytes(data[:length])
        code, found, peak = limited(path, tmp_path / "store")
        assert (code == 3) == (found[0]["status"] == "unreadable")
        assert found[0]["status"] in {"unreadable", "degraded"}
        assert peak < LIMIT
