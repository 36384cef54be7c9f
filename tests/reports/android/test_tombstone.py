"""Tombstones: protobuf, text and logcat say the same; what each line and field becomes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from deadreckon import process
from deadreckon.config import ReportLimits
from deadreckon.errors import LimitExceeded, Malformed
from deadreckon.reports import Probe, detect
from deadreckon.reports.android import tombstone
from synth.tombstone import DASHES, STARS, Frame, Map, Thread, sample, to_logcat, to_proto, to_text

if TYPE_CHECKING:
    from deadreckon.model.crash import RawCrash

LIMITS = ReportLimits()


def read(data: bytes | str) -> list[RawCrash]:
    raw = data.encode() if isinstance(data, str) else data
    form = detect(Probe(raw))
    assert form is not None
    assert form.name == "tombstone"
    return tombstone.read(memoryview(raw), LIMITS)


def said(crash: RawCrash, *, addresses: bool = True) -> dict[str, object]:
    """Return what both forms of a tombstone tell, comparable."""
    modules = {m.image_addr: m for m in crash.modules}
    threads = []
    for thread in crash.threads:
        frames = []
        for frame in thread.frames or ():
            reported = frame.reported
            assert reported is not None
            owner = next((m for m in modules.values() if m.image_addr <= (frame.instruction_addr or 0) < m.end), None)
            build = owner.code_id if owner else None
            here = (reported.function, reported.module, reported.package, reported.rva, build, frame.is_return_address)
            frames.append((*here, frame.instruction_addr) if addresses else here)
        registers = thread.registers.as_hex() if thread.registers else None
        threads.append((thread.id, thread.name, thread.crashed, registers, frames))
    return {
        "arch": crash.arch,
        "os": (crash.os_name, crash.os_version, crash.os_build),
        "process": (crash.process_name, crash.pid, crash.uptime_s, crash.timestamp, crash.message),
        "exceptions": [(e.type, e.value, e.code, e.address, e.thread_id) for e in crash.exceptions],
        "threads": sorted(threads),
        "modules": sorted((m.image_addr, m.image_size, m.code_file, m.code_id, m.debug_id) for m in crash.modules),
        "cause": crash.attributes.get("cause"),
        "memory": (crash.memory.read(0x7FF0700000, 64), crash.memory.read(0x7000004A60, 32)),
        "regions": crash.regions
        and [c.tolist() for c in (crash.regions.start, crash.regions.end, crash.regions.access)],
    }


def test_text_and_protobuf_agree() -> None:
    for changes in (
        {},
        {"abort_message": "assertion failed: x > 0", "causes": ["null pointer dereference"]},
        {"sender": (1, 0), "fault_address": None, "signal_name": "SIGABRT", "code": -6, "code_name": "SI_TKILL"},
        {"freed": [Frame(0x100, 0x7100000100, "free", 4, "/system/lib64/libc.so", 0, "ab" * 16)], "causes": ["UAF"]},
        {"tid": 107},
    ):
        tomb = sample(**changes)
        memory, tomb.threads[0].memory = tomb.threads[0].memory, []
        next(t for t in tomb.threads if t.id == tomb.tid).memory = memory
        message, text = read(to_proto(tomb)), read(to_text(tomb))
        assert len(message) == len(text) == 1
        # Where memory was freed stands in a library that no map has.
        expected = said(message[0], addresses="freed" not in changes)
        assert said(text[0], addresses="freed" not in changes) == expected


def test_what_a_tombstone_becomes() -> None:
    crash = read(to_proto(sample(abort_message="it broke")))[0]
    assert (crash.format, crash.arch, crash.os_version, crash.os_build) == (
        "tombstone",
        "arm64",
        "14",
        "UQ1A.240105.004",
    )
    assert (crash.process_name, crash.pid, crash.uptime_s, crash.message) == ("com.acme.app", 100, 12.0, "it broke")
    assert crash.timestamp == pytest.approx(1706929506)
    assert [(e.type, e.value, e.code, e.address) for e in crash.exceptions] == [
        ("SIGSEGV", "SEGV_MAPERR at 0x10", 11, 0x10)
    ]
    assert crash.exceptions[0].thread_id == crash.threads[0].id == 100
    assert [t.crashed for t in crash.threads] == [True, False]
    assert crash.threads[0].registers is not None
    assert crash.threads[0].registers.pc == 0x7000004A7C
    names = [(m.image_addr, m.image_size, m.code_file, m.file_offset) for m in crash.modules]
    assert names == [
        (0x7000000000, 0x9000, "/data/app/lib/arm64/libapp.so", 0),
        (0x7100000000, 0x80000, "/apex/com.android.runtime/lib64/bionic/libc.so", 0),
        (0x7200000000, 0x4000, "/data/app/base.apk!libgame.so", 0x20000),
    ]
    assert crash.modules[0].code_id == "11" * 20
    assert crash.modules[0].debug_id == "11111111-1111-1111-1111-111111111111"
    assert crash.memory.read(0x7FF0700001, 3) == b"\1\2\3"
    assert crash.regions is not None
    assert crash.regions.access.tolist() == [1, 5, 0, 3, 1, 5, 5, 5, 3]
    assert not crash.diagnostics


def test_no_address_is_a_return_address() -> None:
    for crash in (*read(to_proto(sample())), *read(to_text(sample()))):
        assert not any(f.is_return_address for t in crash.threads for f in t.frames or ())


def test_frames_of_java_are_in_no_module() -> None:
    frame = read(to_text(sample()))[0].threads[0].frames[3]  # type: ignore[index]
    assert frame.instruction_addr is None
    assert frame.reported is not None
    assert (frame.reported.lang, frame.reported.module, frame.reported.function) == ("java", "E3.A", "run")


def test_a_mangled_name_is_demangled() -> None:
    tomb = sample()
    tomb.threads[0].frames[0].function = "_ZN4acme5crashEPi"
    event = process(to_text(tomb).encode())
    assert event.threads
    frame = (event.threads[0].frames or [])[0]
    assert (frame.function, frame.raw_function) == ("acme::crash(int*)", "_ZN4acme5crashEPi")
    assert frame.instruction_addr == "0x7000004a7c"


def test_several_in_one_log() -> None:
    first, second = sample(), sample(pid=200, tid=200, signal=6, signal_name="SIGABRT")
    second.threads = [replace(t, id=200 + n) for n, t in enumerate(second.threads)]
    noise = "02-03 04:05:06.999  1000  1001 I Zygote  : Process 100 exited due to signal 11\n"
    log = "--------- beginning of crash\n" + to_logcat(to_text(first)) + noise + to_logcat(to_text(second), 99)
    log += to_logcat(to_text(first))
    crashes = read(log)
    assert [c.exceptions[0].type for c in crashes] == ["SIGSEGV", "SIGABRT"]
    assert said(crashes[0]) == said(read(to_proto(first))[0])
    assert said(crashes[1]) == said(read(to_proto(second))[0])


def test_java_crashes_in_the_same_log() -> None:
    java = "FATAL EXCEPTION: main\nProcess: com.acme.app, PID: 7\njava.lang.Error: no\n\tat a.b.c(D.java:1)\n"
    log = to_logcat(to_text(sample())) + "".join(
        f"02-03 04:05:07.000     7     7 E AndroidRuntime: {line}\n" for line in java.splitlines()
    )
    assert [(c.format, c.pid) for c in read(log)] == [("tombstone", 100), ("java", 7)]


def test_the_tail_of_the_log_is_no_second_crash() -> None:
    text = to_text(sample()) + to_logcat(STARS + "\n      #00 pc 0000000000001234  /system/lib64/libother.so\n")
    assert len(read(text)) == 1


def test_noise_between_frames() -> None:
    lines = to_text(sample()).splitlines()
    at = next(i for i, line in enumerate(lines) if "#01" in line)
    lines.insert(at, "AM write failed: Broken pipe")
    assert said(read("\n".join(lines))[0]) == said(read(to_text(sample()))[0])


def test_old_forms() -> None:
    text = f"""
{STARS}
Build fingerprint: google/hammerhead/hammerhead:4.4.4/KTU84P/1227136:userdebug/dev-keys
Revision: 11
pid: 14573, tid: 14630, name: CompositorTileW  >>> com.google.chrome:sandboxed_process10 <<<
signal 11 (SIGSEGV), fault addr deadbaad
    r0 00000000  r1 00003926  r2 00000006  r3 00000000
    ip 00000001  sp 7c7ff5d0  lr 400ee30d  pc 400fd4a8  cpsr 000f0010

backtrace:
    #00  pc 000224a8  /system/lib/libc.so (tgkill+12)
    #01  pc 00013309  /system/lib/libc.so (pthread_kill+48)

stack:
         7c7ff590  00000000
         #00  7c7ff5d0  00000000
{DASHES}
pid: 14573, tid: 14573, name: com.google.chrome  >>> com.google.chrome:sandboxed_process10 <<<
    r0 00000001  r1 00003926  r2 00000006  r3 00000000

backtrace:
    #00  pc 000207b8  /system/lib/libc.so (epoll_wait+12)
"""
    (crash,) = read(text)
    assert (crash.arch, crash.os_version, crash.pid) == ("arm", "4.4.4", 14573)
    assert crash.exceptions[0].address == 0xDEADBAAD
    assert [(t.id, t.crashed, len(t.frames or ())) for t in crash.threads] == [(14630, True, 2), (14573, False, 1)]
    assert crash.threads[0].registers is not None
    assert crash.threads[0].registers.as_hex()["pc"] == "0x400fd4a8"
    # Without maps and build ids, offsets in files are all there is.
    assert [(m.code_file, m.relative) for m in crash.modules] == [("/system/lib/libc.so", True)]
    event = process(text.encode())
    frames = (event.threads or [])[0].frames or []
    assert [(f.function, f.rva, f.instruction_addr, f.image_addr) for f in frames] == [
        ("tgkill", "0x224a8", None, None),
        ("pthread_kill", "0x13309", None, None),
    ]
    assert [(m.image_addr, m.image_size) for m in event.modules or ()] == [(None, None)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("#00 pc 0000e4fc  test.apk!libbase.so (offset 0x1000)", ("test.apk!libbase.so", 0x1000, None, None, None)),
        ("#01 pc 0002a019  libc.so!libc.so (pthread_atfork)", ("libc.so", 0, "pthread_atfork", None, None)),
        (
            "#02 pc 00063b76  /system/lib/libc.so (wait(sem_t*, bool (*)(int))+68) (BuildId: CD193f)",
            ("/system/lib/libc.so", 0, "wait(sem_t*, bool (*)(int))", 68, "cd193f"),
        ),
        (
            "  #16 pc 000000000208af34  /memfd:jit-cache (deleted) (offset 0x2000000) (art_jni_trampoline+116)",
            ("/memfd:jit-cache (deleted)", 0x2000000, "art_jni_trampoline", 116, None),
        ),
        ("  #17 pc 000000000208af34  /memfd:jit-cache (deleted)", ("/memfd:jit-cache (deleted)", 0, None, None, None)),
        (
            "native: #00 pc 000000000009f8a8  /apex/lib.so (C::W(T*)::'lambda'(std::lock&)::operator()() const+216)",
            ("/apex/lib.so", 0, "C::W(T*)::'lambda'(std::lock&)::operator()() const", 216, None),
        ),
        ("#03 pc 0000000000000000  <unknown>", (None, 0, None, None, None)),
        ("#03 pc 0000000000000010  /a/b.so (cut(off, in the mi", ("/a/b.so", 0, None, None, None)),
    ],
)
def test_frame_lines(line: str, expected: tuple[object, ...]) -> None:
    from deadreckon.reports.android.lines import parse_frame

    found = parse_frame(line)
    assert found is not None
    frame = found[1]
    assert (
        frame.file_name, frame.file_map_offset, frame.function_name, frame.function_offset, frame.build_id,
    ) == expected  # fmt: skip


@pytest.mark.parametrize(
    "line", ["#0 0x1234 in f", "  at a.b.c(D.java:1)", "pc 1234", "#00 pc xyz /a", "pid: 1, tid: 2"]
)
def test_other_lines_are_no_frames(line: str) -> None:
    from deadreckon.reports.android.lines import parse_frame

    assert parse_frame(line) is None


def test_pointer_tags() -> None:
    tagged, wild = (read(to_proto(sample(fault_address=a)))[0] for a in (0xB400007ABCDEF010, 0x4141414141414141))
    assert tagged.exceptions[0].address == 0x7ABCDEF010
    assert tagged.attributes["fault_address_tag"] == "0xb4"
    assert wild.exceptions[0].address == 0x4141414141414141


def test_a_library_mapped_twice() -> None:
    """Without an address nothing tells which copy a frame is in; its build is known all the same."""
    tomb = sample()
    copy = [replace(m, begin=m.begin + 0x50000000, end=m.end + 0x50000000) for m in tomb.maps if "libc.so" in m.name]
    tomb.maps += copy
    text, message = read(to_text(tomb))[0], read(to_proto(tomb))[0]
    assert said(text, addresses=False)["threads"] == said(message, addresses=False)["threads"]
    assert [m.code_file.rpartition("/")[2] for m in text.modules if m.relative] == ["libc.so"]
    assert not any(m.relative for m in message.modules)


def test_a_frame_that_contradicts_the_maps() -> None:
    """The report's own offset in the file counts, and the address stays what it was."""
    tomb = sample()
    tomb.threads[0].frames[1].rel_pc = 0x999
    event = process(to_proto(tomb))
    frame = ((event.threads or [])[0].frames or [])[1]
    assert (frame.rva, frame.instruction_addr, frame.image_addr) == ("0x999", "0x7100010100", None)


def test_guest_threads_are_the_programs() -> None:
    from synth.protobuf import blob, number
    from synth.tombstone import thread_message

    guest = Thread(100, "main", [("r0", 1)], [Frame(0x10, 0x1010, "guest", 0, "/system/lib/arm/libc.so", 0, "aa" * 16)])
    message = to_proto(sample(arch=3)) + blob(25, number(1, 100) + blob(2, thread_message(guest))) + number(24, 0)
    crash = read(message)[0]
    assert crash.arch == "arm"
    assert [f.reported and f.reported.function for f in crash.threads[0].frames or ()] == ["guest"]


def test_limits() -> None:
    few = ReportLimits(max_threads=1, max_modules=2, max_regions=3)
    for data in (to_proto(sample()), to_text(sample()).encode()):
        (crash,) = tombstone.read(memoryview(data), few)
        assert len(crash.threads) == 1
        assert len(crash.modules) <= 2
        assert "limit_exceeded" in {d.code for d in crash.diagnostics}
        with pytest.raises(LimitExceeded):
            tombstone.read(memoryview(data), ReportLimits(max_bytes=100))


def test_nothing_of_a_crash() -> None:
    for data in (b"\x08\x01", b"hello\n" * 10, b"\x12\x02ab" + bytes(20)):
        with pytest.raises(Malformed):
            tombstone.read(memoryview(data), LIMITS)


def test_cut_short() -> None:
    whole = to_proto(sample())
    crash = tombstone.read(memoryview(whole[: len(whole) // 2]), LIMITS)[0]
    assert [d.code for d in crash.diagnostics] == ["truncated"]
    assert crash.threads


def test_overlapping_and_impossible_maps() -> None:
    tomb = sample()
    tomb.maps += [
        Map(0x7000002000, 0x7000009000, 0, 1, 0, 1, "/x.so", "cc" * 20),
        Map(0x9000, 0x8000, 0, 1, 0, 1, "/y.so", "dd" * 20),
        Map(0xFFFFFFFFFFFFF000, 0xFFFFFFFFFFFFFFFF, 0, 1, 0, 1, "/z.so", "ee" * 20),
    ]
    crash = read(to_proto(tomb))[0]
    spans = sorted((m.image_addr, m.end) for m in crash.modules)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert process(to_proto(tomb)).status == "ok"
