#!/usr/bin/env python3
"""Complete a core written by qemu's user mode emulation.

qemu writes an ELF core of the emulated program when a signal kills it, but less
of one than the kernel would: no NT_FILE note, no NT_SIGINFO, no floating point
registers, and neither the headers nor the code of the files mapped. What gdb and
the converter need of these is put back here, from the program, from the dynamic
linker's list of loaded objects in the core's memory, and from what ``qemu
-strace`` tells about the signal.

Sources: qemu's ``linux-user/elfload.c`` (``elf_core_dump``, ``vma_dump_size``)
and ``linux-user/strace.c`` (``print_siginfo``); the C library's ``link.h`` for the
list of loaded objects; the kernel's ``fs/binfmt_elf.c`` for the notes added.
"""

from __future__ import annotations

import argparse
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core_to_minidump import (
    NT_AUXV,
    NT_FILE,
    NT_PRSTATUS,
    NT_SIGINFO,
    PT_LOAD,
    PT_NOTE,
    ConversionError,
    Core,
    FileRange,
    read_notes,
    read_program_headers,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PAGE = 4096
PT_DYNAMIC = 2
DT_DEBUG = 21
AT_PHDR = 3
NT_ARM_PAC_MASK = 0x406

LOADED_LIMIT = 64
"""More loaded objects than our programs have."""

POINTER_CODE_BITS = 0x007F_0000_0000_0000
"""Bits that hold a pointer authentication code: below the tag byte, above 48 bits of address."""

SIGNAL_CODES = {"SI_USER": 0, "SI_KERNEL": 0x80, "SI_QUEUE": -1, "SI_TIMER": -2, "SI_TKILL": -6}


@dataclass(frozen=True)
class SignalInfo:
    """What ``siginfo_t`` holds of a fatal signal."""

    code: int
    union: int
    """The first eight bytes of its union: the fault address, or sender and user."""


def fatal_signal(trace: str) -> SignalInfo:
    """The last signal that ``qemu -strace`` tells of.

    It may stand on the line of another thread's system call. For SIGBUS qemu prints
    the fault address as if it were a sender's process and user.
    """
    lines = re.findall(r"--- SIG\w+ \{si_signo=\w+, si_code=([\w-]+), (.*)\} ---$", trace, re.MULTILINE)
    if not lines:
        raise ConversionError("qemu's trace tells of no signal")
    code, rest = lines[-1]
    number = SIGNAL_CODES[code] if code in SIGNAL_CODES else int(code)
    address = re.search(r"si_addr=(NULL|0x[0-9a-f]+)", rest)
    if address:
        return SignalInfo(number, 0 if address[1] == "NULL" else int(address[1], 16))
    sender, user = (int(word) & 0xFFFFFFFF for word in re.findall(r"si_[pu]id=(-?\d+)", rest))
    return SignalInfo(number, sender | user << 32)


def complete(data: bytes, program: Path, sysroot: Path, signal: SignalInfo) -> bytes:
    """The core as the kernel would have written it.

    `program` is the executable; the libraries are looked for in `sysroot`, where
    qemu's ``-L`` has found them, then by their own path.
    """
    core = Core.parse(data)
    loaded = list(_loaded(core, program, sysroot))
    files = [file for path, bias, host in loaded for file in _ranges(path, bias, host)]
    sources = {path: host for path, _, host in loaded}
    wide = core.machine.word_size == 8
    out = bytearray(data)
    (table,) = struct.unpack_from("<Q", data, 32) if wide else struct.unpack_from("<I", data, 28)
    (entry,) = struct.unpack_from("<H", data, 54 if wide else 42)

    def place(index: int, content: bytes) -> None:
        """Make `content` that of a segment, by appending it."""
        out.extend(bytes(-len(out) % PAGE))
        at = table + entry * index
        if wide:
            struct.pack_into("<Q", out, at + 8, len(out))
            struct.pack_into("<Q", out, at + 32, len(content))
        else:
            struct.pack_into("<I", out, at + 4, len(out))
            struct.pack_into("<I", out, at + 16, len(content))
        out.extend(content)

    for index, header in enumerate(read_program_headers(data)):
        if header.type == PT_NOTE:
            place(index, _notes(core, data[header.offset : header.offset + header.file_size], files, signal))
        elif header.type == PT_LOAD and header.memory_size and not header.file_size:
            file = next((f for f in files if f.start <= header.vaddr < f.end), None)
            if file:
                into = file.offset + header.vaddr - file.start
                place(index, sources[file.path].read_bytes()[into : into + header.memory_size])
    return bytes(out)


def _notes(core: Core, old: bytes, files: list[FileRange], signal: SignalInfo) -> bytes:
    """The notes, with those that qemu does not write.

    Readers give a note to the thread whose NT_PRSTATUS came last, so order matters.
    """
    notes = bytearray()

    def add(owner: bytes, kind: int, description: bytes) -> None:
        name = owner + b"\0"
        notes.extend(struct.pack("<III", len(name), len(description), kind))
        for part in (name, description):
            notes.extend(part + bytes(-len(part) % 4))

    first = True
    for owner, kind, description in read_notes(old):
        add(owner, kind, description)
        if kind == NT_PRSTATUS and first:
            (number,) = struct.unpack_from("<i", description)
            form = "<iii4xQ" if core.machine.word_size == 8 else "<iiiQ"
            add(b"CORE", NT_SIGINFO, struct.pack(form, number, 0, signal.code, signal.union).ljust(128, b"\0"))
            first = False
        if kind == NT_PRSTATUS and core.machine.name == "arm64":
            add(b"LINUX", NT_ARM_PAC_MASK, struct.pack("<QQ", POINTER_CODE_BITS, POINTER_CODE_BITS))
        if kind == NT_AUXV:
            word = core.machine.word
            table = struct.pack(f"<2{word}", len(files), PAGE)
            table += b"".join(struct.pack(f"<3{word}", f.start, f.end, f.offset // PAGE) for f in files)
            add(b"CORE", NT_FILE, table + b"".join(f.path.encode() + b"\0" for f in files))
    return bytes(notes)


# --- loaded files --------------------------------------------------------------------


def _ranges(path: str, bias: int, host: Path) -> Iterator[FileRange]:
    """The parts of a file that are mapped, at `bias` from the addresses it was linked for."""
    for header in read_program_headers(host.read_bytes()):
        if header.type == PT_LOAD and header.file_size:
            start = bias + header.vaddr
            end = start + header.file_size + PAGE - 1 & -PAGE
            yield FileRange(start & -PAGE, end, header.offset & -PAGE, path)


def _loaded(core: Core, program: Path, sysroot: Path) -> Iterator[tuple[str, int, Path]]:
    """(path, load bias, file here) of each loaded object: the program, then what the dynamic linker lists."""
    image = program.read_bytes()
    headers = read_program_headers(image)
    table = core.auxiliary(AT_PHDR)
    if table is None:
        raise ConversionError("the core does not tell where the program is")
    (table_offset,) = struct.unpack_from("<Q", image, 32) if image[4] == 2 else struct.unpack_from("<I", image, 28)
    first = next(header for header in headers if header.type == PT_LOAD and not header.offset)
    bias = table - first.vaddr - table_offset
    yield str(program), bias, program
    dynamic = next((header for header in headers if header.type == PT_DYNAMIC), None)
    entry = _debug_map(core, bias + dynamic.vaddr, dynamic.memory_size) if dynamic else 0
    word, size = core.machine.word, core.machine.word_size
    for _ in range(LOADED_LIMIT):
        record = core.read(entry, 4 * size) if entry else b""
        if len(record) < 4 * size:
            return
        address, name, _, entry = struct.unpack(f"<4{word}", record)
        path = core.read(name, PAGE).split(b"\0")[0].decode()
        for host in (sysroot / path.lstrip("/"), Path(path)):
            if path and host.is_file():
                yield path, address, host
                break


def _debug_map(core: Core, dynamic: int, length: int) -> int:
    """The first ``struct link_map``, by DT_DEBUG's ``struct r_debug``; 0 where there is none."""
    word, size = core.machine.word, core.machine.word_size
    entries = core.read(dynamic, length)
    for at in range(0, len(entries) - 2 * size + 1, 2 * size):
        tag, value = struct.unpack_from(f"<2{word}", entries, at)
        if tag == DT_DEBUG and value:
            return int(struct.unpack(f"<{word}", core.read(value + size, size))[0])
    return 0


# --- command line --------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description="Complete a core written by qemu's user mode emulation.")
    parser.add_argument("core", type=Path, help="core that qemu has written")
    parser.add_argument("program", type=Path, help="the program that crashed, by the path it was run by")
    parser.add_argument("completed", type=Path, help="file to write")
    parser.add_argument("--sysroot", type=Path, default=Path("/"), help="where its libraries are, as for qemu's -L")
    parser.add_argument("--trace", type=Path, required=True, help="what qemu -strace has written on standard error")
    options = parser.parse_args(arguments)
    try:
        signal = fatal_signal(options.trace.read_text(errors="replace"))
        completed = complete(options.core.read_bytes(), options.program, options.sysroot, signal)
    except (ConversionError, struct.error) as error:
        parser.exit(1, f"{options.core}: {error}\n")
    options.completed.write_bytes(completed)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
