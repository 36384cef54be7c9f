"""Real crashes with Breakpad symbols, end to end, against the stacks their own repositories state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from deadreckon import Engine, process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deadreckon.model.event import Event

pytestmark = pytest.mark.corpus


@pytest.fixture
def native(corpus: Path) -> Path:
    return corpus / "native"


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as made:
        yield made


def stack(event: Event) -> list[str]:
    """Return the crashed thread as "function file:line", or module+rva where there is no function."""
    thread = next(t for t in event.threads or () if t.crashed)
    lines = []
    for f in thread.frames or ():
        module = (f.package or "?").rsplit("/", 1)[-1]
        place = f" {f.filename}:{f.lineno}" if f.lineno else ""
        lines.append(f"{(f.function or '').partition('(')[0]}{place}" if f.function else f"{module}+{f.rva}")
    return lines


def test_linux_null_read(native: Path, engine: Engine) -> None:
    event = engine.process(
        native / "breakpad/testdata/linux_null_read_av.dmp", symbols=[str(native / "breakpad-symstore")]
    )
    assert stack(event)[:3] == ["crash null_read_av.cc:18", "main null_read_av.cc:27", "__libc_start_main"]
    assert event.exceptions
    assert event.exceptions[0].type == "SIGSEGV"


def test_inlined_calls(native: Path, engine: Engine) -> None:
    sym = next(native.rglob("linux_inline.new.sym"))
    event = engine.process(native / "breakpad/testdata/linux_inline.dmp", symbols=[str(sym)])
    assert stack(event)[:4] == ["func linux_inline.cpp:27", "bar c.cpp:32", "foo b.cpp:39", "main a.cpp:42"]
    frames = next(t for t in event.threads or () if t.crashed).frames or []
    assert [f.inline for f in frames[:4]] == [True, True, True, False]
    assert {f.rva for f in frames[:4]} == {"0x161b6"}


def test_lldb_stack_ends_at_start(native: Path) -> None:
    folder = native / "lldb/minidump-new"
    event = process(folder / "linux-x86_64.dmp", symbols=[str(folder)])
    assert [s.partition(" ")[0] for s in stack(event)] == ["crash", "_start"]


def test_macos_by_call_frame_information_alone(native: Path, engine: Engine) -> None:
    event = engine.process(
        native / "rust-breakpad/fixtures/crash_macos.dmp", symbols=[str(native / "breakpad-symstore")]
    )
    frames = next(t for t in event.threads or () if t.crashed).frames or []
    assert [(f.rva, f.trust) for f in frames[:3]] == [("0x19c1", "context"), ("0x19a6", "cfi"), ("0x18d5", "cfi")]


def test_main_ends_before_scan_garbage(native: Path, engine: Engine) -> None:
    """Main > libc > _start; the pointers to main and __libc_csu_fini that _start left on the stack are no callers."""
    event = engine.process(native / "rust-minidump/linux-mini.dmp", symbols=[str(native / "symbolic/fixtures/linux")])
    found = stack(event)
    assert found[:3] == ["crash main.cpp:23", "start main.cpp:27", "main main.cpp:35"]
    assert found[3:] == ["libc-2.23.so+0x20830", "_start"]


def test_every_minidump_of_the_corpus_gives_an_event(native: Path, engine: Engine) -> None:
    for path in sorted(native.rglob("*.dmp")):
        event = engine.process(path)
        assert event.status in {"ok", "degraded", "unreadable", "unsupported"}, path
        assert event.status in {"ok", "degraded"} or event.diagnostics, path
        for thread in event.threads or ():
            assert len(thread.frames or ()) <= 4096, path
