"""Which changes leave a crash in its group, and which may not: one test a row of the matrix.

| change                                              | group |
|-----------------------------------------------------|-------|
| another compiler, another optimization, with symbols | same  |
| linked statically                                   | same  |
| another processor                                   | same (tests/test_fixtures.py) |
| symbols from a .sym instead of DWARF                | same, as far as it has the names and the inlined calls |
| addresses moved (ASLR), with symbols or without     | same  |
| line numbers, columns, build roots                  | same  |
| line endings of a report                            | same  |
| another process, locale, hash seed                  | same  |
| how far a recursion went                            | same  |
| numbers, ids, paths in a message, without frames    | same  |
| another C++ library's version scopes, demangler     | same  |
| symbols gone, and another build                     | may differ: addresses are all there is |
| symbols gone, the same build                        | differs from the one with symbols |
| a function renamed, another signal                  | differs |
"""

from __future__ import annotations

import lzma
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from deadreckon import Engine
from deadreckon.config import Config
from deadreckon.grouping.fingerprint import fingerprint
from deadreckon.model.event import Event, ExceptionInfo, Frame, Source, Thread, decode_event, encode_event

if TYPE_CHECKING:
    from collections.abc import Iterator

LINUX = Path(__file__).parent.parent.parent / "native_fixtures" / "linux"
MODES = ("templates", "library", "recursion", "virtual", "inlines", "cold", "operators")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine(Config(store=str(tmp_path_factory.mktemp("store")))) as engine:
        yield engine


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give folders with the symbols of builds that are committed compressed."""
    found = {}
    for build in ("x86_64/static-O2", "arm/clang-O1", "arm/frames-O1", "arm/pie-O0"):
        found[build] = target = tmp_path_factory.mktemp("build")
        for file in (LINUX / build).glob("*"):
            if file.is_file():
                data = file.read_bytes()
                packed = file.suffix == ".xz"
                (target / (file.stem if packed else file.name)).write_bytes(lzma.decompress(data) if packed else data)
    return found


def group_of(event: Event) -> str:
    assert event.fingerprint is not None
    return event.fingerprint.id


def process(engine: Engine, build: str, mode: str, symbols: Path | None) -> Event:
    (dump,) = (LINUX / build / "dumps").glob(f"{mode}.dmp*")
    data = lzma.decompress(dump.read_bytes()) if dump.suffix == ".xz" else dump.read_bytes()
    return engine.process(data, symbols=[str(symbols)] if symbols else [])


@pytest.mark.parametrize("mode", MODES)
def test_optimization(mode: str, engine: Engine) -> None:
    """Inlined calls are frames again."""
    groups = {group_of(process(engine, f"x86_64/{b}", mode, LINUX / "x86_64" / b)) for b in ("pie-O0", "pie-O2")}
    assert len(groups) == 1


@pytest.mark.parametrize("mode", MODES)
def test_linked_statically(mode: str, engine: Engine, builds: dict[str, Path]) -> None:
    shared = process(engine, "x86_64/pie-O2", mode, LINUX / "x86_64/pie-O2")
    static = process(engine, "x86_64/static-O2", mode, builds["x86_64/static-O2"])
    assert group_of(shared) == group_of(static)


@pytest.mark.parametrize("mode", ["inlines", "null_call"])
def test_another_compiler(mode: str, engine: Engine, builds: dict[str, Path]) -> None:
    """One source by gcc and by clang, in ARM and in Thumb instructions, where no guesses would count."""
    gcc, clang = (process(engine, b, mode, builds[b]) for b in ("arm/frames-O1", "arm/clang-O1"))
    assert group_of(gcc) == group_of(clang)


def test_symbols_of_another_kind(engine: Engine) -> None:
    """The .sym has no inlined calls, so only the innermost function is looked at."""
    folder = LINUX / "x86_64/pie-O2"
    for mode in ("templates", "library", "recursion"):
        told = [process(engine, "x86_64/pie-O2", mode, folder / p).fingerprint for p in ("breakpad", "")]
        breakpad, dwarf = ([c.text for c in f.components or () if c.contributes] for f in told if f)
        assert breakpad[:2] == dwarf[:2]


def moved(event: Event, by: int) -> Event:
    other = decode_event(encode_event(event))
    for thread in other.threads or ():
        for frame in thread.frames or ():
            for name in ("instruction_addr", "image_addr", "symbol_addr"):
                if (value := getattr(frame, name)) is not None:
                    setattr(frame, name, hex(int(value, 16) + by))
    return other


def test_addresses_moved(engine: Engine) -> None:
    for symbols in (LINUX / "x86_64/pie-O2", None):
        event = process(engine, "x86_64/pie-O2", "library", symbols)
        assert fingerprint(moved(event, 0x7000_0000)).id == group_of(event)


def test_without_symbols_another_build_may_be_another_group(engine: Engine) -> None:
    with_symbols = process(engine, "x86_64/pie-O2", "library", LINUX / "x86_64/pie-O2")
    without = [process(engine, f"x86_64/{b}", "library", None) for b in ("pie-O0", "pie-O2")]
    assert len({group_of(with_symbols), *map(group_of, without)}) == 3
    again = process(engine, "x86_64/pie-O2", "library", None)
    assert group_of(again) == group_of(without[1])


def event(
    *names: str, kind: str | None = "SIGSEGV", root: str = "/src", line: int = 10, message: str | None = None
) -> Event:
    frames = [
        Frame(
            status="symbolicated", function=name, package="/opt/app", in_app=True, lineno=line + i,
            abs_path=f"{root}/{name[:4]}.cpp", filename=f"{name[:4]}.cpp",
        )
        for i, name in enumerate(names)
    ]  # fmt: skip
    exceptions = [ExceptionInfo(type=kind, value=message)] if kind or message else None
    thread = Thread(crashed=True, frames=frames)
    return Event(
        schema="",
        event_id="",
        status="ok",
        source=Source(format="x"),
        platform="native",
        threads=[thread],
        exceptions=exceptions,
    )


def same(*events: Event) -> bool:
    return len({fingerprint(e).id for e in events}) == 1


def test_lines_and_build_roots() -> None:
    assert same(event("f", "main"), event("f", "main", line=200), event("f", "main", root="C:\\jenkins\\ws"))


def test_what_else_changes_the_group() -> None:
    assert not same(event("f", "main"), event("g", "main"))
    assert not same(event("f", "main"), event("f", "main", kind="SIGABRT"))
    assert not same(event("f", "g"), event("g", "f"))


def test_depth_of_a_recursion() -> None:
    assert same(event(*["f"] * 5, "main"), event(*["f"] * 900, "main"))
    assert same(event(*["f", "g"] * 5, "main"), event(*["f", "g"] * 90, "main"))


def test_demanglers_and_libraries() -> None:
    """One stack as gcc with libstdc++, clang with libc++ and Microsoft's tools name it."""
    gcc = event(
        "app::Parser::read(std::__cxx11::basic_string<char> const&)::{lambda(int)#1}::operator()(int) const",
        "void app::each<int>(std::vector<int, std::allocator<int> >&)",
        "(anonymous namespace)::start() [clone .cold]",
        "main",
    )
    clang = event(
        "app::Parser::read(std::__1::basic_string<char, std::__1::char_traits<char>>&)::$_0::operator()(int) const",
        "void app::each<int>(std::__1::vector<int>&)",
        "(anonymous namespace)::start()",
        "main",
    )
    microsoft = event(
        "app::Parser::read::__l2::<lambda_0123456789abcdef0123456789abcdef>::operator()",
        "app::each<int>",
        "`anonymous namespace'::start",
        "main",
    )
    assert same(gcc, clang, microsoft)


def test_the_library_s_own_frames_between() -> None:
    """libstdc++ and libc++ take other ways from std::sort to what it calls."""
    one = event("app::less(int, int)", "std::__introsort_loop<int*>(int*, int*)", "std::sort<int*>(int*, int*)", "main")
    two = event("app::less(int, int)", "std::__1::__sort3<int*>(int*)", "std::__1::__introsort(int*)", "main")
    assert same(one, two)


def test_messages() -> None:
    told = [
        event(
            kind=None,
            message=f"request {n} of user {n * 7}@example.org from 10.0.0.{n} failed after {n}ms: /tmp/x{n}/y",
        )
        for n in (1, 22)
    ]
    assert same(*told)
    assert not same(told[0], event(kind=None, message="disk full"))


TRACE = """Traceback (most recent call last):
  File "app.py", line 3, in main
    go()
  File "app.py", line 7, in go
    1/0
ZeroDivisionError: division by zero
"""


def test_line_endings(engine: Engine) -> None:
    groups = {group_of(engine.process(TRACE.replace("\n", end).encode())) for end in ("\n", "\r\n")}
    assert len(groups) == 1


def test_another_process_and_locale(tmp_path: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from deadreckon.grouping.fingerprint import fingerprint\n"
        "from deadreckon.model.event import decode_event\n"
        "print(fingerprint(decode_event(open(sys.argv[2], 'rb').read())).id)\n"
    )
    one = event("I\u0130\u0131::straße(\ufb00)", "main", message="größe 12")
    path = tmp_path / "event.json"
    path.write_bytes(encode_event(one))
    source = str(Path(__file__).parent.parent.parent / "src")
    for locale, seed in (("tr_TR.UTF-8", "1"), ("C", "77")):
        environment = {**os.environ, "LC_ALL": locale, "PYTHONHASHSEED": seed, "PYTHONUTF8": "0"}
        done = subprocess.run(
            [sys.executable, "-c", program, source, str(path)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == fingerprint(one).id
