"""Writes small PE32+ files with exception tables, from Microsoft's "PE Format" and "x64 exception handling"."""

from __future__ import annotations

import struct

TEXT, RDATA, PDATA = 0x1000, 0x2000, 0x3000


def looping(debug_id: bytes = bytes(range(1, 17)), age: int = 1) -> bytes:
    """Return an executable whose one function's unwind information is chained to itself, and so has no end."""
    function = struct.pack("<3I", TEXT, TEXT + 0x100, RDATA)
    # Version 1, UNW_FLAG_CHAININFO; no codes; then the RUNTIME_FUNCTION it continues: itself.
    unwind = bytes([1 | 4 << 3, 0, 0, 0]) + function
    codeview = b"RSDS" + debug_id + struct.pack("<I", age) + b"loop.pdb\0"
    directory = struct.pack("<IIHHIIII", 0, 0, 0, 0, 2, len(codeview), RDATA + 0x40, 0x600 + 0x40)
    rdata = unwind.ljust(0x20, b"\0") + directory
    sections = [
        (b".text", TEXT, b"\x90" * 0x100, 0x6000_0020),
        (b".rdata", RDATA, rdata.ljust(0x40, b"\0") + codeview, 0x4000_0040),
        (b".pdata", PDATA, function, 0x4000_0040),
    ]
    directories = [(0, 0)] * 16
    directories[3] = (PDATA, 12)
    directories[6] = (RDATA + 0x20, 28)
    optional = struct.pack("<HBB3I2I", 0x20B, 14, 0, 0x200, 0x400, 0, TEXT, TEXT)
    optional += struct.pack("<Q2I6H", 0x1_4000_0000, 0x1000, 0x200, *(6, 0, 0, 0, 6, 0))  # versions
    optional += struct.pack("<4I2H", 0, 0x4000, 0x400, 0, 3, 0)
    optional += struct.pack("<4Q2I", *(0x10_0000, 0x1000, 0x10_0000, 0x1000), 0, 16)  # stack and heap
    optional += b"".join(struct.pack("<2I", *entry) for entry in directories)
    head = b"MZ" + b"\0" * 58 + struct.pack("<I", 0x80) + b"\0" * 64
    head += b"PE\0\0" + struct.pack("<2H3I2H", 0x8664, len(sections), 0x5AB3_8077, 0, 0, len(optional), 0x22) + optional
    body = b""
    for i, (name, address, data, flags) in enumerate(sections):
        head += struct.pack("<8s6I2HI", name, len(data), address, 0x200, 0x400 + 0x200 * i, 0, 0, 0, 0, flags)
        body += data.ljust(0x200, b"\0")
    return head.ljust(0x400, b"\0") + body
