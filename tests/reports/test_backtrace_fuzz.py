"""Hostile Backtrace reports and snapshots: an event or our own error, in bounded time and memory."""

from __future__ import annotations

import base64
import json
import random
import sys
import zipfile
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from deadreckon import Engine
from deadreckon.config import ReportLimits
from deadreckon.errors import DIAGNOSTIC_CODES, ReportError
from deadreckon.reports import backtrace, snapshot
from synth.backtrace import frame
from synth.backtrace import report as backtrace_report
from synth.snapshot import pack, report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from deadreckon.model.crash import RawCrash

LIMITS = ReportLimits()


def documents() -> Iterator[tuple[str, bytes]]:
    """Yield reports that have every field."""
    listed = [
        frame(funcName="a.b", line=2, column="3", sourceCode="1", library="x.py", guessed_frame="true"),
        frame(address="0x401000", registers={"rip": "0x401000", "rsp": 28672}, faulted=True, debug_identifier="ab"),
        frame(variables=[{"name": "v", "type": "t", "value": {"a": 1}}], il=3),
    ]
    told = backtrace_report(
        arch={"name": "x86_64", "registers": {"rip": "u64"}},
        threads={"main": {"name": "m", "fault": True, "stack": listed}, "7": {"stack": [frame()]}, "mainThread": "7"},
        classifiers=["A", "B"],
        attributes={"error.message": "m", "error.type": "Exception", "process.id": 7, "fault.address": "0x1"},
        annotations={"Exception": {"type": "T", "message": "M"}, "deep": [[[1]]]},
        sourceCode={"1": {"text": "a\nb\nc\n", "startLine": 1, "path": "x.py"}},
        memory=[{"start": "28672", "data": base64.b64encode(bytes(64)).decode(), "perms": {"exec": True}}],
        modules=[{"start": 0x400000, "size": 8192, "code_file": "a", "debug_identifier": "0" * 31 + "10"}],
        symbolication_maps=[{"file": "x", "uuid": "y"}],
        callstack={"frames": ["f@g:1"]},
        fingerprint=base64.b64encode(bytes(32)).decode(),
    )
    for lang, symbolication in (("c", "minidump"), ("python", None), ("nodejs", "sourcemap"), ("java", "proguard")):
        yield lang, json.dumps(told | {"lang": lang, "symbolication": symbolication}).encode()


BACKTRACE = dict(documents())
SNAPSHOT = {
    "stored": pack(report(address_mask="0x7fffffffffff", attributes={"a": [1]}), method=zipfile.ZIP_STORED),
    "deflated": pack(report(diagnostics=[{"code": "truncated", "severity": "info"}]), attachments={"a": b"bc"}),
}


def check(read: Callable[[bytes, ReportLimits], RawCrash], data: bytes) -> RawCrash | None:
    """Read, and check everything that holds for any bytes; None where they are refused."""
    try:
        crash = read(data, LIMITS)
    except ReportError:
        return None
    assert {d.code for d in crash.diagnostics} <= set(DIAGNOSTIC_CODES)
    memory = crash.memory
    assert (memory.start < memory.end).all()
    assert (memory.end[:-1] <= memory.start[1:]).all()
    assert (memory.offset.astype(np.uint64) + (memory.end - memory.start) <= len(memory.buffer)).all()
    if crash.regions is not None:
        assert (crash.regions.end[:-1] <= crash.regions.start[1:]).all()
    assert all(m.image_size > 0 and m.end < 1 << 64 for m in crash.modules)
    assert all(m.end <= n.image_addr for m, n in zip(crash.modules, crash.modules[1:], strict=False))
    for stack in (*(t.frames for t in crash.threads), *(e.frames for e in crash.exceptions)):
        for listed in stack or ():
            assert listed.instruction_addr is None or 0 <= listed.instruction_addr < 1 << 64
            msgspec.json.encode(listed.reported)
    # What goes into the event as it is must be such that it can be written.
    msgspec.json.encode([crash.attributes, crash.tags, crash.user, crash.message, crash.diagnostics, crash.attachments])
    msgspec.json.encode([crash.pid, crash.uptime_s, crash.os_name, [t.id for t in crash.threads]])
    return crash


def mutated(seed: bytes, chance: random.Random) -> bytes:
    """Return bytes changed, doubled, swapped or dropped at a few places."""
    data = bytearray(seed)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data))
        size = chance.randint(1, 24)
        match chance.randrange(5):
            case 0:
                data[at] = chance.randrange(256)
            case 1:
                data[at : at + size] = b""
            case 2:
                data[at:at] = data[at : at + size]
            case 3:
                data[at : at + 1] = chance.choice(
                    (b"[", b"{", b'"', b"}", b",", b"9" * 30, b"-", b"null", b"\xff", b"NaN")
                )
            case _:
                other = chance.randrange(len(data))
                data[at : at + size] = data[other : other + size]
        data = data or bytearray(b" ")
    return bytes(data)


@pytest.mark.parametrize("lang", BACKTRACE)
def test_backtrace_cut_at_any_length(lang: str) -> None:
    seed = BACKTRACE[lang]
    whole = check(backtrace.read, seed)
    assert whole is not None
    assert whole.diagnostics == []
    for end in range(0, len(seed), 7):
        assert check(backtrace.read, seed[:end]) is None


@pytest.mark.parametrize("lang", BACKTRACE)
def test_backtrace_mutated(lang: str) -> None:
    chance = random.Random(lang)
    read = sum(check(backtrace.read, mutated(BACKTRACE[lang], chance)) is not None for _ in range(1000))
    assert read > 100


VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, 1e308, 1 << 63, 1 << 64, 10**40, "", "x", "0x" + "f" * 16, "0x" + "f" * 17, "9" * 20),
    *([], {}, [1], {"a": 1}, [[]], [{}], {"": {}}, "\ud800", "\0", "a" * 100_000, [None] * 100, float("nan")),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a document."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(copy[path[0]], path[1:], new)
    return copy


def test_backtrace_with_any_value_anywhere() -> None:
    document = json.loads(BACKTRACE["c"])
    read = 0
    for path in places(document):
        for value in VALUES:
            for lang in ("c", "java"):
                changed = replaced(document, path, value)
                if path and path[0] != "lang" and isinstance(changed, dict):
                    changed["lang"] = lang
                read += check(backtrace.read, json.dumps(changed).encode()) is not None
    assert read > 4000


def test_snapshot_with_any_value_anywhere() -> None:
    document = report(
        address_mask="0xff", attributes={"a": 1}, tags={"a": "b"}, origin={"format": "x"}, unloaded_modules=[],
        diagnostics=[{"code": "truncated", "severity": "info", "where": {"a": 1}}],
    )  # fmt: skip
    read = 0
    for path in places(document):
        for value in VALUES:
            read += check(snapshot.read, pack(json.dumps(replaced(document, path, value)).encode())) is not None
    assert read > 1000


@pytest.mark.parametrize("name", SNAPSHOT)
def test_snapshot_cut_at_any_length(name: str) -> None:
    seed = SNAPSHOT[name]
    whole = check(snapshot.read, seed)
    assert whole is not None
    kept = 0
    for end in range(0, len(seed), 3):
        crash = check(snapshot.read, seed[:end])
        if crash is not None:
            kept += 1
            assert "truncated" in {d.code for d in crash.diagnostics}
            assert [t.id for t in crash.threads] == [t.id for t in whole.threads]
    assert kept > 50


@pytest.mark.parametrize("name", SNAPSHOT)
def test_snapshot_mutated(name: str) -> None:
    chance = random.Random(name)
    read = sum(check(snapshot.read, mutated(SNAPSHOT[name], chance)) is not None for _ in range(1000))
    assert read > 100


@pytest.mark.parametrize("name", ["deflated", "python"])
def test_through_the_engine(name: str) -> None:
    """The whole way to the encoded event, under the name that leads to the readers."""
    from deadreckon.model.event import encode_event

    seed = (SNAPSHOT | BACKTRACE)[name]
    chance = random.Random(5)
    states = set()
    with Engine() as engine:
        for number in range(100):
            data = seed[: chance.randrange(len(seed))] if number % 2 else mutated(seed, chance)
            for event in engine.process_all(data, name="x.btt"):
                encode_event(event)
                states.add(event.status)
                assert event.status not in {"unreadable", "unsupported"} or event.threads is None
                assert not any(d.code == "internal" for d in event.diagnostics or ())
    assert {"degraded", "unsupported"} <= states


def test_bombs() -> None:
    """Small files that ask for much."""
    for text in (
        b'{"mainThread": "1", "threads": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"mainThread": "1", "threads": {"1": {"stack": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}}}",
        b'{"annotations": ' + b"[" * 100_000 + b"NaN" + b"]" * 100_000 + b"}",
        b'{"threads": {' + b",".join(b'"%d": {}' % n for n in range(1_000_001)) + b"}}",
    ):
        assert check(backtrace.read, text) is None
    deep: Any = 1
    for _ in range(500):
        deep = {"a": deep}
    crash = check(backtrace.read, json.dumps(backtrace_report(annotations=deep, attributes={"x": deep})).encode())
    assert crash is not None
    # An empty line for each of four million: only those around a frame are looked at.
    sources = {str(n): {"text": "\n" * (1 << 22), "startLine": 1, "path": "a"} for n in range(3)}
    frames = [frame(line=n + 1, sourceCode=str(n % 3)) for n in range(1000)]
    told = backtrace_report(lang="python", sourceCode=sources, threads={"main": {"stack": frames}})
    crash = check(backtrace.read, json.dumps(told).encode())
    assert crash is not None
    many = backtrace_report(
        lang="c", modules=[{"start": n, "size": 1 << 40} for n in range(20_000)], memory=[{"start": 1}] * 100_000
    )
    crash = check(backtrace.read, json.dumps(many).encode())
    assert crash is not None
    assert len(crash.diagnostics) < 100


def test_memory_of_hostile_snapshots_is_bounded() -> None:
    rows = [{"start": hex(n), "size": 1 << 62, "offset": n % 5000} for n in range(50_000)]
    crash = check(snapshot.read, pack(report(memory=rows)))
    assert crash is not None
    assert len(crash.memory.buffer) == 4096
    assert sys.getsizeof(crash.memory.start) < 1 << 20
