"""Cores that kernels, gdb and qemu wrote: against their minidumps, their truth, and ones made while the test runs."""

from __future__ import annotations

import lzma
import mmap
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from deadreckon import Engine
from deadreckon.config import Config, ReportLimits
from deadreckon.errors import Malformed
from deadreckon.model.ids import Arch
from deadreckon.reports import elfcore, minidump
from synth.elfcore import Core
from synth.native import unpacked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deadreckon.model.crash import RawCrash
    from deadreckon.model.event import Event

LIMITS = ReportLimits()
ROOT = Path(__file__).parents[2] / "native_fixtures"
CORES = sorted(ROOT.glob("linux/*/*/dumps/*.core.xz"))
KERNEL = [p for p in CORES if p.parts[-4] in {"x86", "x86_64"}]
QEMU = [p for p in CORES if p.parts[-4] in {"arm", "arm64"}]


def label(path: Path) -> str:
    return "-".join((*path.parts[-4:-2], path.name.split(".")[0]))


def minidump_of(core: Path) -> Path:
    return core.with_name(core.name.replace(".core.xz", ".dmp"))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine(Config(store=str(tmp_path_factory.mktemp("store")))) as made:
        yield made


@pytest.fixture(scope="module")
def binaries(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Path]:
    """Give, for each folder of fixtures with a core, a folder of its binaries, unpacked."""
    folders = {core.parent.parent for core in CORES}
    return {folder: unpacked(folder, tmp_path_factory.mktemp(folder.name)) for folder in folders}


def stacks(event: Event) -> dict[int | None, list[tuple[object, ...]]]:
    return {
        t.id: [(f.instruction_addr, f.function, f.filename, f.lineno, f.trust, f.inline) for f in t.frames or ()]
        for t in event.threads or ()
    }


def without_vdso(event: Event) -> dict[int | None, list[tuple[object, ...]]]:
    """A core holds the vdso, a minidump does not: its frames have names, and their callers are no guesses."""
    found = stacks(event)
    for thread in event.threads or ():
        held, known = found[thread.id], False
        for i, frame in enumerate(thread.frames or ()):
            addr, function, *rest, trust, inline = held[i]
            inside = (frame.package or "").startswith("linux-")
            held[i] = (addr, None if inside else function, *rest, None if known else trust, inline)
            known = inside
    return found


def registers(crash: RawCrash) -> dict[int, dict[str, str]]:
    return {t.id: t.registers.as_hex() for t in crash.threads if t.registers is not None}


@pytest.mark.parametrize("core", KERNEL, ids=label)
def test_a_core_and_its_minidump_are_one_crash(core: Path, engine: Engine, binaries: dict[Path, Path]) -> None:
    folder = str(binaries[core.parent.parent])
    told = engine.process(core, symbols=[folder])
    other = engine.process(minidump_of(core), symbols=[folder])
    assert told.status == "ok"
    assert told.source is not None
    assert (told.source.format, told.source.container) == ("elfcore", [core.name])
    assert told.arch == other.arch
    assert told.process == other.process
    assert without_vdso(told) == without_vdso(other)
    assert any(len(frames) > 5 for frames in stacks(told).values())
    assert told.fingerprint == other.fingerprint
    assert told.title == other.title
    assert [(m.image_addr, m.image_size, m.code_id, m.debug_id) for m in told.modules or ()] == [
        (m.image_addr, m.image_size, m.code_id, m.debug_id) for m in other.modules or ()
    ]
    assert [(e.type, e.value, e.code, e.address, e.thread_id) for e in told.exceptions or ()] == [
        (e.type, e.value, e.code, e.address, e.thread_id) for e in other.exceptions or ()
    ]


@pytest.mark.parametrize("core", CORES, ids=label)
def test_threads_registers_and_process_are_those_of_the_minidump(core: Path) -> None:
    told = elfcore.read(lzma.decompress(core.read_bytes()), LIMITS)
    other = minidump.read(minidump_of(core).read_bytes(), LIMITS)
    assert told.diagnostics == []
    assert registers(told) == registers(other)
    assert [t.id for t in told.threads if t.crashed] == [t.id for t in other.threads if t.crashed]
    assert (told.process_name, told.pid) == (other.process_name, other.pid)
    assert told.attributes["cmdline"] == other.attributes["cmdline"]
    (program,) = (m for m in told.modules if m.code_file.endswith("/crashy"))
    (known,) = (m for m in other.modules if m.code_file.endswith("/crashy"))
    assert (program.code_file, program.image_addr) == (known.code_file, known.image_addr)


@pytest.mark.parametrize("core", QEMU, ids=label)
def test_a_core_of_qemu_with_its_first_pages_put_back(
    core: Path, engine: Engine, binaries: dict[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What qemu leaves out, the fixtures' own tool adds: with build ids in memory, stacks are the minidump's."""
    monkeypatch.syspath_prepend(str(ROOT))
    import qemu_core

    folder = binaries[core.parent.parent]
    dump = minidump_of(core)
    other = minidump.read(dump.read_bytes(), LIMITS).exceptions[0]
    fault = qemu_core.SignalInfo(1, other.address or 0)
    data = qemu_core.complete(lzma.decompress(core.read_bytes()), folder / "crashy", folder, fault)
    told = engine.process(data, symbols=[str(folder)])
    known = engine.process(dump, symbols=[str(folder)])
    assert told.exceptions
    assert (told.exceptions[0].type, told.exceptions[0].value) == (other.type, other.value)
    assert stacks(told) == stacks(known)
    assert told.fingerprint == known.fingerprint


# -- the corpus: TestLinuxCore.py of LLDB, the notes that readelf prints -----------------------------------------------


def read_corpus(corpus: Path, name: str) -> RawCrash:
    return elfcore.read((corpus / "native" / name).read_bytes(), LIMITS)


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("name", "arch", "pid", "tids", "kind"),
    [
        ("lldb/elf-core/linux-i386.core", Arch.X86, 32306, [32306], "SIGSEGV"),
        ("lldb/elf-core/linux-x86_64.core", Arch.X86_64, 32259, [32259], "SIGSEGV"),
        ("lldb/elf-core/thread_crash/linux-i386.core", Arch.X86, 5193, [5195, 5193, 5194], "SIGILL"),
        ("lldb/elf-core/thread_crash/linux-x86_64.core", Arch.X86_64, 5222, [5250, 5222, 5249], "SIGILL"),
        ("lldb/elf-core/gcore/linux-i386.core", Arch.X86, 5586, [5586, 5588, 5589], "DUMP_REQUESTED"),
        ("lldb/elf-core/gcore/linux-x86_64.core", Arch.X86_64, 5669, [5669, 5671, 5672], "DUMP_REQUESTED"),
        ("pyelftools/core_linux32.elf", Arch.X86, 11038, [11038], "SIGABRT"),
        ("pyelftools/core_linux64.elf", Arch.X86_64, 23395, [23395], "SIGABRT"),
        ("pyelftools/core_simple64.elf", Arch.X86_64, 135113, [135113], "SIGABRT"),
    ],
)
def test_threads_and_signals_of_the_corpus(
    corpus: Path, name: str, arch: Arch, pid: int, tids: list[int], kind: str
) -> None:
    crash = read_corpus(corpus, name)
    assert (crash.arch, crash.pid, [t.id for t in crash.threads]) == (arch, pid, tids)
    assert [(e.type, e.thread_id) for e in crash.exceptions] == [(kind, tids[0])]
    assert [t.id for t in crash.threads if t.crashed] == ([] if kind == "DUMP_REQUESTED" else tids[:1])
    assert crash.diagnostics == []


@pytest.mark.corpus
def test_registers_that_lldb_expects(corpus: Path) -> None:
    """Its test writes down every register of this one, a core of one note."""
    held = read_corpus(corpus, "lldb/elf-core/linux-arm.core").threads[0].registers
    assert held is not None
    assert {name: int(value, 16) for name, value in held.as_hex().items()} == {
        **{f"r{i}": i for i in range(13)},
        "sp": 13,
        "lr": 14,
        "pc": 15,
        "cpsr": 16,
    }


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["linux-i386", "linux-x86_64"])
def test_stacks_that_lldb_expects(corpus: Path, engine: Engine, name: str) -> None:
    folder = corpus / "native/lldb/elf-core"
    event = engine.process(folder / f"{name}.core", symbols=[str(folder / f"{name}.out")])
    frames = (event.threads or [])[0].frames or []
    assert [f.function for f in frames] == ["bar", "foo", "_start"]
    assert {f.filename for f in frames} == {"main.c"}
    assert all(f.lineno for f in frames)
    assert event.process is not None
    assert event.process.name == "a.out"


@pytest.mark.corpus
def test_every_core_of_the_corpus_survives_cuts(corpus: Path) -> None:
    cores = [p for p in (corpus / "native").rglob("*") if p.suffix == ".core" or p.name.startswith("core_")]
    assert len(cores) > 12
    for path in cores:
        data = path.read_bytes()
        for end in range(64, len(data), len(data) // 40 + 1):
            try:
                crash = elfcore.read(data[:end], LIMITS)
            except Malformed:
                continue
            assert crash.diagnostics, (path, end)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_gigabytes_are_mapped_and_not_read(tmp_path: Path) -> None:
    path = tmp_path / "core"
    core = Core()
    core.thread(1, 11)
    core.load(0x10_0000, b"\x55" * 4096, size=3 << 30)
    core.header[(64 + 56 + 32, "Q")] = 3 << 30  # p_filesz of the segment
    path.write_bytes(core.finish())
    os.truncate(path, 3 << 30)

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    with path.open("rb") as file:
        # Its memory is a view of the map, which is closed when nothing refers to it any more.
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    before = resident()
    crash = elfcore.read(mapped, LIMITS)
    assert crash.memory.read(0x10_0000 + (2 << 30), 4) == bytes(4)
    assert crash.memory.read(0x10_0000, 2) == b"\x55\x55"
    assert resident() - before < 32 << 20


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_gigabyte_passes_through_the_engine_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "core"
    core = Core()
    core.thread(1, 11, rsp=0x10_0000 + (1 << 20))
    core.load(0x10_0000, b"\x55" * 4096, size=1 << 30)
    core.header[(64 + 56 + 32, "Q")] = 1 << 30  # p_filesz of the segment
    path.write_bytes(core.finish())
    os.truncate(path, path.stat().st_size + (1 << 30))
    script = """
import re, sys
from deadreckon import Engine
with Engine() as engine:
    event = engine.process(sys.argv[1])
print(event.status, len(event.threads), re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1])
"""
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=True, capture_output=True, text=True)
    status, threads, most = done.stdout.split()
    assert (status, threads) == ("ok", "1")
    assert int(most) < 300 << 10


# -- live --------------------------------------------------------------------------------------------------------------


def crash_and_keep_core(program: Path, mode: str, folder: Path) -> Path:
    """Crash a program and return the core that the kernel put into its folder; skips where it does not."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if pattern.startswith("|") or "/" in pattern:
        pytest.skip(f"cores go elsewhere: core_pattern is {pattern!r}")
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != resource.RLIM_INFINITY:
        pytest.skip("core files are limited")
    done = subprocess.run(
        ["/bin/sh", "-c", 'ulimit -c unlimited; exec "$0" "$1"', str(program), mode],
        cwd=folder,
        check=False,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode < 0
    cores = list(folder.glob("core*"))
    if not cores:
        pytest.skip("the kernel wrote no core")
    return cores[0]


linux_x86_64 = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="the programs are Linux's, of x86_64"
)


def runnable(source: Path, target: Path) -> Path:
    program = target / "crashy"
    data = source.read_bytes()
    program.write_bytes(lzma.decompress(data) if source.suffix == ".xz" else data)
    program.chmod(0o755)
    return program


@pytest.mark.slow
@linux_x86_64
@pytest.mark.parametrize(("mode", "top"), [("threads", "read_log"), ("abort", None), ("recursion", None)])
def test_a_program_that_crashes_now(tmp_path: Path, engine: Engine, mode: str, top: str | None) -> None:
    folder = ROOT / "linux/x86_64/static-O2"
    program = runnable(next(folder.glob("crashy.xz")), tmp_path)
    core = crash_and_keep_core(program, mode, tmp_path)
    known = engine.process(folder / f"dumps/{mode}.dmp", symbols=[str(folder / "crashy.debug"), str(program)])
    told = engine.process(core, symbols=[str(folder / "crashy.debug"), str(program)])
    assert told.status == "ok"
    (crashed,) = (t for t in told.threads or () if t.crashed)
    (expected,) = (t for t in known.threads or () if t.crashed)
    assert [(f.function, f.lineno) for f in crashed.frames or ()] == [
        (f.function, f.lineno) for f in expected.frames or ()
    ]
    assert told.fingerprint == known.fingerprint
    if top is not None:
        assert top in str((crashed.frames or [])[0].function)
    (module,) = (m for m in told.modules or () if m.code_file == str(program))
    assert module.debug_id is not None


def test_code_that_the_kernel_maps_in_is_unwound_by_its_own_rules(engine: Engine, binaries: dict[Path, Path]) -> None:
    """Every system call of a 32-bit process goes through it; its file is on no disk, but in the core."""
    core = ROOT / "linux/x86/static-O2/dumps/threads.core.xz"
    event = engine.process(core, symbols=[str(binaries[core.parent.parent])])
    (module,) = (m for m in event.modules or () if m.code_file == "linux-gate.so.1")
    assert module.symbols == "found"
    waiting = [t.frames or [] for t in event.threads or () if (t.frames or [])[0].package == "linux-gate.so.1"]
    assert len(waiting) > 1
    for frames in waiting:
        assert frames[0].function == "__kernel_vsyscall"
        assert {f.trust for f in frames[1:]} == {"cfi"}


@pytest.mark.slow
@linux_x86_64
@pytest.mark.skipif(shutil.which("gcore") is None, reason="gdb is not installed")
def test_a_snapshot_by_gcore(tmp_path: Path) -> None:
    """A living process, this interpreter's child: nothing crashed, and its modules are those of its maps."""
    child = subprocess.Popen([sys.executable, "-c", "print(flush=True); import time; time.sleep(60)"], stdout=-1)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        maps = Path(f"/proc/{child.pid}/maps").read_text()
        done = subprocess.run(
            ["gcore", "-o", str(tmp_path / "core"), str(child.pid)], check=False, capture_output=True, timeout=60
        )
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        if child.stdout is not None:
            child.stdout.close()
    core = tmp_path / f"core.{child.pid}"
    if not core.exists():
        pytest.skip(f"gcore could not attach: {done.stderr.decode(errors='replace')[-200:]}")
    crash = elfcore.read(core.read_bytes(), LIMITS)
    assert crash.diagnostics == []
    assert crash.pid == child.pid
    assert not any(t.crashed for t in crash.threads)
    assert [e.type for e in crash.exceptions] == ["DUMP_REQUESTED"]
    mapped = {line.split(maxsplit=5)[5] for line in maps.splitlines() if " r-xp " in line and "/" in line}
    assert mapped == {m.code_file for m in crash.modules if m.code_file.startswith("/")}
    assert crash.process_name == os.path.basename(os.path.realpath(sys.executable))
