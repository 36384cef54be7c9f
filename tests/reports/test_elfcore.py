"""The reader of ELF cores: built cores of each machine, what their notes and their memory say, what is refused."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from deadreckon import Engine, objects, reports
from deadreckon.config import ReportLimits
from deadreckon.errors import LimitExceeded, Malformed, Unsupported
from deadreckon.model.ids import Arch, DebugId
from deadreckon.model.registers import REGISTER_SETS
from deadreckon.reports.elfcore import read
from deadreckon.unwind import arm64
from synth.elfcore import BUILD_ID, EXECUTE, PAGE, READ, USER_REGS, WRITE, Core, linked, whole

if TYPE_CHECKING:
    from deadreckon.model.crash import RawCrash

LIMITS = ReportLimits()
ARCHES = {62: Arch.X86_64, 3: Arch.X86, 40: Arch.ARM, 183: Arch.ARM64}


def read_core(core: Core) -> RawCrash:
    return read(core.finish(), LIMITS)


def codes(crash: RawCrash) -> list[str]:
    return [d.code for d in crash.diagnostics]


@pytest.mark.parametrize("machine", ARCHES)
def test_everything_that_a_core_says(machine: int) -> None:
    crash = read_core(whole(machine))
    assert crash.diagnostics == []
    assert (crash.format, crash.arch, crash.os_name, crash.os_version) == ("elfcore", ARCHES[machine], "Linux", "6.1.7")
    assert (crash.process_name, crash.pid) == ("crashing-program", 70)
    assert crash.attributes == {"cmdline": "/opt/crashing-program --fast", "entry_point": "0x401010"}
    assert [(t.id, t.crashed) for t in crash.threads] == [(71, True), (70, False)]
    (exception,) = crash.exceptions
    assert (exception.type, exception.value, exception.code) == ("SIGSEGV", "SEGV_MAPERR at 0x18", 11)
    assert (exception.address, exception.thread_id) == (0x18, 71)
    vdso = "linux-gate.so.1" if machine == 3 else "linux-vdso.so.1"
    assert [(m.image_addr, m.image_size, m.code_file, m.code_id) for m in crash.modules] == [
        (0x40_0000, 0x20_2000, "/opt/crashing-program", BUILD_ID.hex()),
        (0x6000_0000, 0x2000, "/lib/libx.so.1", None),
        (0x7000_0000, 0x2000, vdso, BUILD_ID[::-1].hex()),
    ]
    program, library, held = crash.modules
    assert (program.contents, library.contents) == (None, None)
    assert held.contents == whole(machine).image(0x1000, BUILD_ID[::-1], size=0x2000, kernel=(6, 1, 7))
    assert program.debug_id == str(DebugId.from_build_id(BUILD_ID))
    assert (program.debug_file, program.arch) == (program.code_file, ARCHES[machine])


@pytest.mark.parametrize("machine", ARCHES)
def test_each_register_is_at_its_dwarf_number(machine: int) -> None:
    core = Core(machine)
    core.thread(1, 4)
    held = read_core(core).threads[0].registers
    assert held is not None
    known = REGISTER_SETS[ARCHES[machine]]
    words = USER_REGS[machine].split()
    for number, name in enumerate(known.names):
        assert held.get(number) == 0x1000 + words.index(name), name
    assert held.valid.bit_count() == len(known.names)


def test_memory_is_what_the_file_holds_and_nothing_more() -> None:
    core = Core()
    core.thread(1, 11)
    core.load(0x1000, b"\x11" * PAGE, READ, 4 * PAGE)
    core.load(0x5000, b"", READ | EXECUTE, PAGE)
    core.load(0x6000, b"\x22" * 2 * PAGE, WRITE)
    core.load(0xFFFF_FFFF_FF60_0000, b"\x33" * PAGE, EXECUTE)
    crash = read_core(core)
    assert crash.memory.read(0x1FF0, 16) == b"\x11" * 16
    assert crash.memory.read(0x2000, 1) is None
    assert crash.memory.read(0x5000, 1) is None
    assert crash.memory.read(0x6000, 2 * PAGE) == b"\x22" * 2 * PAGE
    assert crash.memory.read(0xFFFF_FFFF_FF60_0FFF, 1) == b"\x33"
    assert crash.regions is not None
    assert crash.regions.start.tolist() == [0x1000, 0x5000, 0x6000, 0xFFFF_FFFF_FF60_0000]
    assert crash.regions.end.tolist() == [0x5000, 0x6000, 0x8000, 0xFFFF_FFFF_FF60_1000]
    assert crash.regions.access.tolist() == [1, 5, 2, 4]


def test_a_core_of_which_no_mapping_holds_code_says_nothing_of_access() -> None:
    core = Core()
    core.thread(1, 11)
    core.load(0x1000, bytes(16), 0)
    assert read_core(core).regions is None


def test_mappings_that_gcore_leaves_out_have_the_access_that_their_image_tells() -> None:
    """It writes no segment for what it does not dump, so of all code only the vdso's would be known."""
    core = Core()
    core.thread(1)
    core.auxv(sysinfo_ehdr=0x70_0000)
    path = "/lib/libx.so"
    core.files(
        (0x10_0000, 0x10_1000, 0, path),
        (0x10_1000, 0x10_3000, 1, path),
        (0x10_3000, 0x10_4000, 3, path),
        (0x20_0000, 0x20_1000, 0, "/usr/share/table.dat"),
    )
    core.load(0x10_0000, core.image(0x3000, BUILD_ID), READ)
    core.load(0x10_3000, bytes(PAGE), READ | WRITE)
    core.load(0x70_0000, core.image(PAGE, BUILD_ID), READ | EXECUTE)
    regions = read_core(core).regions
    assert regions is not None
    assert list(zip(regions.start.tolist(), regions.end.tolist(), regions.access.tolist(), strict=True)) == [
        (0x10_0000, 0x10_1000, 1),
        (0x10_1000, 0x10_3000, 5),
        (0x10_3000, 0x10_4000, 3),
        (0x70_0000, 0x70_1000, 5),
    ]


def test_a_vdso_larger_than_any_is_cut() -> None:
    core = Core()
    core.thread(1, 11)
    core.auxv(sysinfo_ehdr=0x70_0000)
    core.load(0x70_0000, core.image(1 << 20, BUILD_ID, size=1 << 20), READ | EXECUTE)
    (vdso,) = read_core(core).modules
    assert vdso.contents is not None
    assert len(vdso.contents) == 1 << 16


def test_two_copies_of_one_file_are_two_modules() -> None:
    core = Core()
    core.thread(1, 11)
    path = "/lib/plugin.so"
    core.files(
        *((base + at, base + at + PAGE, at // PAGE, path) for base in (0x10_0000, 0x10_2000) for at in (0, PAGE))
    )
    for base in (0x10_0000, 0x10_2000):
        core.load(base, core.image(2 * PAGE, BUILD_ID), READ)
        core.load(base + PAGE, b"", READ | EXECUTE, PAGE)
    crash = read_core(core)
    assert [(m.image_addr, m.image_size) for m in crash.modules] == [(0x10_0000, 0x2000), (0x10_2000, 0x2000)]


def test_mappings_that_both_begin_with_the_files_first_page_are_one_module() -> None:
    """Of a small program the data share the page with the ELF header, and are mapped from it again."""
    core = Core()
    core.thread(1, 11)
    core.files((0x40_0000, 0x40_1000, 0, "/tiny"), (0x60_0000, 0x60_1000, 0, "/tiny"))
    head = core.image(0x20_1000, BUILD_ID, vaddr=0x40_0000, kind=2)
    core.load(0x40_0000, head, READ | EXECUTE)
    core.load(0x60_0000, head)
    (module,) = read_core(core).modules
    assert (module.image_addr, module.image_size, module.code_id) == (0x40_0000, 0x20_1000, BUILD_ID.hex())


def test_code_mapped_from_the_middle_of_a_file_is_no_module_without_its_header() -> None:
    core = Core()
    core.thread(1, 11)
    core.files((0x10_0000, 0x10_1000, 5, "/system/app.apk"), (0x20_0000, 0x20_1000, 0, "/dev/zero"))
    core.load(0x10_0000, b"", READ | EXECUTE, PAGE)
    core.load(0x20_0000, b"\xcc" * PAGE, READ | EXECUTE)
    assert read_core(core).modules == []
    core.segments[0] = replace(core.segments[0], data=core.image(PAGE, BUILD_ID))
    (module,) = read_core(core).modules
    assert (module.image_addr, module.code_file) == (0x10_0000, "/system/app.apk")


def test_the_vdso_in_a_gap_of_the_linker_ends_it() -> None:
    core = Core()
    core.thread(1, 11)
    core.auxv(sysinfo_ehdr=0x12_0000)
    core.files((0x10_0000, 0x11_0000, 0, "/lib/ld.so"), (0x13_0000, 0x13_1000, 1, "/lib/ld.so"))
    core.load(0x10_0000, b"", READ | EXECUTE, 0x1_0000)
    core.load(0x12_0000, core.image(PAGE, BUILD_ID), READ | EXECUTE)
    core.load(0x13_0000, b"", WRITE, PAGE)
    crash = read_core(core)
    assert [(m.image_addr, m.end) for m in crash.modules] == [(0x10_0000, 0x12_0000), (0x12_0000, 0x12_1000)]
    assert crash.diagnostics == []


@pytest.mark.parametrize("machine", ARCHES)
@pytest.mark.parametrize("headers", [True, False])
def test_without_a_list_of_files_the_dynamic_linkers_list_tells(machine: int, headers: bool) -> None:
    crash = read_core(linked(machine, headers=headers))
    assert [(m.image_addr, m.image_size, m.code_file) for m in crash.modules] == [
        (0x40_0000, 0x3000, "./prog"),
        (0x5000_0000, 0x3000, "/lib/libx.so"),
        (0x5010_0000, 0x3000, "/lib/ld.so"),
    ]
    assert {m.code_id for m in crash.modules} == {BUILD_ID.hex() if headers else None}
    assert (crash.process_name, crash.diagnostics) == ("prog", [])


def test_a_word_that_only_looks_like_the_linkers_list_is_none() -> None:
    core = linked(62, headers=False)
    page = bytearray(core.segments[2].data)
    page[0x400 + 32 : 0x400 + 40] = core.words(0x5020_0000)  # r_ldbase of another interpreter
    core.segments[2] = replace(core.segments[2], data=bytes(page))
    assert [m.code_file for m in read_core(core).modules] == ["./prog"]


def test_a_list_of_images_in_a_circle_ends() -> None:
    core = linked(62, headers=True)
    page = bytearray(core.segments[2].data)
    page[0x580 + 24 : 0x580 + 32] = core.words(0x40_2500)
    core.segments[2] = replace(core.segments[2], data=bytes(page))
    assert len(read_core(core).modules) == 3


def stopped(signals: list[tuple[int, tuple[int, int, int] | None]]) -> RawCrash:
    """Return a crash of threads with (pr_cursig, siginfo's signal, code and address)."""
    core = Core()
    for tid, (signal, info) in enumerate(signals, 1):
        core.thread(tid, signal)
        if info is not None:
            core.siginfo(*info)
    return read_core(core)


@pytest.mark.parametrize(
    ("signals", "thread", "kind", "value", "address"),
    [
        # The kernel: all have the signal, the first has its siginfo.
        ([(11, (11, 2, 0x40)), (11, None)], 1, "SIGSEGV", "SEGV_ACCERR at 0x40", 0x40),
        ([(6, (6, -6, 0x1234)), (6, None)], 1, "SIGABRT", "SI_TKILL", None),
        ([(11, (11, 0, 0x3E8_0000_1234))], 1, "SIGSEGV", "SI_USER", None),
        ([(7, (7, 0x80, 0))], 1, "SIGBUS", "SI_KERNEL", None),
        # qemu: no siginfo, and a signal in one thread only.
        ([(11, None), (0, None)], 1, "SIGSEGV", "", None),
        ([(0, None), (4, None)], 2, "SIGILL", "", None),
        # gdb: each thread has its own.
        ([(0, (19, 0, 0)), (0, (8, 1, 0x77))], 2, "SIGFPE", "FPE_INTDIV at 0x77", 0x77),
        # siginfo of an earlier signal.
        ([(11, (17, 1, 0x55))], 1, "SIGSEGV", "", None),
        ([(64, None)], 1, "0x00000040", "", None),
    ],
)
def test_signal_and_crashed_thread(
    signals: list[tuple[int, tuple[int, int, int] | None]], thread: int, kind: str, value: str, address: int | None
) -> None:
    crash = stopped(signals)
    assert [t.id for t in crash.threads if t.crashed] == [thread]
    (exception,) = crash.exceptions
    assert (exception.type, exception.value, exception.address, exception.thread_id) == (kind, value, address, thread)


@pytest.mark.parametrize("signals", [[(0, (19, 0, 0)), (0, (19, 0, 0))], [(0, None)], [(19, None), (19, None)]])
def test_a_snapshot_is_no_crash(signals: list[tuple[int, tuple[int, int, int] | None]]) -> None:
    crash = stopped(signals)
    assert not any(t.crashed for t in crash.threads)
    assert [(e.type, e.thread_id) for e in crash.exceptions] == [("DUMP_REQUESTED", 1)]


def test_pointer_authentication_mask_is_the_address_mask() -> None:
    core = Core(183)
    core.thread(1, 11)
    core.note(0x406, struct.pack("<QQ", 0x007F_0000_0000_0000, 0xFF7F_0000_0000_0000), b"LINUX")
    crash = read_core(core)
    assert crash.address_mask == 0x0000_FFFF_FFFF_FFFF
    assert arm64.address_mask(crash) == 0x0000_FFFF_FFFF_FFFF
    core.notes.pop()
    core.note(0x406, struct.pack("<QQ", 1, 1), b"LINUX")  # A mask of every bit is none.
    assert arm64.address_mask(read_core(core)) == (1 << 47) - 1


def test_user_ids_of_32_bits_move_the_process_id() -> None:
    core = Core(40)
    core.thread(1, 11)
    core.note(3, struct.pack("<4xIIIi12x", 0, 0, 0, 77) + b"name".ljust(16, b"\0") + b"args".ljust(80, b"\0"))
    crash = read_core(core)
    assert (crash.pid, crash.process_name, crash.attributes["cmdline"]) == (77, "name", "args")


@pytest.mark.parametrize("machine", [62, 3])
def test_more_program_headers_than_their_number_can_say(machine: int) -> None:
    core = Core(machine, xnum=True)
    core.thread(1, 11)
    for i in range(70_000 if machine == 62 else 3):
        core.load(0x10_0000 + i * PAGE, b"", READ | EXECUTE, PAGE)
    core.load(0x8000_0000, b"\x44" * PAGE)
    data = core.finish()
    crash = read(data, LIMITS)
    assert crash.memory.read(0x8000_0000, 4) == b"\x44" * 4
    assert crash.diagnostics == []
    # The section that says how many there are stands at the end.
    crash = read(data[:-40], LIMITS)
    assert crash.memory.read(0x8000_0000, 4) == b"\x44" * 4
    assert codes(crash) == ["truncated"]


def test_limits() -> None:
    core = Core()
    for tid in range(1, 12):
        core.thread(tid, 11)
    core.files(*((0x10_0000 + i * PAGE, 0x10_1000 + i * PAGE, 0, f"/lib/{i}.so") for i in range(8)))
    core.load(0x10_0000, b"", READ | EXECUTE, 8 * PAGE)
    core.load(0x80_0000, b"", READ, PAGE)
    data = core.finish()
    few = replace(LIMITS, max_threads=4)
    crash = read(data, few)
    assert (len(crash.threads), codes(crash)) == (4, ["limit_exceeded"])
    crash = read(data, replace(LIMITS, max_modules=3))
    assert (len(crash.modules), codes(crash)) == (3, ["limit_exceeded"])
    crash = read(data, replace(LIMITS, max_regions=2))
    assert codes(crash) == ["limit_exceeded"]
    with pytest.raises(LimitExceeded):
        read(data, replace(LIMITS, max_bytes=100))


def test_overlapping_segments_and_modules_are_dropped_and_told() -> None:
    core = Core()
    core.thread(1, 11)
    core.files((0x1000, 0x4000, 0, "/a"), (0x2000, 0x3000, 0, "/b"))
    core.load(0x1000, b"", READ | EXECUTE, 3 * PAGE)
    core.load(0x2000, bytes(PAGE), READ)
    crash = read_core(core)
    assert [m.code_file for m in crash.modules] == ["/a"]
    assert codes(crash) == ["malformed", "module_overlap"]


@pytest.mark.parametrize(
    ("field", "value", "error", "text"),
    [
        ((4, "B"), 3, Malformed, "class"),
        ((5, "B"), 2, Unsupported, "big-endian"),
        ((5, "B"), 0, Malformed, "byte order"),
        ((16, "H"), 2, Malformed, "ET_CORE"),
        ((18, "H"), 8, Unsupported, "machine 8"),
        ((18, "H"), 3, Unsupported, "machine 3 with 64 bits"),
        ((32, "Q"), 1 << 63, Malformed, "program headers"),
        ((54, "H"), 32, Malformed, "entries of 56 bytes"),
        ((56, "H"), 0, Malformed, "program headers"),
    ],
)
def test_headers_that_are_refused(field: tuple[int, str], value: int, error: type[Exception], text: str) -> None:
    core = whole()
    core.header[field] = value
    with pytest.raises(error, match=text):
        read_core(core)


def test_cores_of_other_systems_are_unsupported() -> None:
    core = Core()
    core.note(1, bytes(336), b"FreeBSD")
    with pytest.raises(Unsupported, match="FreeBSD"):
        read_core(core)


def test_a_note_that_is_too_short_costs_itself() -> None:
    core = Core()
    core.thread(1, 11)
    core.note(1, struct.pack("<3ih2xQQi", 11, 0, 0, 11, 0, 0, 2).ljust(80, b"\0"))
    core.note(6, b"")
    core.note(3, bytes(20))
    core.note(0x46494C45, core.words(1 << 60, PAGE))
    core.note(0x53494749, bytes(4))
    crash = read_core(core)
    assert [(t.id, t.registers is None) for t in crash.threads] == [(1, False), (2, True)]
    assert codes(crash) == ["malformed"] * 4
    assert [(d.where or {})["note"] for d in crash.diagnostics] == [
        "NT_PRSTATUS",
        "NT_PRPSINFO",
        "NT_FILE",
        "NT_SIGINFO",
    ]


def test_a_list_of_files_without_all_of_its_paths_gives_those_it_has() -> None:
    core = Core()
    core.thread(1, 11)
    core.note(0x46494C45, core.words(2, PAGE, 0x1000, 0x2000, 0, 0x5000, 0x6000, 0) + b"/first\0"[:-1])
    core.load(0x1000, b"", EXECUTE, 8 * PAGE)
    crash = read_core(core)
    assert [m.code_file for m in crash.modules] == ["/first"]
    assert codes(crash) == ["malformed"]


def test_the_registry_takes_cores_and_the_sniffer_of_debug_files_does_not() -> None:
    for order in (1, 2):
        head = whole().finish()[:64]
        if order == 2:
            head = head[:5] + b"\2" + head[6:16] + b"\0\4" + head[18:]
        found = reports.detect(reports.Probe(head))
        assert found is not None
        assert found.name == "elfcore"
        assert objects.sniff(head) is None
    program = Core().image(PAGE)
    assert reports.detect(reports.Probe(program)) is None
    assert objects.sniff(program) == "elf"


def test_an_event_of_a_core() -> None:
    with Engine() as engine:
        event = engine.process(whole().finish(), name="core.70")
        assert (event.status, event.source and event.source.format) == ("ok", "elfcore")
        assert event.title is not None
        assert event.title.startswith("SIGSEGV")
        data = bytearray(whole().finish())
        data[5] = 2
        data[16:18] = b"\0\4"
        assert engine.process(bytes(data)).status == "unsupported"
