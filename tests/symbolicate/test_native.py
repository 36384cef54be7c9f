from __future__ import annotations

import ntpath
import posixpath
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadreckon.model.crash import Module, RawFrame
from deadreckon.model.event import Frame
from deadreckon.model.ids import Arch
from deadreckon.model.tables import NONE, TRUST_CFI, TRUST_CONTEXT, TRUST_PREWALKED, TRUST_SCAN, FrameTable, SymTable
from deadreckon.symbolicate.native import ModuleSymbols, join_path, symbolicate

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGE = 0x40_0000


def table() -> SymTable:
    """Return ``helper`` inlined into ``main`` at 0x110, ``main`` from 0x100, a nameless line at 0x130, then nothing."""
    found = SymTable.empty()
    texts = [b"_ZN3app6helperEi", b"main", b"/src", b"a.cc", b"../b.h"]
    refs = np.cumsum([0, *(len(t) + 1 for t in texts)]).tolist()
    found.strings = np.frombuffer(b"".join(bytes([len(t)]) + t for t in texts), np.uint8)
    found.files = np.array([[refs[2], NONE, refs[3]], [refs[2], refs[3], refs[4]]], np.uint32)
    found.functions = np.array([[refs[0], NONE, 2], [refs[1], 0x100, 2], [NONE, NONE, 99]], np.uint32)
    found.locations = np.array([[0, 7, 1, NONE], [1, 3, 0, 0], [0, 9, 2, NONE], [NONE, 0, 1, NONE]], np.uint32)
    found.range_start = np.array([0x100, 0x110, 0x120, 0x130, 0x140, 0x150], np.uint32)
    found.range_loc = np.array([0, 1, 0, 2, 3, NONE], np.uint32)
    return found


def frames(*rows: tuple[int, int, bool, int, int]) -> FrameTable:
    """Return a table of (thread, address, is return address, module, trust)."""
    thread, pc, is_return, module, trust = zip(*rows, strict=True)
    return FrameTable(
        np.array(thread, np.int32),
        np.array(pc, np.uint64),
        np.zeros(len(rows), np.uint64),
        np.array(is_return, np.bool_),
        np.array(module, np.int32),
        np.array(trust, np.uint8),
    )


MODULES = [Module(IMAGE, 0x1000, "/bin/app", debug_id="id"), Module(0x50_0000, 0x1000, "/lib/x.so")]


def resolve(*rows: tuple[int, int, bool, int, int], state: str = "missing") -> tuple[list[list[Frame]], list[int]]:
    symbols = [ModuleSymbols(table(), "found"), ModuleSymbols(None, state)]
    return symbolicate(frames(*rows), MODULES, symbols)


def test_crashes_of_one_build_share_a_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from deadreckon.kernels import ranges

    calls: list[int] = []
    real = ranges.look_up

    def counted(sym: SymTable, rva: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
        calls.append(len(rva))
        return real(sym, rva)

    monkeypatch.setattr(ranges, "look_up", counted)
    rows = [(crash, IMAGE * (crash + 1) + 0x112, False, crash, TRUST_CONTEXT) for crash in range(50)]
    modules = [Module(IMAGE * (crash + 1), 0x1000, "/bin/app") for crash in range(50)]
    stacks, numbers = symbolicate(frames(*rows), modules, [ModuleSymbols(table(), "found")] * 50)
    assert calls == [50]
    assert numbers == [*range(50)]
    assert {tuple(f.function for f in stack) for stack in stacks} == {("app::helper(int)", "main")}
    assert {stack[0].image_addr for stack in stacks} == {hex(m.image_addr) for m in modules}


def test_what_the_report_says_of_a_frame() -> None:
    """Our look-up replaces the report's names, and only what it knows; managed frames are as they were."""
    told = Frame(status="symbolicated", function="start", filename="x.m", in_app=True, locals={"a": 1})
    listed = [
        RawFrame(IMAGE + 0x112, False, told),
        RawFrame(0x50_0010, True, told),
        RawFrame(None, False, Frame(status="symbolicated", function="f", module="com.app.Main", lineno=3)),
        RawFrame(0x50_0020, True, Frame(status="missing", filename="y.m")),
    ]
    rows = [
        (0, f.instruction_addr or 0, f.is_return_address, m, TRUST_PREWALKED)
        for f, m in zip(listed, (0, 1, -1, 1), strict=True)
    ]
    symbols = [ModuleSymbols(table(), "found"), ModuleSymbols(None, "missing")]
    ((inner, outer, named, managed, nameless),), _ = symbolicate(frames(*rows), MODULES, symbols, listed)
    assert (inner.function, outer.function) == ("app::helper(int)", "main")
    assert (inner.locals, outer.locals, outer.in_app) == (None, {"a": 1}, True)
    assert (named.function, named.filename, named.rva, named.package, named.trust) == (
        "start",
        "x.m",
        "0x10",
        "/lib/x.so",
        "prewalked",
    )
    assert (managed.function, managed.module, managed.instruction_addr, managed.trust) == (
        "f",
        "com.app.Main",
        None,
        "prewalked",
    )
    assert (nameless.function, nameless.filename, nameless.status) == (None, "y.m", "missing")


def test_a_reported_symbol_is_demangled_where_the_report_has_no_readable_name() -> None:
    told = [Frame(status="symbolicated", raw_function="__ZN3app4mainEv"), Frame(status="missing", raw_function="main")]
    listed = [RawFrame(0x50_0010 + i, True, frame) for i, frame in enumerate(told)]
    rows = [(0, f.instruction_addr or 0, True, 1, TRUST_PREWALKED) for f in listed]
    symbols = [ModuleSymbols(table(), "found"), ModuleSymbols(None, "missing")]
    ((mangled, plain),), _ = symbolicate(frames(*rows), MODULES, symbols, listed)
    assert (mangled.function, mangled.raw_function, mangled.status) == (
        "app::main()",
        "__ZN3app4mainEv",
        "symbolicated",
    )
    assert (plain.function, plain.status) == ("main", "symbolicated")


@pytest.mark.parametrize(
    ("arch", "address", "line"), [(Arch.ARM, 0x120, 3), (Arch.ARM, 0x121, 3), (Arch.X86, 0x121, 7)]
)
def test_thumb_return_addresses_are_looked_up_in_their_call(arch: Arch, address: int, line: int) -> None:
    """The call ends at 0x120; what follows it is another line, whatever bit 0 says of the code there."""
    modules = [Module(IMAGE, 0x1000, "/bin/app", arch=arch)]
    row = (0, IMAGE + address, True, 0, TRUST_CFI)
    ((first, *_),), _ = symbolicate(frames(row), modules, [ModuleSymbols(table(), "found")])
    assert (first.lineno, first.instruction_addr) == (line, hex(IMAGE + address))


def test_inlined_calls_share_their_frames_address() -> None:
    ((inner, outer),), numbers = resolve((4, IMAGE + 0x112, False, 0, TRUST_CONTEXT))
    assert numbers == [4]
    assert (inner.function, inner.raw_function) == ("app::helper(int)", "_ZN3app6helperEi")
    assert (inner.lineno, inner.inline) == (3, True)
    assert (inner.filename, inner.abs_path, inner.symbol_addr) == ("b.h", "/src/b.h", None)
    assert (outer.function, outer.lineno, outer.inline, outer.symbol_addr) == ("main", 7, False, hex(IMAGE + 0x100))
    assert (outer.abs_path, outer.lang) == ("/src/a.cc", "cpp")
    for frame in (inner, outer):
        assert (frame.instruction_addr, frame.rva, frame.image_addr) == (hex(IMAGE + 0x112), "0x112", hex(IMAGE))
        assert (frame.package, frame.debug_id, frame.trust, frame.status) == (
            "/bin/app",
            "id",
            "context",
            "symbolicated",
        )


@pytest.mark.parametrize(("is_return", "line"), [(False, 7), (True, 3)])
def test_return_addresses_are_looked_up_in_their_call(is_return: bool, line: int) -> None:
    ((first, *_),), _ = resolve((0, IMAGE + 0x120, is_return, 0, TRUST_CFI))
    assert first.lineno == line
    assert (first.instruction_addr, first.rva) == (hex(IMAGE + 0x120), "0x120")


def test_frames_without_a_function() -> None:
    (found,), _ = resolve(
        (0, IMAGE + 0x130, False, 0, TRUST_CONTEXT),
        (0, IMAGE + 0x140, False, 0, TRUST_SCAN),
        (0, IMAGE + 0x150, False, 0, TRUST_SCAN),
        (0, IMAGE + 0xFF, False, 0, TRUST_SCAN),
        (0, 0x50_0010, True, 1, TRUST_SCAN),
        (0, 0x1234, True, -1, TRUST_SCAN),
    )
    assert [f.status for f in found] == [
        "missing_symbol", "symbolicated", "missing_symbol", "missing_symbol", "missing", "unknown_image",
    ]  # fmt: skip
    assert (found[0].function, found[0].lineno, found[0].lang) == (None, 9, None)
    assert (found[1].function, found[1].lineno, found[1].filename) == ("main", None, None)
    assert found[2].package == "/bin/app"
    assert found[4].rva == "0x10"
    assert (found[5].image_addr, found[5].rva, found[5].package) == (None, None, None)


@pytest.mark.parametrize(
    ("state", "status"),
    [("missing", "missing"), ("malformed", "malformed"), ("mismatch", "missing"), ("unused", "missing")],
)
def test_state_of_the_module_is_the_frames_status(state: str, status: str) -> None:
    ((frame,),), _ = resolve((0, 0x50_0010, False, 1, TRUST_SCAN), state=state)
    assert frame.status == status


def test_threads_keep_their_order() -> None:
    rows = [(thread, IMAGE + 0x100 + i, False, 0, TRUST_CFI) for i, thread in enumerate((5, 5, 2, 7, 7, 7))]
    threads, numbers = resolve(*rows)
    assert numbers == [5, 2, 7]
    assert [len(t) for t in threads] == [2, 1, 3]
    assert [f.instruction_addr for t in threads for f in t] == [hex(row[1]) for row in rows]


def test_no_frames() -> None:
    assert symbolicate(FrameTable.empty(), [], []) == ([], [])


# --- Paths ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "path"),
    [
        (("/src", "lib", "a.c"), "/src/lib/a.c"),
        (("/src", "/usr/include", "stdio.h"), "/usr/include/stdio.h"),
        (("/src", "", "a.c"), "/src/a.c"),
        (("", "", "a.c"), "a.c"),
        (("/src/", "../lib/./x", "a.c"), "/lib/x/a.c"),
        (("/a", "../../..", "b.c"), "/b.c"),
        (("a/b", "../../..", "c.c"), "../c.c"),
        (("C:\\src", "lib", "a.c"), "C:\\src\\lib\\a.c"),
        (("C:\\src", "D:\\lib", "a.c"), "D:\\lib\\a.c"),
        (("C:\\src", "..\\..\\..\\x", "a.c"), "C:\\x\\a.c"),
        (("C:/src", "../lib", "a.c"), "C:\\lib\\a.c"),
        (("\\\\server\\share", "x", "a.c"), "\\\\server\\share\\x\\a.c"),
        (("/src", "C:\\lib", "a.c"), "C:\\lib\\a.c"),
        (("", "", ""), ""),
        (("/", "", "a.c"), "/a.c"),
    ],
)
def test_join_path(parts: tuple[str, str, str], path: str) -> None:
    assert join_path(*parts) == path


PIECES = st.lists(st.sampled_from(["a", "b.c", "..", ".", "x y", ""]), min_size=1, max_size=5)


@given(PIECES, PIECES)
def test_posix_paths_are_joined_as_the_library_does(first: list[str], second: list[str]) -> None:
    a, b = "/" + "/".join(first).lstrip("/"), "/".join(second).lstrip("/")
    if not b:
        return
    assert (join_path(a, b).rstrip("/") or "/") == posixpath.normpath(posixpath.join(a, b))


@given(PIECES, PIECES)
def test_windows_paths_are_joined_as_the_library_does(first: list[str], second: list[str]) -> None:
    a, b = "C:\\" + "\\".join(filter(None, first)), "\\".join(filter(None, second))
    if not b:
        return
    expected = ntpath.normpath(ntpath.join(a, b))
    assert join_path(a, b).rstrip("\\") == expected.rstrip("\\")
