"""Backtrace's JSON report: every field of its specification, in every spelling that its clients have."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from deadreckon import Engine, reports
from deadreckon.config import ReportLimits
from deadreckon.errors import LimitExceeded, Malformed
from deadreckon.model.ids import Arch
from deadreckon.reports.backtrace import read
from synth.backtrace import frame, report

if TYPE_CHECKING:
    from pathlib import Path

    from deadreckon.model.crash import RawCrash, RawFrame
    from deadreckon.model.event import Frame

LIMITS = ReportLimits()


def crash(**changes: Any) -> RawCrash:
    return read(json.dumps(report(**changes)).encode(), LIMITS)


def stack(*frames: dict[str, Any], **changes: Any) -> list[RawFrame]:
    """Return the stack of a report with these frames; a JavaScript one is the exception's."""
    found = crash(threads={"main": {"name": "main", "fault": True, "stack": list(frames)}}, **changes)
    assert found.diagnostics == []
    return (found.threads or found.exceptions)[0].frames or []


def told(frames: list[RawFrame] | None, at: int = 0) -> Frame:
    found = (frames or [])[at].reported
    assert found is not None
    return found


# -- what it says of itself -------------------------------------------------------------------------------------------


def test_identity_and_environment() -> None:
    found = crash(
        uuid="123E4567-e89b-12d3-a456-426655440000",
        timestamp=1475530543,
        arch={"name": "x64", "registers": {"rax": "u64"}},
        entryThread="main",
        attributes={
            "application": "test.js",
            "process.id": "4711",
            "process.age": 12,
            "uname.sysname": "Linux",
            "uname.release": "6.1.0",
            "uname.version": "#1 SMP",
            "uname.machine": "aarch64",
            "application.version": "1.2",
            "application.environment": "staging",
            "user.id": "7",
            "flag": True,
            "nothing": None,
        },
    )
    assert found.format == "backtrace-json"
    assert found.event_id == "123e4567e89b12d3a456426655440000"
    assert found.timestamp == 1475530543.0
    assert found.arch == Arch.X86_64
    assert (found.process_name, found.pid, found.uptime_s) == ("test.js", 4711, 12.0)
    assert (found.os_name, found.os_version, found.os_build) == ("Linux", "6.1.0", "#1 SMP")
    assert (found.release, found.environment, found.user) == ("1.2", "staging", {"id": "7"})
    assert found.attributes["flag"] is True
    assert "nothing" not in found.attributes
    kept = {"lang": "nodejs", "langVersion": "v4.5.0", "agent": "backtrace-node", "agentVersion": "0.4.0"}
    assert kept.items() <= found.attributes.items()
    assert found.attributes["entryThread"] == "main"
    assert found.diagnostics == []


def test_annotations_classifiers_fingerprint() -> None:
    notes = {"Exception": {"message": "no such key"}, "list": [1, [2, {"a": None}]]}
    identity = base64.b64encode(bytes(range(32))).decode()
    found = crash(annotations=notes, classifiers=["KeyError", 7, None], fingerprint=identity)
    assert found.attributes["annotations"] == notes
    assert found.attributes["classifiers"] == ["KeyError", "7"]
    assert found.attributes["fingerprint"] == bytes(range(32)).hex()
    assert [(e.type, e.value) for e in found.exceptions] == [("KeyError", "no such key")]
    bad = crash(fingerprint="AAAA")
    assert [d.message for d in bad.diagnostics] == ["fingerprint: expected 32 bytes in base64"]


@pytest.mark.parametrize(
    ("lang", "symbolication", "platform"),
    [
        ("nodejs", None, "javascript"),
        ("python", None, "python"),
        ("java", None, "java"),
        ("Rust", None, "native"),
        ("c++", None, "native"),
        ("csharp", None, "csharp"),
        ("cobol", None, "cobol"),
        (None, None, "other"),
        ("nodejs", "minidump", "native"),
        (None, "sourcemap", "javascript"),
        (None, "proguard", "java"),
        ("python", "something", "python"),
    ],
)
def test_platform(lang: str | None, symbolication: str | None, platform: str) -> None:
    assert crash(lang=lang, symbolication=symbolication).platform == platform


@pytest.mark.parametrize(
    ("kind", "level", "message", "exceptions"),
    [
        ("Crash", "fatal", None, [("Bad", "it broke")]),
        ("Exception", "error", None, [("Bad", "it broke")]),
        ("Unhandled exception", "fatal", None, [("Bad", "it broke")]),
        (None, "error", None, [("Bad", "it broke")]),
    ],
)
def test_level(kind: str | None, level: str, message: str | None, exceptions: list[tuple[str, str]]) -> None:
    attributes = {"error.type": kind, "error.message": "it broke"}
    found = crash(lang="python", classifiers=["Bad"], attributes=attributes)
    assert (found.level, found.message) == (level, message)
    assert [(e.type, e.value) for e in found.exceptions] == exceptions


def test_a_message_is_no_exception() -> None:
    found = crash(lang="python", attributes={"error.type": "Message", "error.message": "hello"})
    assert (found.level, found.message, found.exceptions) == ("info", "hello", [])


# -- threads ----------------------------------------------------------------------------------------------------------


def threads(**named: Any) -> dict[str, Any]:
    return {key: {"stack": [frame(funcName=key)], **value} for key, value in named.items()}


@pytest.mark.parametrize(
    ("main", "faults", "crashed"),
    [
        ("b", {}, "b"),
        ("b", {"a": True}, "b"),
        (None, {"b": True, "c": True}, "b"),
        (None, {"c": "true"}, "c"),
        ("nobody", {"c": True}, "c"),
        (None, {}, None),
    ],
)
def test_which_thread_it_is_about(main: str | None, faults: dict[str, Any], crashed: str | None) -> None:
    listed = threads(**{key: {"fault": faults.get(key, False)} for key in "abc"})
    found = crash(lang="python", threads=listed, mainThread=main)
    assert next((t.name for t in found.threads if t.crashed), None) == crashed
    assert [d.message for d in found.diagnostics] == (["mainThread: no thread 'nobody'"] if main == "nobody" else [])


def test_ids_and_names_of_threads() -> None:
    found = crash(lang="python", mainThread="4711", threads={"4711": {"stack": []}, "12": {"name": "w", "stack": []}})
    assert [(t.id, t.name, t.crashed) for t in found.threads] == [(4711, None, True), (12, "w", False)]
    found = crash(lang="java", mainThread="main", threads={"7": {"stack": []}, "main": {"stack": []}})
    assert [(t.id, t.name, t.crashed) for t in found.threads] == [(0, "7", False), (1, "main", True)]


def test_the_manual_s_own_sample() -> None:
    """``mainThread`` among the threads, numbers and flags as text, a register that is no number."""
    sample = report(mainThread=None)
    sample["threads"] = {
        "main": {
            "name": "my super cool thread",
            "fault": True,
            "stack": [
                {
                    "guessed_frame": "false",
                    "funcName": "main",
                    "address": "16045690984833335023",
                    "line": "10",
                    "column": "19",
                    "sourceCode": "o9BYbg2uO+1m",
                    "library": "/home/example/nodebt/test.js",
                    "callstack_state": "1",
                    "registers": {"rax": "16045690984833335023", "rip": 1234, "FLAGS": "E:1 B:0 C:1"},
                }
            ],
        },
        "mainThread": "main",
    }
    found = read(json.dumps(sample).encode(), LIMITS)
    assert found.diagnostics == []
    assert found.threads == []
    (why,) = found.exceptions
    (only,) = why.frames or []
    shown = only.reported
    assert shown is not None
    assert only.instruction_addr is None
    assert (shown.function, shown.lineno, shown.colno, shown.trust) == ("main", 10, 19, None)
    assert (shown.filename, shown.abs_path) == ("test.js", "/home/example/nodebt/test.js")
    assert shown.registers == {"rax": "0xdeadbeefdeadbeef", "rip": "0x4d2", "FLAGS": "E:1 B:0 C:1"}


# -- frames -----------------------------------------------------------------------------------------------------------


def test_source_code() -> None:
    text = "".join(f"line {n}\r\n" for n in range(100, 120))
    sources = {
        "part": {"text": text, "startLine": 100, "path": "/src/a.py", "startColumn": 1, "startPos": 0, "tabWidth": 8},
        "nowhere": {"text": text, "path": "b.py"},
        "path": {"path": "VMStack.java", "startLine": 17},
        "false": {"text": False, "path": "c.py"},
    }
    listed = [
        frame(funcName="f", line=103, sourceCode="part"),
        frame(funcName="f", line=119, sourceCode="part"),
        frame(funcName="f", line=99, sourceCode="part"),
        frame(funcName="f", line=122, sourceCode="part"),
        frame(funcName="f", line=103, sourceCode="nowhere"),
        frame(funcName="f", line=17, sourceCode="path"),
        frame(funcName="f", line=1, sourceCode="false"),
        frame(funcName="f", line=1, sourceCode="missing"),
        frame(funcName="f", sourceCode="part"),
    ]
    frames = stack(*listed, lang="python", sourceCode=sources)
    first, last = told(frames, 0), told(frames, 1)
    assert (first.filename, first.abs_path) == ("a.py", "/src/a.py")
    assert first.pre_context == ["line 100", "line 101", "line 102"]
    assert first.context_line == "line 103"
    assert first.post_context == [f"line {n}" for n in range(104, 109)]
    assert (last.context_line, last.post_context) == ("line 119", [""])
    assert [told(frames, n).context_line for n in range(2, 9)] == [None] * 7
    assert [told(frames, n).filename for n in range(4, 9)] == ["b.py", "VMStack.java", "c.py", None, "a.py"]


def test_one_line_of_megabytes() -> None:
    sources = {"min": {"text": "x" * 3_000_000, "startLine": 1, "path": "app.min.js"}}
    shown = told(stack(frame(line=1, sourceCode="min"), lang="python", sourceCode=sources))
    assert shown.context_line == "x" * 1024


@pytest.mark.parametrize(
    ("lang", "library", "place"),
    [
        ("python", "/srv/app.py", ("/srv/app.py", None, None)),
        ("nodejs", "webpack:///./a b", ("webpack:///./a b", None, None)),
        ("nodejs", "unknown", (None, None, None)),
        ("ruby", "lib/x", ("lib/x", None, None)),
        ("Rust", "/rustc/abc/library/std/src/panicking.rs", ("/rustc/abc/library/std/src/panicking.rs", None, None)),
        ("c", "/usr/lib/libc.so.6", (None, "/usr/lib/libc.so.6", None)),
        ("go", "github.com/a/b", (None, None, "github.com/a/b")),
        ("csharp", "UnityEngine.CoreModule", (None, None, "UnityEngine.CoreModule")),
        ("csharp", r"C:\src\Game.cs", (r"C:\src\Game.cs", None, None)),
    ],
)
def test_what_a_library_is(lang: str, library: str, place: tuple[str | None, ...]) -> None:
    shown = told(stack(frame(library=library), lang=lang))
    assert (shown.abs_path, shown.package, shown.module) == place


def test_java() -> None:
    frames = stack(
        frame(funcName="a.b.C$D.<init>", line=12, sourceCode="1"),
        lang="java",
        sourceCode={"1": {"path": "C.java"}},
    )
    shown = told(frames)
    assert (shown.module, shown.function, shown.filename, shown.lineno) == ("a.b.C$D", "<init>", "C.java", 12)
    assert shown.lang == "java"


def test_variables_and_offsets() -> None:
    frames = stack(
        frame(variables=[{"name": "x", "type": "int", "value": [1]}, {"type": "int"}, 3]),
        frame(il=12, metadata_token=100663, address=12),
        lang="csharp",
    )
    assert told(frames).locals == {"x": [1]}
    assert told(frames, 1).origin == {"il": 12, "metadata_token": 100663}
    # The offset of an instruction of the intermediate language is no address.
    assert frames[1].instruction_addr is None


def test_old_names_of_fields() -> None:
    """backtrace-rust before 0.2: ``name``, ``filename`` and ``addr``; empty texts where it knows nothing."""
    frames = stack(
        {"name": "core::panic", "filename": "src/panic.rs", "addr": "0x55d0c2a4f0b0", "line": "71"},
        {"funcName": "", "library": "", "address": "", "line": ""},
        lang="Rust",
    )
    shown = told(frames)
    assert (shown.function, shown.filename, shown.lineno) == ("core::panic", "panic.rs", 71)
    assert shown.instruction_addr == "0x55d0c2a4f0b0"
    assert told(frames, 1).status == "missing"


@pytest.mark.parametrize("line", [0, -3, "x", "", None, True, 1.5, 1 << 40, "99999999999999999999999", [1]])
def test_what_is_no_line(line: Any) -> None:
    assert told(stack(frame(line=line), lang="python")).lineno is None


def test_callstack_alone() -> None:
    found = crash(lang="nodejs", threads=None, callstack={"frames": ["one@foo.js:123", "two@bar.js", "three", 4, ""]})
    (why,) = found.exceptions
    frames = [f.reported for f in why.frames or ()]
    assert [(f.function, f.filename, f.lineno) for f in frames if f] == [
        ("one", "foo.js", 123),
        ("two", "bar.js", None),
        ("three", None, None),
    ]


# -- symbolication ----------------------------------------------------------------------------------------------------


def test_addresses_are_for_looking_up() -> None:
    listed = [
        frame(funcName=None, address="0x401136", library="a.out"),
        frame(funcName="guess", address=4198700, guessed_frame=True),
        frame(funcName=None, address="4198800", faulted=True),
    ]
    frames = stack(*listed, lang="c", symbolication="minidump")
    assert [(f.instruction_addr, f.is_return_address) for f in frames] == [
        (0x401136, False),
        (4198700, True),
        (4198800, False),
    ]
    assert told(frames).package == "a.out"
    assert [told(frames, n).trust for n in range(3)] == [None, "scan", None]


def test_what_the_client_has_named_stays() -> None:
    """Without ``symbolication`` a function with its line is final: the address may be the function's own."""
    named = frame(funcName="f", line=3, address="0x1000")
    assert stack(named, lang="c")[0].instruction_addr is None
    assert told(stack(named, lang="c")).instruction_addr == "0x1000"
    assert stack(named, lang="c", symbolication="minidump")[0].instruction_addr == 0x1000
    assert stack(frame(address="0x1000"), lang="c")[0].instruction_addr == 0x1000


def test_sourcemap() -> None:
    maps = [{"file": "a.js", "uuid": "1111"}, {"file": "lib/b.js", "uuid": "2222"}, {"file": "x/b.js", "uuid": "3333"}]
    listed = {
        "main": {
            "stack": [
                frame(library="https://x.org/a.js", line=1, column=20, debug_identifier="aaaa"),
                frame(library="https://x.org/a.js", line=1, column=30),
                frame(library="https://x.org/b.js", line=1, column=30),
                frame(library="/srv/lib/b.js", line=1, column=30),
            ]
        }
    }
    found = crash(symbolication="sourcemap", symbolication_maps=maps, threads=listed, classifiers=["TypeError"])
    (why,) = found.exceptions
    shown = [f.reported for f in why.frames or ()]
    assert [f.debug_id for f in shown if f] == ["aaaa", "1111", None, "2222"]
    assert {(f.lineno, f.colno, f.lang) for f in shown if f} == {(1, 20, "javascript"), (1, 30, "javascript")}
    assert found.attributes["symbolication"] == "sourcemap"
    assert (why.type, why.thread_id, found.threads) == ("TypeError", 0, [])


def test_proguard() -> None:
    found = crash(symbolication="proguard", lang="java", attributes={"symbolication_id": "c96fb926-797c-53de"})
    assert found.mappings == ["c96fb926-797c-53de"]
    assert crash(lang="java", attributes={"symbolication_id": "c96fb926-797c-53de"}).mappings == []


def test_modules() -> None:
    found = crash(
        lang="c",
        modules=[
            {"start": "4194304", "size": 4096, "code_file": "/bin/app", "version": "1", "debug_file": "app.pdb",
             "debug_identifier": "2CB1F1F58D3B4A539D2C6B8A6F0F9C1E1", "debug_file_exists": True},
            {"start": "0x7f0000000000", "size": "8192", "code_file": "/lib/libc.so.6", "debug_identifier": "?"},
            {"start": "0x400800", "size": 16, "code_file": "inside"},
            {"start": None, "size": 16},
            "text",
        ],
    )  # fmt: skip
    assert [(m.image_addr, m.image_size, m.code_file, m.version, m.debug_file, m.debug_id) for m in found.modules] == [
        (0x40_0000, 4096, "/bin/app", "1", "app.pdb", "2cb1f1f5-8d3b-4a53-9d2c-6b8a6f0f9c1e-1"),
        (0x7F00_0000_0000, 8192, "/lib/libc.so.6", None, None, None),
    ]
    assert [d.code for d in found.diagnostics] == ["malformed", "malformed", "malformed", "module_overlap"]


def test_memory_and_registers() -> None:
    stack_bytes = bytes(range(256))
    innermost = frame(funcName=None, address="0x401136", registers={"rsp": "0x7000", "rbp": "28736", "FLAGS": "Z"})
    changes: dict[str, Any] = {
        "lang": "c",
        "arch": {"name": "x86_64", "registers": {"rsp": "u64"}},
        "mainThread": "1",
        "modules": [{"start": 0x400000, "size": 4096, "code_file": "app"}],
        "memory": [
            {"start": "0x7000", "data": base64.encodebytes(stack_bytes).decode(), "perms": {"read": True, "write": 1}},
            {"start": 0x400000, "size": 4096, "perms": {"read": "true", "write": False, "exec": True}},
            {"start": 1, "data": "%%%"},
        ],
    }
    found = crash(threads={"1": {"stack": [innermost]}}, **changes)
    assert found.memory.read(0x7000, 256) == stack_bytes
    assert found.regions is not None
    rows = [c.tolist() for c in (found.regions.start, found.regions.end, found.regions.access)]
    assert list(zip(*rows, strict=True)) == [(0x7000, 0x7100, 1), (0x400000, 0x401000, 5)]
    assert [d.message for d in found.diagnostics] == [
        "memory.2.data: expected base64",
        "memory.2: expected a start, and a size or data",
    ]
    (thread,) = found.threads
    assert thread.registers is not None
    assert thread.registers.as_hex() == {"rbp": "0x7040", "rsp": "0x7000", "rip": "0x401136"}
    # One frame, its registers and its stack: there is more to find.
    assert thread.frames is None
    # Not every module has code in what is listed: these are some slices, not all mappings.
    some = crash(threads={}, **changes | {"modules": [{"start": 0x500000, "size": 4096}]})
    assert some.regions is None
    two = crash(threads={"1": {"stack": [innermost, frame(address=7)]}}, **changes)
    assert len(two.threads[0].frames or ()) == 2


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_unwound_from_what_came_along(fixtures: Path) -> None:
    """A fixture's own crash, told as a Backtrace report: the same frames."""
    from deadreckon.reports import minidump

    folder = fixtures / "linux/x86_64/pie-O2"
    raw = minidump.read((folder / "dumps/templates.dmp").read_bytes(), LIMITS)
    thread = next(t for t in raw.threads if t.crashed)
    assert thread.registers is not None
    assert raw.regions is not None
    ranges = zip(raw.memory.start.tolist(), raw.memory.end.tolist(), strict=True)
    rows = zip(raw.regions.start.tolist(), raw.regions.end.tolist(), raw.regions.access.tolist(), strict=True)
    document = report(
        lang="c++",
        symbolication="minidump",
        mainThread=str(thread.id),
        arch={"name": "amd64"},
        threads={str(thread.id): {"fault": True, "stack": [{"registers": thread.registers.as_hex()}]}},
        memory=[
            *({"start": str(s), "data": encoded(raw.memory.read(s, e - s) or b"")} for s, e in ranges),
            *({"start": str(s), "size": e - s, "perms": {"read": True, "exec": bool(a & 4)}} for s, e, a in rows),
        ],
        modules=[
            {"start": str(m.image_addr), "size": m.image_size, "code_file": m.code_file,
             "debug_file": m.debug_file, "debug_identifier": m.debug_id}
            for m in raw.modules
        ],
    )  # fmt: skip
    with Engine() as engine:
        expected = engine.process(folder / "dumps/templates.dmp", symbols=[str(folder)])
        found = engine.process(json.dumps(document).encode(), symbols=[str(folder)])
    assert found.status == "ok"
    stacks = [
        [(f.function, f.filename, f.lineno, f.instruction_addr, f.trust) for f in t.frames or ()]
        for event in (expected, found)
        for t in event.threads or ()
        if t.crashed
    ]
    assert stacks[0] == stacks[1]
    assert stacks[0][0][1:3] == ("vector.hpp", 31)


def test_looked_up_frames_take_the_reported_ones_place(fixtures: Path) -> None:
    from deadreckon.reports import minidump

    folder = fixtures / "linux/x86_64/pie-O2"
    raw = minidump.read((folder / "dumps/templates.dmp").read_bytes(), LIMITS)
    with Engine() as engine:
        expected = engine.process(folder / "dumps/templates.dmp", symbols=[str(folder)])
        thread = next(t for t in expected.threads or () if t.crashed)
        listed = [
            {"address": f.instruction_addr, "funcName": "crashy+0x10", "library": "crashy"}
            for f in thread.frames or ()
            if not f.inline
        ]
        document = report(
            lang="c++",
            symbolication="minidump",
            threads={"main": {"fault": True, "stack": listed}},
            modules=[
                {"start": hex(m.image_addr), "size": m.image_size, "code_file": m.code_file,
                 "debug_identifier": m.debug_id}
                for m in raw.modules
            ],
        )  # fmt: skip
        event = engine.process(json.dumps(document).encode(), symbols=[str(folder)])
    found = next(t for t in event.threads or () if t.crashed).frames or []
    known = [f for f in thread.frames or () if f.lineno]
    assert [(f.function, f.lineno, f.inline) for f in found if f.lineno] == [
        (f.function, f.lineno, f.inline) for f in known
    ]
    assert len(known) > 4


# -- what is told from what -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (json.dumps(report()), True),
        (json.dumps({"uuid": "1", "threads": {}, "mainThread": "1"}), True),
        (json.dumps(report())[:-40], True),
        ('{"threads": {"values": []}, "event_id": "1", "platform": "native"}', False),
        ('{"threads": [], "mainThread": "1"}', False),
        ('{"uuid": "1", "agent": "a", "lang": "c", "timestamp": 1}', False),
        (json.dumps(report(threads=None)), True),
        ("[]", False),
        ('{"agentVersion": 1, "langVersion"', True),
        ("", False),
    ],
)
def test_told_from_others(text: str, expected: bool) -> None:
    form = reports.detect(reports.Probe(text.encode()))
    assert (form is not None and form.name == "backtrace-json") == expected


def test_what_can_not_be_read() -> None:
    whole = json.dumps(report()).encode()
    with pytest.raises(Malformed, match=r"Backtrace report: at offset 0x64, expected JSON, got its end"):
        read(whole[:100], LIMITS)
    with pytest.raises(Malformed, match="expected a JSON object, got list"):
        read(b"[]", LIMITS)
    with pytest.raises(LimitExceeded):
        read(b'{"threads": ' + b"[" * 100_000, LIMITS)


def test_members_of_the_wrong_kind_cost_themselves() -> None:
    found = crash(
        threads={"a": 3, "main": {"stack": {"x": 1}}, "b": {"stack": [1, frame(funcName="g")], "name": 5}},
        attributes=[1],
        sourceCode="x",
        memory={"a": 1},
        modules=7,
        arch=[],
        uuid=5,
        timestamp="soon",
        classifiers="x",
        lang="python",
    )
    assert [(t.name, len(t.frames or ())) for t in found.threads] == [("main", 0), ("5", 1)]
    assert sorted(d.message or "" for d in found.diagnostics) == [
        "attributes: expected an object, got an array",
        "memory: expected an array, got an object",
        "modules: expected an array, got a number",
        "sourceCode: expected an object, got text",
        "threads.a: expected an object, got a number",
        "threads.b.stack.0: expected an object, got a number",
        "threads.main.stack: expected an array, got an object",
    ]
    assert (found.event_id, found.timestamp) == (None, None)


def test_limits() -> None:
    limits = ReportLimits(max_threads=2, max_modules=1, max_string_bytes=10, max_annotations=2)
    document = report(
        lang="python",
        mainThread="1",
        threads={str(n): {"stack": [frame(funcName="f" * 100)] * 5000} for n in range(3)},
        modules=[{"start": n * 100 + 1, "size": 10} for n in range(3)],
        attributes={str(n): "x" * 100 for n in range(5)},
    )
    found = read(json.dumps(document).encode(), limits)
    assert [len(t.frames or ()) for t in found.threads] == [4096, 4096]
    assert len(found.modules) == 1
    assert told(found.threads[0].frames).function == "f" * 10
    assert found.attributes["1"] == "x" * 10
    assert sorted({d.code for d in found.diagnostics}) == ["frame_limit", "limit_exceeded"]


# -- captured requests ------------------------------------------------------------------------------------------------


@pytest.mark.corpus
def test_reports_of_backtracepython(corpus: Path) -> None:
    events = []
    for number in ("009", "010"):
        body = (corpus / f"payloads/captured/backtracepython-{number}.body").read_bytes()
        start = body.index(b'{"uuid"')
        events.append(read(body[start : body.index(b"\r\n--", start)], LIMITS))
    error, message = events
    assert [e.diagnostics for e in events] == [[], []]
    assert [(e.type, e.value) for e in error.exceptions] == [
        ("AppError", "order 12345 failed for user bob@example.com at 0x7ffee")
    ]
    assert (message.message, message.level, message.exceptions) == ("a plain report", "info", [])
    main, worker = error.threads
    assert (main.name, main.crashed, worker.name) == ("MainThread", True, "Thread-1 (_worker)")
    shown = [f.reported for f in main.frames or ()]
    assert [(f.function, f.lineno, f.filename) for f in shown if f] == [
        ("boom", 11, "py_clients.py"),
        ("<module>", 40, "py_clients.py"),
    ]
    assert (told(main.frames).context_line or "").startswith("    except KeyError as e: raise AppError(")
    assert [f.reported.function for f in worker.frames or () if f.reported][:2] == ["wait", "get"]
    assert (error.process_name, error.pid, error.os_name, error.arch) == ("MainProcess", 5998, "Linux", Arch.X86_64)


@pytest.mark.corpus
def test_the_manual_s_curl_sample(corpus: Path) -> None:
    with Engine() as engine:
        event = engine.process(corpus / "payloads/captured/curl-backtrace-json-raw-004.body")
    assert (event.status, event.source.format) == ("ok", "backtrace-json")
    (thread,) = event.threads or []
    (only,) = thread.frames or []
    assert (only.function, only.instruction_addr, only.package) == ("crash", "0x401136", "a.out")
    assert event.timestamp == "2013-05-22T02:13:42Z"


MAPPING = b"""\
shop.checkout.Cart -> a.a:
    1:1:void shop.checkout.Price.check(int):31:31 -> a
    1:1:void total(int):12 -> a
    2:2:void total(int):14:14 -> a
"""


def test_java_frames_through_the_mapping_that_the_report_names(tmp_path: Path) -> None:
    from deadreckon.objects.proguard import identify

    path = tmp_path / "mapping.txt"
    path.write_bytes(MAPPING)
    document = report(
        lang="java",
        symbolication="proguard",
        attributes={"symbolication_id": identify(MAPPING).debug_id, "error.message": "too dear"},
        classifiers=["java.lang.IllegalStateException"],
        threads={"main": {"fault": True, "stack": [frame(funcName="a.a.a", line=1), frame(funcName="a.a.a", line=2)]}},
    )
    with Engine() as engine:
        event = engine.process(json.dumps(document).encode(), symbols=[str(path)])
        bare = engine.process(json.dumps(document).encode())
    assert event.platform == "java"
    assert [(e.type, e.value) for e in event.exceptions or ()] == [("java.lang.IllegalStateException", "too dear")]
    (thread,) = event.threads or []
    assert [(f.module, f.function, f.lineno, f.inline) for f in thread.frames or ()] == [
        ("shop.checkout.Price", "check", 31, True),
        ("shop.checkout.Cart", "total", 12, False),
        ("shop.checkout.Cart", "total", 14, False),
    ]
    (thread,) = bare.threads or []
    assert [(f.module, f.function, f.lineno) for f in thread.frames or ()] == [("a.a", "a", 1), ("a.a", "a", 2)]
    assert "symbols_missing" in {d.code for d in bare.diagnostics or ()}
