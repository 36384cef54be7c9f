"""Damaged Apple reports: an event or one of our own errors, whatever was cut off or changed."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from deadreckon import reports
from deadreckon.config import ReportLimits
from deadreckon.describe import describe
from deadreckon.errors import DIAGNOSTIC_CODES, ReportError
from deadreckon.model.event import Source, encode_event
from deadreckon.reports.apple import ips, kernel, kscrash, metrickit, text
from synth.apple import HEADER, sample

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMITS = ReportLimits()
PANIC = """panic(cpu 4 caller 0xfffffe0011d54ae0): "no" @a.c:5
Kernel UUID: A1B2C3D4-5566-3788-99AA-BBCCDDEEFF00
Kernel text base:  0xfffffe0011a58000
Panicked thread: 0xfffffe1974044790, backtrace: 0xfffffe647feeb6c0, tid: 255
  lr: 0xfffffe0011d54ae0  fp: 0xfffffe647feeb750
0xffffffa3dc85bd60 : 0xffffff7f8ca97073 mach_kernel : _panic + 0x2db
   Kernel Extensions in backtrace:
     a.b(1)[A1B2C3D4-5566-3788-99AA-BBCCDDEEFF00]@0xfffffe0012ea35e0->0xfffffe0012eba45b
"""
TREE = {
    "callStacks": [
        {
            "threadAttributed": True,
            "callStackRootFrames": [
                {
                    "binaryUUID": "CA12CAFA-91BA-3E1C-BE9C-E34DB96FE7DF",
                    "binaryName": "a",
                    "offsetIntoBinaryTextSegment": 46380,
                    "address": 4310988076,
                    "sampleCount": 3,
                    "subFrames": [{"address": 4310988076, "sampleCount": 1}, {"address": 5}],
                }
            ],
        }
    ],
    "callStackPerThread": True,
}
SEEDS: dict[str, tuple[Any, bytes]] = {
    "ips": (ips, sample().ips().encode()),
    "first generation": (ips, (json.dumps(HEADER) + "\n" + sample().text()).encode()),
    "text": (text, sample().text().encode()),
    "kscrash": (kscrash, json.dumps(sample().kscrash(), indent=1).encode()),
    "metrickit": (metrickit, json.dumps({"crashDiagnostics": [{"callStackTree": TREE}]}).encode()),
    "panic": (kernel, PANIC.encode()),
    "panic ips": (ips, (json.dumps({"bug_type": "210"}) + "\n" + json.dumps({"panicString": PANIC})).encode()),
}
SPLICES = (
    b"9" * 30,
    b"-1",
    b"0xffffffffffffffff",
    b"1e999",
    b"NaN",
    b"\\ud800",
    b"\xff\xfe",
    b"{" * 50,
    b'"',
    b"\0",
    b"\n",
)


def mutations(data: bytes, seed: object, count: int) -> Iterator[bytes]:
    chance = random.Random(str(seed))
    for _ in range(count):
        changed = bytearray(data)
        for _ in range(chance.choice((1, 1, 2, 4, 16))):
            at, length = chance.randrange(len(changed)), chance.choice((1, 2, 8, 64, 512))
            kind = chance.randrange(5)
            if kind == 0:
                changed[at] = chance.randrange(256)
            elif kind == 1:
                changed[at] = chance.choice(b'{}[]",:\\0123456789 -\n\t()<>xX')
            elif kind == 2:
                del changed[at : at + length]
            elif kind == 3:
                changed[at:at] = chance.choice(SPLICES)
            else:
                other = chance.randrange(len(changed))
                changed[at : at + length] = changed[other : other + length]
            changed = changed or bytearray(b"{")
        yield bytes(changed)


def check(reader: Any, data: bytes) -> bool:
    """Read, and check what holds for any bytes; False where they are refused."""
    try:
        found = reader.read(data, LIMITS)
    except ReportError:
        return False
    for crash in found if isinstance(found, list) else [found]:
        assert {d.code for d in crash.diagnostics} <= set(DIAGNOSTIC_CODES)
        assert all(m.image_size >= 0 and m.end <= 1 << 64 for m in crash.modules)
        assert all(m.end <= n.image_addr for m, n in zip(crash.modules, crash.modules[1:], strict=False))
        stacks = [*(t.frames for t in crash.threads), *(e.frames for e in crash.exceptions)]
        for frame in (f for stack in stacks for f in stack or ()):
            assert frame.instruction_addr is None or 0 <= frame.instruction_addr < 1 << 64
            assert frame.reported is not None
        encode_event(describe(crash, Source(format="x"), "0" * 64, []))
    return True


@pytest.mark.parametrize("name", SEEDS)
def test_cut_anywhere(name: str) -> None:
    reader, data = SEEDS[name]
    assert check(reader, data)
    read = sum(check(reader, data[: len(data) * i // 100]) for i in range(100))
    assert read > 40


@pytest.mark.parametrize("name", SEEDS)
def test_changed_anywhere(name: str) -> None:
    reader, data = SEEDS[name]
    assert sum(check(reader, changed) for changed in mutations(data, name, 250)) > 100


@pytest.mark.corpus
def test_real_reports(corpus: Path) -> None:
    for path in sorted((corpus / "apple").glob("*/*")):
        data = path.read_bytes()
        form = reports.detect(reports.Probe(data, path.name))
        if form is None:
            continue  # A licence.
        reader = {"apple-ips": ips, "apple-crash": text, "kscrash": kscrash, "metrickit": metrickit}[form.name]
        for i in range(1, 8):
            check(reader, data[: len(data) * i // 8])
        for changed in mutations(data, path.name, 12):
            check(reader, changed)
            reports.detect(reports.Probe(changed))
