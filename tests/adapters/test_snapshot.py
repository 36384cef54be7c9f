"""``deadreckon snapshot``: what a core, a minidump or a process gives is what its snapshot gives, elsewhere too."""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from deadreckon import Engine
from deadreckon.adapters import live
from deadreckon.adapters.snapshot import run
from deadreckon.cli import main
from deadreckon.config import Config, ReportLimits
from deadreckon.errors import SourceUnavailable
from deadreckon.model.event import encode_event
from deadreckon.reports import elfcore, snapshot
from synth.backtrace import report
from synth.snapshot import pack
from synth.snapshot import report as snapshot_report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deadreckon.model.event import Event

ROOT = Path(__file__).parents[2] / "native_fixtures"
CORES = sorted(ROOT.glob("linux/*/*/dumps/*.core.xz"))
MODES = ("altstack", "interrupt", "overflow", "signal", "threads", "tail_call", "null_call")
DUMPS = [p for p in sorted(ROOT.glob("linux/*/*/dumps/*.dmp")) if p.stem in MODES]
CORE = ROOT / "linux/x86_64/pie-O2/dumps/threads.core.xz"


def label(path: Path) -> str:
    return "-".join((*path.parts[-4:-2], path.name.split(".")[0]))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine(Config(store=str(tmp_path_factory.mktemp("store")))) as made:
        yield made


@pytest.fixture(scope="module")
def binaries(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Path]:
    """Give, for each folder of fixtures used here, a folder of its binaries, unpacked."""
    found = {}
    for folder in {path.parent.parent for path in (*CORES, *DUMPS)}:
        found[folder] = target = tmp_path_factory.mktemp(folder.name)
        for file in folder.iterdir():
            if file.suffix == ".xz":
                (target / file.stem).write_bytes(lzma.decompress(file.read_bytes()))
            elif file.is_file():
                shutil.copy(file, target)
    return found


def made(source: Path | str, tmp_path: Path, *attach: str) -> Path:
    target = tmp_path / "made.btt"
    said, done = run(Config(store=str(tmp_path / "store")), str(source), str(target), attach)
    assert done, said
    assert said.startswith(f"{target}: ")
    return target


def told(event: Event) -> dict[str, object]:
    """Return all that an event says of the crash itself."""
    return {
        "threads": event.threads,
        "exceptions": event.exceptions,
        "modules": event.modules,
        "facts": (event.event_id, event.status, event.title, event.culprit, event.level, event.platform, event.arch),
        "os": (event.os, event.process, event.timestamp),
        "fingerprint": event.fingerprint,
        "diagnostics": event.diagnostics,
    }


@pytest.mark.parametrize("dump", [*CORES, *DUMPS], ids=label)
def test_the_same_frames(dump: Path, engine: Engine, binaries: dict[Path, Path], tmp_path: Path) -> None:
    folder = str(binaries[dump.parent.parent])
    packed = made(dump, tmp_path)
    for symbols in ([folder], []):
        direct, other = engine.process(dump, symbols=symbols), engine.process(packed, symbols=symbols)
        assert told(direct) == told(other)
        assert (other.source.format, other.source.name) == ("btt", "made.btt")
    frames = [f for t in other.threads or () for f in t.frames or ()]
    assert len(frames) >= 2
    assert packed.stat().st_size < 10_000


@pytest.mark.corpus
def test_the_same_frames_of_real_dumps(corpus: Path, engine: Engine, tmp_path: Path) -> None:
    paths = [
        *sorted((corpus / "native").rglob("linux*.dmp"))[:12],
        *sorted((corpus / "native").rglob("*.core"))[:12],
    ]
    compared = 0
    for path in paths:
        said, done = run(Config(store=str(tmp_path / "store")), str(path), str(tmp_path / "made.btt"))
        if done:
            direct, other = engine.process(path), engine.process(tmp_path / "made.btt")
            assert direct.threads == other.threads, path
            compared += 1
        else:
            assert "no thread has registers" in said or "unsupported" in said or "malformed" in said, said
    assert compared > 10


def test_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "app.log").write_bytes(b"last words")
    packed = made(CORE, tmp_path, str(tmp_path / "app.log"))
    assert stat.S_IMODE(packed.stat().st_mode) == 0o600
    crash = snapshot.read(packed.read_bytes(), ReportLimits())
    core = lzma.decompress(CORE.read_bytes())
    direct = elfcore.read(core, ReportLimits())
    assert [a.name for a in crash.attachments] == ["app.log"]
    assert crash.attributes["snapshot.origin"]["format"] == "elfcore"
    assert crash.attributes["snapshot.origin"]["size"] == len(core)
    assert crash.modules == direct.modules
    assert crash.exceptions == direct.exceptions
    assert crash.address_mask == direct.address_mask
    held = int((crash.memory.end - crash.memory.start).sum())
    assert 4096 < held < 100_000
    for start, end in zip(crash.memory.start.tolist(), crash.memory.end.tolist(), strict=True):
        assert crash.memory.read(start, end - start) == direct.memory.read(start, end - start)


def test_a_snapshot_of_a_snapshot_is_the_same_crash(engine: Engine, tmp_path: Path) -> None:
    first = made(CORE, tmp_path).rename(tmp_path / "first.btt")
    second = made(first, tmp_path)
    assert told(engine.process(first)) == told(engine.process(second))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"text", "unknown_format"),
        (b"", "unknown_format"),
        (b"\x7fELF\2\1\1" + bytes(9) + b"\4\0\x3e\0" + bytes(44), "malformed"),
        (b'{"mainThread": "1", "agent": "x", "threads": {}}', "unsupported: a snapshot is of one core or minidump"),
        (pack(snapshot_report(threads=[])), "no thread has registers"),
        (pack(snapshot_report(arch="vax")), "no thread has registers"),
    ],
)
def test_what_there_is_no_snapshot_of(
    data: bytes, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "source", tmp_path / "made.btt"
    source.write_bytes(data)
    target.write_bytes(b"from before")
    assert main(["snapshot", str(source), "-o", str(target)]) == 3
    err = capsys.readouterr().err
    assert err.startswith(f"deadreckon: {source}: ")
    assert why in err
    assert target.read_bytes() == b"from before"
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["made.btt", "source"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "made.btt"
    assert main(["snapshot", str(CORE), "-o", str(target)]) == 0
    assert capsys.readouterr().out == f"{target}: 4 threads, 5 modules, 19864 bytes of memory\n"
    assert main(["snapshot", str(tmp_path / "none"), "-o", str(target)]) == 3
    assert "No such file or directory" in capsys.readouterr().err
    assert main(["snapshot", str(CORE), "-o", str(tmp_path / "no/where")]) == 2
    assert main(["snapshot", str(CORE), "-o", str(target), "--attach", str(tmp_path / "none")]) == 2
    with pytest.raises(SystemExit):
        main(["snapshot", str(CORE)])


# -- running processes ------------------------------------------------------------------------------------------------

PROGRAM = """
import ctypes, sys, threading, time
def inner():
    # Below this call are frames of C: sleep() in the C library.
    ctypes.PyDLL(None).sleep(1000) if len(sys.argv) > 1 else time.sleep(1000)
threads = [threading.Thread(target=time.sleep, args=(1000,), daemon=True) for _ in range(2)]
for thread in threads:
    thread.start()
print("ready", flush=True)
inner()
"""


@contextmanager
def running() -> Iterator[int]:
    """Give the number of a process with three threads that sleep."""
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            yield child.pid
        finally:
            child.kill()


@pytest.fixture(scope="module")
def traced() -> None:
    """Skip where nobody may trace."""
    if not sys.platform.startswith("linux"):
        pytest.skip("Linux only")
    with running() as pid:
        try:
            live.core_of(pid, 1 << 20)
        except SourceUnavailable as e:
            pytest.skip(str(e))


def asleep(pid: int) -> dict[int, tuple[int, int]]:
    """Wait until all threads sleep; give the stack pointer and program counter that the kernel tells of each."""
    for _ in range(1000):
        found = {}
        for tid in map(int, os.listdir(f"/proc/{pid}/task")):
            state = Path(f"/proc/{pid}/task/{tid}/stat").read_text().rpartition(")")[2].split()[0]
            words = Path(f"/proc/{pid}/task/{tid}/syscall").read_text().split()
            if state == "S" and len(words) > 2:
                found[tid] = (int(words[-2], 16), int(words[-1], 16))
        if len(found) == 3:
            return found
        time.sleep(0.01)
    raise AssertionError("it never sleeps")


@pytest.mark.usefixtures("traced")
def test_a_running_process(engine: Engine, tmp_path: Path) -> None:
    with running() as pid:
        mapped = Path(f"/proc/{pid}/maps").read_text().splitlines()
        before = asleep(pid)
        packed = made(str(pid), tmp_path)
        # It goes on where it was.
        assert Path(f"/proc/{pid}/status").read_text().partition("TracerPid:\t")[2].split()[0] == "0"
        assert asleep(pid) == before
    crash = snapshot.read(packed.read_bytes(), ReportLimits())
    assert crash.diagnostics == []
    assert (crash.pid, crash.threads[0].id) == (pid, pid)
    assert {t.id: (t.registers.sp, t.registers.pc) for t in crash.threads if t.registers} == before
    assert all(crash.memory.read(sp, 256) is not None for sp, _ in before.values())
    images = {line.split()[-1] for line in mapped if "xp" in line and "/" in line}
    assert images <= {m.code_file for m in crash.modules}
    # Images without a build id there are; those here have one.
    assert sum(m.debug_id is not None for m in crash.modules) > len(images) // 2
    event = engine.process(packed)
    assert [(e.type, e.thread_id) for e in event.exceptions or ()] == [("DUMP_REQUESTED", pid)]
    assert all(len(t.frames or ()) > 2 for t in event.threads or ())
    encode_event(event)


@pytest.mark.usefixtures("traced")
@pytest.mark.skipif(shutil.which("gcore") is None, reason="needs gcore")
def test_the_same_frames_as_of_a_core_by_gcore(engine: Engine, tmp_path: Path) -> None:
    with running() as pid:
        asleep(pid)
        packed = made(str(pid), tmp_path)
        asleep(pid)
        # A snapshot has the code that tells return addresses from chance; gcore leaves out what a file has.
        Path(f"/proc/{pid}/coredump_filter").write_text("0xff")
        subprocess.run(["gcore", "-o", str(tmp_path / "core"), str(pid)], capture_output=True, check=True, timeout=60)
    core, snap = engine.process(tmp_path / f"core.{pid}"), engine.process(packed)
    stacks = [
        {t.id: [(f.instruction_addr, f.rva, f.package, f.trust) for f in t.frames or ()] for t in event.threads or ()}
        for event in (core, snap)
    ]
    assert stacks[0] == stacks[1]
    assert [(m.code_file, m.image_addr, m.debug_id) for m in core.modules or ()] == [
        (m.code_file, m.image_addr, m.debug_id) for m in snap.modules or ()
    ]
    assert packed.stat().st_size * 20 < (tmp_path / f"core.{pid}").stat().st_size


@pytest.mark.usefixtures("traced")
def test_a_signal_on_its_way_is_delivered(tmp_path: Path) -> None:
    script = "import signal, time\nsignal.signal(signal.SIGUSR1, lambda *_: print('got', flush=True))\n"
    script += "print('ready', flush=True)\nwhile True: time.sleep(0.001)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        try:
            for _ in range(5):
                child.send_signal(10)
                made(str(child.pid), tmp_path)
                assert child.stdout.readline() == b"got\n"
        finally:
            child.kill()


def test_a_process_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(store=str(tmp_path / "store"))
    said, done = run(config, "4194305", str(tmp_path / "x"))
    assert (done, said) == (False, "4194305: source_unavailable: process 4194305: No such file or directory")
    # A file whose name is a number is a file.
    (tmp_path / "4711").write_bytes(pack(snapshot_report()))
    monkeypatch.chdir(tmp_path)
    assert run(config, "4711", str(tmp_path / "x"))[1]


def test_a_process_that_ends_meanwhile(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as child:
        child.wait()
        said, done = run(Config(store=str(tmp_path / "store")), str(child.pid), str(tmp_path / "x"))
    assert not done
    assert "source_unavailable" in said


def test_backtrace_reports_are_no_dumps(tmp_path: Path) -> None:
    import json

    (tmp_path / "a.json").write_text(json.dumps(report()))
    said, done = run(Config(store=str(tmp_path / "store")), str(tmp_path / "a.json"), str(tmp_path / "x"))
    assert (done, said.endswith("this is a backtrace-json report")) == (False, True)
