from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deadreckon.errors import LimitExceeded, SourceUnavailable, SymbolError
from deadreckon.symbols import tables
from deadreckon.symbols.builder import Builder
from deadreckon.symbols.tablefile import open_table
from synth.elf import COMPRESSED, Elf, Section

if TYPE_CHECKING:
    from collections.abc import Iterator

GiB = 1 << 30


@pytest.fixture
def builder() -> Iterator[Builder]:
    """Give a builder with room and time; its child ends with the test."""
    builder = Builder(seconds=120, max_bytes=4 * GiB)
    yield builder
    builder.close()


@pytest.fixture
def library(fixtures: Path) -> str:
    return str(fixtures / "linux/x86_64/pie-O2/libcargo.so")


def child_of(builder: Builder) -> int:
    assert builder._child is not None
    return builder._child.pid


def gone(pid: int) -> bool:
    """Wait for a process to end; says whether it did."""
    for _ in range(500):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_child_says_what_the_parent_would(builder: Builder, library: str, tmp_path: Path) -> None:
    assert builder.identify(library) == tables.identify(library)
    found = builder.build(library, str(tmp_path / "child"))
    here = tables.build(library, str(tmp_path / "here"))
    assert [{**o, "table": ""} for o in found] == [{**o, "table": ""} for o in here]
    for a, b in zip(found, here, strict=True):
        assert (tmp_path / a["table"]).read_bytes() == (tmp_path / b["table"]).read_bytes()


@pytest.mark.parametrize("content", [b"", b"MDMP", b"hello", b"\x7fELF" + b"\0" * 60, b"MODULE Linux x86_64\n"])
def test_files_that_are_none(builder: Builder, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    pids = set()
    for ask in (builder.identify, lambda p: builder.build(p, str(tmp_path / "out"))):
        with pytest.raises(SymbolError) as caught:
            ask(str(path))
        assert str(path) in str(caught.value)
        pids.add(child_of(builder))
    assert len(pids) == 1  # A file that can't be read costs no new child.


def test_names_of_any_bytes(builder: Builder, library: str, tmp_path: Path) -> None:
    for name in (b"with space\nand line", b"\xff\xfe", "ü✓".encode()):
        path = os.path.join(os.fsencode(tmp_path), name)
        Path(os.fsdecode(path)).write_bytes(Path(library).read_bytes())
        try:
            assert builder.identify(os.fsdecode(path)) == tables.identify(library)
        except SymbolError:
            assert name == b"\xff\xfe"  # symbolic takes no names that are not UTF-8.
    assert builder.identify(library)


@pytest.mark.usefixtures("endless_rules")
def test_endless_unwind_information_costs_itself(tmp_path: Path, library: str) -> None:
    builder = Builder(seconds=5, max_bytes=4 * GiB)
    (found,) = builder.build(library, str(tmp_path / "x"))
    assert found["problems"] == [f"unwind information: {library}: limit symbols.build_seconds is 5"]
    assert len(open_table(tmp_path / found["table"]).sym.range_start) > 0
    assert builder.identify(library)
    builder.close()


@pytest.mark.corpus
def test_chained_unwind_information_as_found(corpus: Path, tmp_path: Path) -> None:
    """From the CFI cache of this file symbolic 13.9 never returns; our own reader says what is wrong with it."""
    builder = Builder(seconds=20, max_bytes=4 * GiB)
    (found,) = builder.build(str(corpus / "native/symbolic/fixtures/windows/cfi_chained_loop.exe"), str(tmp_path / "x"))
    assert "UNWIND_INFO chain" in found["problems"][0]
    builder.close()


def test_time_limit_of_a_file_without_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that answers nothing at all: both attempts are cut, and nobody waits for it."""
    sleeper = tmp_path / "sleeper"
    sleeper.write_text("#!/bin/sh\nexec sleep 1000\n")
    sleeper.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(sleeper))
    builder = Builder(seconds=0.2, max_bytes=GiB)
    with pytest.raises(LimitExceeded, match=r"symbols\.build_seconds is 0\.2"):
        builder.build("some/file", str(tmp_path / "x"))
    assert builder._child is None


def test_memory_limit(tmp_path: Path, library: str) -> None:
    """A frame section that unpacks to 200 MB: its rules are lost, the identity is not."""
    file = Elf()
    file.sections = [
        Section(".note.gnu.build-id", file.build_id(b"0123456789abcdef"), 7, 2),
        Section(".debug_frame", file.compressed(b"\0" * 200_000_000), flags=COMPRESSED),
    ]
    path = tmp_path / "large"
    path.write_bytes(bytes(file))
    assert path.stat().st_size < 1_000_000
    builder = Builder(seconds=60, max_bytes=700 << 20)
    (found,) = builder.build(str(path), str(tmp_path / "large"))
    assert found["code_id"] == b"0123456789abcdef".hex()
    assert found["rows"] == 0
    assert found["problems"]
    assert builder.identify(library)
    builder.close()


def test_child_that_can_not_start(tmp_path: Path, library: str) -> None:
    builder = Builder(seconds=60, max_bytes=8 << 20)
    with pytest.raises(SymbolError, match="the process reading it died"):
        builder.build(library, str(tmp_path / "x"))
    builder.close()


def test_full_disk_is_no_fault_of_the_file(builder: Builder, library: str, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(SourceUnavailable):
        builder.build(library, str(tmp_path / "taken" / "x"))
    assert builder.build(library, str(tmp_path / "x"))


def test_killed_child_is_replaced(builder: Builder, library: str) -> None:
    first = builder.identify(library)
    killed = child_of(builder)
    os.kill(killed, signal.SIGKILL)
    assert gone(killed)
    assert builder.identify(library) == first
    assert child_of(builder) != killed


def test_what_a_dying_child_says_goes_into_the_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Lore: symbolic aborts with a page of Rust backtrace on a compressed section that claims 140 TB."""
    dying = tmp_path / "dying"
    dying.write_text("#!/bin/sh\nread x\necho memory allocation failed >&2\necho stack backtrace: >&2\nkill -ABRT $$\n")
    dying.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(dying))
    builder = Builder(seconds=20, max_bytes=GiB)
    with pytest.raises(SymbolError, match=r"died \(signal \d+: memory allocation failed\)"):
        builder.identify("some/file")
    builder.close()
    assert capfd.readouterr().err == ""


def test_close_ends_the_child(builder: Builder, library: str) -> None:
    builder.close()
    builder.identify(library)
    pid = child_of(builder)
    builder.close()
    assert gone(pid)
    assert builder.identify(library)


def test_threads_take_turns(builder: Builder, fixtures: Path) -> None:
    folder = fixtures / "linux/x86_64"
    paths = [str(folder / name) for name in ("pie-O2/crashy", "pie-O0/crashy", "plain-O1/plain", "pie-O2/libcargo.so")]
    expected = {path: tables.identify(path) for path in paths}
    wrong: list[Any] = []

    def ask(path: str) -> None:
        wrong.extend(found for found in (builder.identify(path) for _ in range(20)) if found != expected[path])

    threads = [threading.Thread(target=ask, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_forked_process_starts_a_child_of_its_own(builder: Builder, library: str) -> None:
    expected = builder.identify(library)
    ours = child_of(builder)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            same = builder.identify(library) == expected and child_of(builder) != ours
            builder.close()
            os.write(writer, b"yes" if same else b"no")
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        assert stream.read() == b"yes"
    os.waitpid(pid, 0)
    assert builder.identify(library) == expected
    assert child_of(builder) == ours


def test_unused_builder_starts_nothing() -> None:
    builder = Builder(seconds=1, max_bytes=GiB)
    builder.close()
    assert builder._child is None


def test_mutated_files_never_end_the_builder(builder: Builder, fixtures: Path, tmp_path: Path) -> None:
    import random

    data = (fixtures / "linux/x86_64/plain-O1/plain").read_bytes()
    rng = random.Random(5)
    answers = 0
    for _ in range(60):
        changed = bytearray(data)
        for _ in range(rng.choice((1, 4, 30))):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        path = tmp_path / "mutant"
        path.write_bytes(changed)
        try:
            found = builder.build(str(path), str(tmp_path / "out"))
        except SymbolError:
            continue
        answers += len(found)
        for info in found:
            open_table(tmp_path / info["table"])
    assert answers > 20
