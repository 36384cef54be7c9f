"""Real tombstones and backtraces, against what their own repositories state of them."""

from __future__ import annotations

import gzip
import json
import random
import re
from typing import TYPE_CHECKING

import pytest

from deadreckon import Engine
from deadreckon.config import ReportLimits
from deadreckon.errors import DeadreckonError
from deadreckon.reports.android import anr, tombstone
from synth.tombstone import from_proto, to_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from deadreckon.model.crash import RawCrash
    from deadreckon.model.event import Frame

pytestmark = pytest.mark.corpus
LIMITS = ReportLimits()


@pytest.fixture
def other(corpus: Path) -> Path:
    return corpus / "other"


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as made:
        yield made


def message(folder: Path, name: str) -> bytes:
    return gzip.decompress((folder / "tombstone" / name).read_bytes())


def test_images_are_those_of_sentrys_sdk(other: Path) -> None:
    (crash,) = tombstone.read(memoryview(message(other, "tombstone.pb.gz")), LIMITS)
    expected = json.loads(gzip.decompress((other / "tombstone/tombstone_debug_meta.json.gz").read_bytes()))["images"]
    assert len(expected) == 352
    found = [
        {
            "type": "elf",
            "debug_id": m.debug_id,
            "code_id": m.code_id,
            "code_file": m.code_file,
            "image_addr": hex(m.image_addr),
            "image_size": m.image_size,
        }
        for m in crash.modules
    ]
    assert found == expected


def test_the_crashed_frame(other: Path, engine: Engine) -> None:
    event = engine.process(other / "tombstone/tombstone.pb.gz")
    assert (event.status, event.source.format) == ("ok", "tombstone")
    assert len(event.threads or ()) == 62
    thread = next(t for t in event.threads or () if t.crashed)
    frame = (thread.frames or [])[0]
    assert (frame.rva, (frame.package or "").rpartition("/")[2]) == ("0xa7c", "libnative-sample.so")
    assert frame.debug_id == "1f53f264-a4cb-5da9-aeaf-6a4c899d517b"
    assert frame.function == "Java_io_sentry_samples_android_NativeSample_crash"


@pytest.mark.parametrize("name", ["tombstone.pb.gz", "hist_tombstone_r8.pb.gz"])
def test_offsets_are_the_reports_own(other: Path, engine: Engine, name: str) -> None:
    """Every frame in a library is found in it where debuggerd found it, and none moved by an instruction."""
    event = engine.process(other / "tombstone" / name)
    told = {t.id: [(hex(f.rel_pc), hex(f.pc)) for f in t.frames] for t in from_proto(message(other, name)).threads}
    found = {t.id: [(f.rva, f.instruction_addr) for f in t.frames or ()] for t in event.threads or ()}
    assert found == told


@pytest.mark.parametrize("name", ["tombstone.pb.gz", "hist_tombstone_r8.pb.gz"])
def test_as_text(other: Path, name: str) -> None:
    """As debuggerd writes it as text, a tombstone says the same but addresses, where a library is mapped twice."""
    data = message(other, name)
    (one,) = tombstone.read(memoryview(data), LIMITS)
    (two,) = tombstone.read(memoryview(to_text(from_proto(data)).encode()), LIMITS)
    assert told(two) == told(one)
    relative = {m.code_file for m in two.modules if m.relative}
    assert len(relative) < 8
    assert [m for m in two.modules if not m.relative] == one.modules
    assert (two.timestamp, two.pid, two.process_name, two.os_build) == (
        one.timestamp, one.pid, one.process_name, one.os_build,
    )  # fmt: skip
    assert two.exceptions == one.exceptions
    assert len(one.memory.start) == len(two.memory.start) > 0
    assert all(
        one.memory.read(start, end - start) == two.memory.read(start, end - start)
        for start, end in zip(one.memory.start.tolist(), one.memory.end.tolist(), strict=True)
    )


def told(crash: RawCrash) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for thread in sorted(crash.threads, key=lambda t: t.id):
        frames = [f.reported for f in thread.frames or ()]
        rows = [(f.package, f.rva, f.module, f.function or f.raw_function) for f in frames if f]
        found.append((thread.id, thread.name, thread.crashed, rows))
    return found


def test_ndk_stack(other: Path, engine: Engine) -> None:
    """The project's own test of ndk-stack; libc.so is missing here, so the package has to do for it."""
    folder = other / "ndkstack"
    event = engine.process(folder / "backtrace.txt", symbols=[str(folder)])
    frames = [_short(f) for f in (event.threads or [])[0].frames or ()]
    remove = "android::base::RemoveFileIfExists system/core/base/file.cpp:365"
    run = "android::Thread::run system/core/libutils/Threads.cpp:665"
    base = "MappedZipFile::GetBasePtr system/core/libziparchive/zip_archive.cc:1155"
    fork = "pthread_atfork"
    expected = [remove, remove, "__memcpy_a15", "__memcpy_a15", "Demangler::Parse", "Demangler::Parse", run, run]
    expected += [base, base, "", base, base, "", "", "", fork, fork, fork, fork]
    assert frames == expected
    wrong = [m for m in event.modules or () if m.code_id in {"bad012345", "bad01245"}]
    assert [(m.code_file, m.symbols) for m in wrong] == [
        ("test.apk", "mismatch"),
        ("test.apk!libziparchive.so", "mismatch"),
        ("libc.so", "missing"),
    ]
    unsure = [d.message for d in event.diagnostics or () if d.code == "symbols_by_name"]
    assert len(unsure) == 10


def _short(frame: Frame) -> str:
    place = f" {frame.abs_path}:{frame.lineno}" if frame.lineno else ""
    return f"{re.split(r'[(]', frame.function or '')[0]}{place}"


def test_ndk_stack_with_hwasan(other: Path, engine: Engine) -> None:
    event = engine.process(other / "ndkstack/hwasan.txt")
    kinds = [(e.type, e.address, e.mechanism) for e in event.exceptions or ()]
    assert kinds == [("SIGABRT", None, "tombstone"), ("tag-mismatch", "0x42a0807af0", "HWAddressSanitizer")]
    app = "/data/app/com.example.hellohwasan-MBZF010sEpmy2cZikx49pQ==/lib/arm64/libc64.so"
    wrong = [(f.package, f.rva, f.instruction_addr) for f in (event.exceptions or [])[1].frames or ()]
    assert wrong == [
        (app, "0x7b138", "0x7b23b87868"),
        ("/apex/com.android.art/lib64/libart.so", "0x198ccc", "0x7b8f1e4ccc"),
    ]
    stacks = [[(f.function, f.package, f.rva) for f in t.frames or ()] for t in event.threads or ()]
    assert stacks == [[("abort", "/system/lib64/bootstrap/libc64.so", "0x7f3ec")], [(None, app, "0x7b15c")]]


def test_ndk_stack_with_several(other: Path, engine: Engine) -> None:
    events = list(engine.process_all(other / "ndkstack/multiple.txt"))
    assert [(e.arch, e.title) for e in events] == [("arm64", "SIGABRT in abort"), ("arm", "SIGSEGV in __sem_timedwait")]
    assert events[0].message == "FORTIFY: strlcat: prevented 5-byte write into 4-byte buffer"
    assert [m.debug_id for e in events for m in e.modules or ()] == [
        "260308d0-effb-9853-0488-aedd32b02f5d",
        "753f19cd-854b-bc35-662d-d794f63b7891",
    ]


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (tombstone.read, "tombstone/hist_tombstone_r8.pb.gz"),
        (tombstone.read, "ndkstack/multiple.txt"),
        (tombstone.read, "ndkstack/hwasan.txt"),
        (anr.read, "anr/thread_dump.txt"),
        (anr.read, "anr/thread_dump_bad_data.txt"),
    ],
)
def test_mutants(other: Path, read: Callable[[memoryview, ReportLimits], list[RawCrash]], name: str) -> None:
    """Cut short or damaged, a report gives crashes or an error of ours."""
    data = (other / name).read_bytes()
    good = gzip.decompress(data) if name.endswith(".gz") else data
    rng = random.Random(name)
    cases = [good[: len(good) * n // 20] for n in range(20)]
    for _ in range(25):
        damaged = bytearray(good)
        for _ in range(rng.choice((1, 10, 100))):
            at = rng.randrange(len(damaged))
            damaged[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
        cases.append(bytes(damaged))
    for case in cases:
        try:
            assert read(memoryview(case), LIMITS)
        except DeadreckonError:
            pass
