"""Sentry's events: the store endpoint's own examples, every interface, in today's spelling and in that of before."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deadreckon import Engine, process, reports
from deadreckon.config import ReportLimits
from deadreckon.errors import LimitExceeded, Malformed
from deadreckon.model.ids import Arch
from deadreckon.reports.sentry import store
from synth.payloads import EVENT_ID, sentry_event, sentry_frame

if TYPE_CHECKING:
    from deadreckon.model.crash import RawCrash, RawFrame
    from deadreckon.model.event import Event, Frame

LIMITS = ReportLimits()
VARIANT = Path(__file__).parent.parent.parent / "native_fixtures/linux/x86_64/pie-O2"


def crash(**changes: Any) -> RawCrash:
    return store.read(json.dumps(sentry_event(**changes)).encode(), LIMITS)


def stack(*frames: dict[str, Any], platform: str = "python", **changes: Any) -> list[RawFrame]:
    """Return the stack of an event with these frames, innermost first, wherever its place is."""
    told = {"values": [{"type": "E", "stacktrace": {"frames": list(frames)}}]}
    found = crash(platform=platform, exception=told, **changes)
    assert [d.message for d in found.diagnostics] == []
    return (found.exceptions[0].frames if platform not in {"native", "cocoa"} else found.threads[0].frames) or []


def told(frame: RawFrame) -> Frame:
    assert frame.reported is not None
    return frame.reported


# -- the documentation's own ------------------------------------------------------------------------------------------

FIRST = {
    "event_id": "fc6d8c0c43fc4630ad850ee518f1b9d0",
    "transaction": "my.module.function_name",
    "timestamp": "2011-05-02T17:41:36",
    "tags": {"ios_version": "4.0"},
    "exception": {"values": [{"type": "SyntaxError", "value": "Wattttt!", "module": "__builtins__"}]},
}
SECOND = {
    "event_id": "fc6d8c0c43fc4630ad850ee518f1b9d0",
    "culprit": "my.module.function_name",
    "timestamp": "2011-05-02T17:41:36",
    "message": "SyntaxError: Wattttt!",
    "exception": {"values": [{"type": "SyntaxError", "value": "Wattttt!", "module": "__builtins__"}]},
}


@pytest.mark.parametrize(
    "encode",
    [
        bytes,
        gzip.compress,
        zlib.compress,
        lambda d: base64.b64encode(zlib.compress(d)),
        lambda d: base64.encodebytes(zlib.compress(d, 1)),
    ],
    ids=["plain", "gzip", "zlib", "base64", "base64 in lines"],
)
@pytest.mark.parametrize("example", [FIRST, SECOND])
def test_the_store_endpoints_examples(example: dict[str, Any], encode: Any) -> None:
    event = process(encode(json.dumps(example).encode()))
    assert (event.status, event.source.format, event.level) == ("ok", "sentry-event", "error")
    assert (event.event_id, event.timestamp) == ("fc6d8c0c43fc4630ad850ee518f1b9d0", "2011-05-02T17:41:36Z")
    assert event.tags == example.get("tags")
    assert event.message == example.get("message")
    assert [(e.type, e.value, e.module) for e in event.exceptions or []] == [
        ("SyntaxError", "Wattttt!", "__builtins__")
    ]
    assert "my.module.function_name" in (event.attributes or {}).values()


# -- exceptions and stacks --------------------------------------------------------------------------------------------


def test_frames_are_innermost_first() -> None:
    found = crash()
    frames = [told(f) for f in found.exceptions[0].frames or []]
    assert [(f.function, f.filename, f.lineno, f.in_app, f.lang) for f in frames] == [
        ("inner", "app/x.py", 2, True, "python"),
        ("main", "app/x.py", 1, True, "python"),
    ]


def test_a_frame_has_all_that_is_told() -> None:
    raw = sentry_frame(
        "f",
        7,
        abs_path="/srv/app/x.py",
        module="app.x",
        colno=3,
        context_line="    raise X",
        pre_context=["a", None],
        post_context=["b"],
        vars={"n": 1, "deep": {"a": [None]}},
        in_app=False,
    )
    (frame,) = [told(f) for f in stack(raw)]
    assert (frame.abs_path, frame.module, frame.colno, frame.in_app) == ("/srv/app/x.py", "app.x", 3, False)
    assert (frame.pre_context, frame.context_line, frame.post_context) == (["a", ""], "    raise X", ["b"])
    assert frame.locals == {"n": 1, "deep": {"a": [None]}}


@pytest.mark.parametrize("name", ["?", "<unknown>", "<anonymous>", "<redacted>", ""])
def test_functions_without_a_name(name: str) -> None:
    (frame,) = [told(f) for f in stack(sentry_frame(name), platform="javascript")]
    assert (frame.function, frame.status) == (None, "missing_symbol")
    assert frame.raw_function == (name or None)


def test_chain_and_group() -> None:
    values = [
        {"type": "B", "value": "b", "mechanism": {"type": "chained", "exception_id": 2, "parent_id": 0}},
        {"type": "A", "value": "a", "mechanism": {"type": "chained", "exception_id": 1, "parent_id": 0}},
        {"type": "Group", "mechanism": {"type": "generic", "handled": True, "is_exception_group": True, "x": None}},
    ]
    found = crash(exception={"values": [None, *values, {}]})
    assert [e.type for e in found.exceptions] == ["Group", "A", "B"]
    assert found.exceptions[0].mechanism == "generic"
    assert found.exceptions[0].details == {"handled": True, "is_exception_group": True}
    assert found.exceptions[2].details == {"exception_id": 2, "parent_id": 0}


@pytest.mark.parametrize(
    "spelling",
    [
        {"values": [{"type": "E", "value": "v"}]},
        [{"type": "E", "value": "v"}],
        {"type": "E", "value": "v"},
    ],
)
def test_spellings_of_interfaces(spelling: Any) -> None:
    found = crash(exception=spelling)
    assert [(e.type, e.value) for e in found.exceptions] == [("E", "v")]
    legacy = crash(exception=..., **{"sentry.interfaces.Exception": spelling})
    assert [(e.type, e.value) for e in legacy.exceptions] == [("E", "v")]
    threads = crash(threads={"values": [{"id": "7", "name": "main", "current": True}]})
    assert [(t.id, t.name, t.frames) for t in threads.threads] == [(7, "main", [])]


def test_names_of_before_2018() -> None:
    found = crash(
        exception=...,
        **{
            "sentry.interfaces.Message": {"message": "hello %s", "params": ["you"]},
            "sentry.interfaces.Http": {"url": "http://x/", "headers": [["A", "b"], ["C", None]]},
            "sentry.interfaces.User": {"id": 7},
            "sentry.interfaces.Stacktrace": {"frames": [sentry_frame("f")]},
            "sentry.interfaces.Breadcrumbs": {"values": [{"message": "m"}]},
            "sentry.interfaces.exception.Exception": [{"type": "E"}],
        },
    )
    assert (found.message, found.user) == ("hello you", {"id": 7})
    assert found.request == {"url": "http://x/", "headers": {"A": "b"}}
    assert found.attributes["breadcrumbs"] == [{"message": "m"}]
    # The event's own stack is that of the only exception without one.
    assert [told(f).function for f in found.exceptions[0].frames or []] == ["f"]
    assert found.threads == []


def test_a_stack_of_the_event_itself() -> None:
    found = crash(exception=..., stacktrace={"frames": [sentry_frame("f")]})
    assert [told(f).function for f in found.threads[0].frames or []] == ["f"]
    assert not found.threads[0].crashed
    two = crash(exception=[{"type": "A"}, {"type": "B"}], stacktrace={"frames": [sentry_frame("f")]})
    assert [e.frames for e in two.exceptions] == [None, None]
    assert len(two.threads) == 1


# -- attributes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"logentry": {"message": "a %s of %d%%", "params": ["x", 7]}}, "a x of 7%"),
        ({"logentry": {"message": "a %(name)s {0}", "params": {"name": "x", "0": "y"}}}, "a x y"),
        ({"logentry": {"message": "{} and {1}", "params": ["x", "y"]}}, "x and y"),
        ({"logentry": {"message": "a %s", "params": []}}, "a %s"),
        ({"logentry": {"message": "a %s %s", "params": ["x"]}}, "a x %s"),
        ({"logentry": {"formatted": "done", "message": "raw"}}, "done"),
        ({"logentry": {"formatted": 42, "params": ["bogus"]}}, None),
        ({"message": "plain"}, "plain"),
        ({"message": {"message": "in an object"}}, "in an object"),
        ({"message": None}, None),
    ],
)
def test_messages(entry: dict[str, Any], message: str | None) -> None:
    found = crash(**entry)
    assert found.message == message
    params = (entry.get("logentry") or {}).get("params")
    assert (found.attributes.get("logentry") or {}).get("params") == (params or None)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"a": "b", "n": 7, "t": True, "none": None, "list": [1]}, {"a": "b", "n": "7", "t": "True"}),
        ([["a", "b"], ["c", 1.5], ["odd"], 7, [None, "x"]], {"a": "b", "c": "1.5"}),
        ("junk", {}),
        (None, {}),
    ],
)
def test_tags(tags: Any, expected: dict[str, str]) -> None:
    assert crash(tags=tags).tags == expected


@pytest.mark.parametrize(
    ("told_time", "seconds"),
    [
        ("2011-05-02T17:41:36", 1304358096.0),
        ("2011-05-02T17:41:36Z", 1304358096.0),
        ("2011-05-02T19:41:36+02:00", 1304358096.0),
        ("2011-05-02T17:41:36.123456789Z", 1304358096.123456),
        (1304358096, 1304358096.0),
        (1304358096.5, 1304358096.5),
        ("1304358096.5", 1304358096.5),
        (1304358096000, 1304358096.0),
        ("yesterday", None),
        (-5, None),
        (1e300, None),
        ([], None),
        (True, None),
    ],
)
def test_times(told_time: Any, seconds: float | None) -> None:
    assert crash(timestamp=told_time).timestamp == seconds


@pytest.mark.parametrize(
    ("fingerprint", "kept"),
    [
        (["{{ default }}", "tenant-1"], ["{{ default }}", "tenant-1"]),
        (["a", 7, None, ""], ["a", "7"]),
        (["{{ default }}"], None),
        (["{{default}}"], None),
        ([], None),
        ("text", None),
    ],
)
def test_fingerprints(fingerprint: Any, kept: list[str] | None) -> None:
    assert crash(fingerprint=fingerprint).grouping == kept


def test_everything_else_is_kept() -> None:
    found = crash(
        level="fatal",
        release="app@1.2.3",
        environment="prod",
        dist="1",
        server_name="vm",
        logger="root",
        transaction="job",
        user={"id": "7", "ip_address": "{{auto}}", "email": None},
        extra={"a": [1]},
        modules={"requests": "2"},
        sdk={"name": "sentry.python", "version": "2", "integrations": ["argv"], "settings": {"x": 1}},
        breadcrumbs=[{"message": "m"}],
        contexts={
            "os": {"name": "Debian", "version": "12.11\n", "build": "x"},
            "device": {"arch": "arm64-v8a"},
            "app": {"app_name": "App", "app_start_time": "2011-05-02T17:41:30"},
        },
    )
    assert (found.level, found.release, found.environment) == ("fatal", "app@1.2.3", "prod")
    assert (found.os_name, found.os_version, found.os_build) == ("Debian", "12.11", "x")
    assert (found.arch, found.process_name, found.uptime_s) == (Arch.UNKNOWN, "App", 6.0)
    assert found.user == {"id": "7", "ip_address": "{{auto}}"}
    assert found.attributes["sdk"] == {"name": "sentry.python", "version": "2", "integrations": ["argv"]}
    assert found.attributes["packages"] == {"requests": "2"}
    assert found.attributes["breadcrumbs"] == [{"message": "m"}]
    kept = {"dist": "1", "server_name": "vm", "logger": "root", "transaction": "job", "extra": {"a": [1]}}
    assert kept.items() <= found.attributes.items()


@pytest.mark.parametrize(
    ("changes", "platform"),
    [
        ({"platform": "cocoa"}, "native"),
        ({"platform": "node"}, "javascript"),
        ({"platform": "python"}, "python"),
        ({"platform": "other", "sdk": {"name": "sentry.javascript.browser"}}, "javascript"),
        ({"platform": ..., "sdk": {"name": "sentry.native.unreal"}}, "native"),
        ({"platform": ...}, "python"),
        ({"platform": ..., "exception": ...}, "other"),
        ({"platform": ..., "exception": [{"stacktrace": {"frames": [{"filename": "b"}]}}]}, "other"),
        ({"platform": ..., "exception": [{"stacktrace": {"frames": [{"filename": "http://x/b.js?1"}]}}]}, "javascript"),
        ({"platform": ..., "exception": [{"stacktrace": {"frames": [{"instruction_addr": "0x1"}]}}]}, "native"),
    ],
)  # fmt: skip
def test_platforms(changes: dict[str, Any], platform: str) -> None:
    assert crash(**changes).platform == platform


def test_platform_by_a_threads_files() -> None:
    threads = {
        "values": [{"id": 1, "crashed": True, "stacktrace": {"frames": [sentry_frame("index", filename="a.rb")]}}]
    }
    assert crash(platform=..., exception=..., threads=threads).platform == "ruby"


def test_transaction() -> None:
    found = crash(exception=..., type="transaction", transaction="GET /", spans=[{"op": "db"}])
    assert (found.level, found.message, found.exceptions) == ("info", "GET /", [])
    assert found.attributes["type"] == "transaction"


# -- native -----------------------------------------------------------------------------------------------------------

IMAGE = {
    "type": "elf",
    "code_file": "/lib/libx.so",
    "debug_id": "6862a0a0-9544-2d09-1756-e30ba2dff37d",
    "code_id": "A0A062684495092D1756E30BA2DFF37D",
    "image_addr": "0x1000",
    "image_size": 0x1000,
    "arch": "x86_64",
}


def test_addresses_are_the_threads() -> None:
    frames = [{"instruction_addr": "0x1800", "function": "main"}, {"instruction_addr": 0x1234}]
    found = crash(
        platform="native",
        level="fatal",
        exception={"values": [{"type": "SIGSEGV", "stacktrace": {"frames": frames}}]},
        debug_meta={"images": [IMAGE]},
    )
    assert found.exceptions[0].frames is None
    (thread,) = found.threads
    assert thread.crashed
    assert found.exceptions[0].thread_id == thread.id
    assert [(f.instruction_addr, f.is_return_address) for f in thread.frames or []] == [(0x1234, False), (0x1800, True)]
    (module,) = found.modules
    assert (module.image_addr, module.image_size, module.arch) == (0x1000, 0x1000, Arch.X86_64)
    assert (module.debug_id, module.code_id) == (IMAGE["debug_id"], "a0a062684495092d1756e30ba2dff37d")
    assert found.arch == Arch.X86_64


@pytest.mark.parametrize(
    ("adjustment", "signal", "pc", "expected"),
    [
        (None, None, None, [False, True]),
        ("auto", 11, "0x1234", [False, True]),
        ("auto", 11, "0x9999", [True, True]),
        ("auto", 15, "0x9999", [False, True]),
        ("all", None, None, [True, True]),
        ("all_but_first", 11, "0x9999", [False, True]),
        ("none", None, None, [False, False]),
        ("nonsense", None, None, [False, True]),
    ],
)
def test_instruction_addr_adjustment(adjustment: Any, signal: Any, pc: Any, expected: list[bool]) -> None:
    stacktrace = {
        "frames": [{"instruction_addr": "0x1800"}, {"instruction_addr": "0x1234"}],
        "registers": {"rip": pc} if pc else None,
        "instruction_addr_adjustment": adjustment,
    }
    mechanism = {"type": "signalhandler", "meta": {"signal": {"number": signal, "name": "X"}}}
    found = crash(
        platform="native", exception={"values": [{"type": "X", "mechanism": mechanism, "stacktrace": stacktrace}]}
    )
    assert [f.is_return_address for f in found.threads[0].frames or []] == expected


@pytest.mark.parametrize(
    ("mode", "addr", "expected"),
    [
        ("abs", "0x1234", 0x1234),
        ("rel:0", "0x234", 0x1234),
        ("rel:6862A0A095442D091756E30BA2DFF37D0", "0x234", 0x1234),
        ("rel:1", "0x234", None),
        ("rel:99", "0x234", None),
        ("rel:99999999999999999999", "0x234", None),
        ("rel", "0x234", None),
        ("rel:junk", "0x234", None),
        ("rel:0", "0xffffffffffffffff", None),
    ],
)
def test_addr_mode(mode: str, addr: str, expected: int | None) -> None:
    found = crash(
        platform="native",
        exception={
            "values": [{"stacktrace": {"frames": [{"instruction_addr": addr, "addr_mode": mode}]}, "type": "E"}]
        },
        debug_meta={"images": [IMAGE, {"type": "sourcemap", "debug_id": "x", "code_file": "y"}]},
    )
    assert [f.instruction_addr for f in found.threads[0].frames or []] == [expected]
    assert bool(found.diagnostics) == (expected is None)


def test_image_without_an_address() -> None:
    image = {k: v for k, v in IMAGE.items() if k != "image_addr"}
    frames = [{"instruction_addr": "0x234", "addr_mode": "rel:0"}]
    (frame,) = stack(*frames, platform="native", debug_meta={"images": [image]})
    found = crash(platform="native", debug_meta={"images": [image]})
    assert found.modules[0].relative
    assert frame.instruction_addr == found.modules[0].image_addr + 0x234


def test_dotnet_addresses_count_from_a_function() -> None:
    raw = {"function": "f", "instruction_addr": "0x12", "function_id": "0x6000001", "addr_mode": "rel:0"}
    (frame,) = stack(raw, platform="csharp")
    assert frame.instruction_addr is None
    assert told(frame).origin == {"function_id": "0x6000001", "instruction_addr": "0x12"}


def test_registers() -> None:
    stacktrace = {
        "frames": [{"instruction_addr": "0x1234"}],
        "registers": {"rip": "0x1234", "rsp": "0x10", "eflags": "7"},
    }
    found = crash(
        platform="native",
        contexts={"device": {"arch": "x86_64"}},
        exception={"values": [{"type": "E", "thread_id": 9, "stacktrace": stacktrace}]},
        threads={"values": [{"id": 8}, {"id": 9, "name": "main", "crashed": True}]},
    )
    thread = found.threads[1]
    assert thread.registers is not None
    assert (thread.registers.pc, thread.registers.sp, thread.registers.others) == (0x1234, 0x10, {"eflags": 7})
    assert [f.instruction_addr for f in thread.frames or []] == [0x1234]
    assert (found.threads[0].frames, found.exceptions[0].frames) == ([], None)


def test_a_thread_with_a_stack_of_its_own_keeps_it() -> None:
    def threads(addr: str) -> dict[str, Any]:
        return {"values": [{"id": 9, "crashed": True, "stacktrace": {"frames": [{"instruction_addr": addr}]}}]}

    exception = {"values": [{"type": "E", "thread_id": 9, "stacktrace": {"frames": [{"instruction_addr": "0x1"}]}}]}
    same = crash(platform="native", exception=exception, threads=threads("0x1"))
    other = crash(platform="native", exception=exception, threads=threads("0x2"))
    assert same.exceptions[0].frames is None
    assert [f.instruction_addr for f in other.threads[0].frames or []] == [2]
    assert [f.instruction_addr for f in other.exceptions[0].frames or []] == [1]


@pytest.mark.parametrize(
    "image",
    [
        {"type": "macho", "code_file": "/x", "debug_id": "6862a0a0-9544-2d09-1756-e30ba2dff37d", "image_addr": 4096},
        {"type": "apple", "name": "/x", "uuid": "6862A0A0-9544-2D09-1756-E30BA2DFF37D", "image_addr": "0x1000"},
        {"type": "symbolic", "name": "/x", "id": "6862a0a095442d091756e30ba2dff37d", "image_addr": "4096"},
        {"type": "elf", "code_file": "/x", "code_id": "a0a062684495092d1756e30ba2dff37d00000000", "image_addr": "4096"},
    ],
)  # fmt: skip
def test_spellings_of_images(image: dict[str, Any]) -> None:
    (module,) = crash(debug_meta={"images": [image]}).modules
    assert (module.image_addr, module.code_file) == (0x1000, "/x")
    assert module.debug_id == "6862a0a0-9544-2d09-1756-e30ba2dff37d"


def test_images_of_other_kinds() -> None:
    images = [
        {"type": "proguard", "uuid": "6862A0A0-9544-2D09-1756-E30BA2DFF37D"},
        {"type": "sourcemap", "code_file": "app:///main.js", "debug_id": "6862a0a0-9544-2d09-1756-e30ba2dff37d"},
        {"type": "jvm", "debug_id": "7862a0a0-9544-2d09-1756-e30ba2dff37d"},
        None,
    ]
    frame = sentry_frame("f", abs_path="app:///main.js", filename="main.js")
    found = crash(
        platform="javascript",
        debug_meta={"images": images},
        exception=[{"type": "E", "stacktrace": {"frames": [frame]}}],
    )
    assert found.mappings == ["6862a0a0-9544-2d09-1756-e30ba2dff37d"]
    assert told((found.exceptions[0].frames or [])[0]).debug_id == "6862a0a0-9544-2d09-1756-e30ba2dff37d"
    assert found.attributes["debug_meta"] == {"images": [images[2]]}
    assert found.modules == []
    assert [d.message for d in found.diagnostics] == ["debug_meta.images.3: expected an image with an address or an id"]


def test_images_over_one_another() -> None:
    images = [
        {**IMAGE, "image_addr": "0x3000"},
        {**IMAGE, "image_addr": "0x1000", "image_size": 0},
        {**IMAGE, "image_addr": "0x2000", "image_size": 1 << 40},
        {**IMAGE, "image_addr": "0x2000", "debug_id": "7862a0a0-9544-2d09-1756-e30ba2dff37d"},
    ]
    found = crash(debug_meta={"images": images})
    assert [(m.image_addr, m.image_size) for m in found.modules] == [
        (0x1000, 0x1000),
        (0x2000, 0x1000),
        (0x3000, 0x1000),
    ]
    assert [d.code for d in found.diagnostics] == ["module_overlap"]


def functions(event: Event) -> list[tuple[str | None, str | None, int | None]]:
    thread = next(t for t in event.threads or () if t.crashed)
    return [(f.function, f.filename, f.lineno) for f in thread.frames or ()]


def test_native_frames_are_symbolicated() -> None:
    """A minidump's stack, sent again as an event by a client that has no symbols."""
    with Engine() as engine:
        dump = engine.process(VARIANT / "dumps/templates.dmp", symbols=[str(VARIANT)])
        known = [f for f in functions(dump) if f[0] is not None]
        assert len(known) > 2
        for mode in ("abs", "rel:index", "rel:id", "no address"):
            event = engine.process(json.dumps(sent_again(dump, mode)).encode(), symbols=[str(VARIANT)])
            assert [f for f in functions(event) if f[0] is not None] == known, mode


def sent_again(dump: Event, mode: str) -> dict[str, Any]:
    """The event of a crash's addresses; ``mode`` is how they are given."""
    stack = next(t for t in dump.threads or () if t.crashed).frames or []
    modules = [m for m in dump.modules or () if m.symbols == "found"]
    frames = []
    for frame in reversed([f for f in stack if not f.inline]):
        raw: dict[str, Any] = {"instruction_addr": frame.instruction_addr}
        number = next((n for n, m in enumerate(modules) if m.image_addr == frame.image_addr), None)
        if mode != "abs" and number is not None:
            named = number if mode != "rel:id" else modules[number].debug_id
            raw = {"instruction_addr": frame.rva, "addr_mode": f"rel:{named}"}
        frames.append(raw)
    images = [
        {
            "type": "elf",
            "code_file": m.code_file,
            "code_id": m.code_id,
            "debug_id": m.debug_id,
            "image_addr": m.image_addr if mode != "no address" else None,
            "image_size": m.image_size,
            "arch": "x86_64",
        }
        for m in modules
    ]
    return sentry_event(
        platform="native",
        level="fatal",
        exception=[{"type": "SIGSEGV", "stacktrace": {"frames": frames}}],
        debug_meta={"images": images},
    )


# -- what is no event -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"[]", b"7", b'{"event_id"', b"", b"eJwAAAAA", b"x\x9cjunk"])
def test_no_event(body: bytes) -> None:
    with pytest.raises((Malformed, LimitExceeded)):
        store.read(body, LIMITS)


def test_values_of_wrong_types_cost_themselves() -> None:
    junk: list[Any] = [
        None,
        7,
        "x",
        [],
        {},
        True,
        1.5,
        [[1]],
        {"values": 7},
        {"values": [7, None, {}]},
        {"frames": [7]},
    ]
    names = (
        *("exception", "threads", "stacktrace", "debug_meta", "contexts", "tags", "user", "request", "sdk", "logentry"),
        *("message", "modules", "breadcrumbs", "extra", "level", "platform", "timestamp", "event_id", "fingerprint"),
    )
    for name in names:
        for value in junk:
            crash(**{name: value})
            crash(**{name: [value]})
    for value in junk:
        crash(exception=[{"type": value, "value": value, "mechanism": value, "stacktrace": value, "thread_id": value}])
        crash(exception=[{"type": "E", "mechanism": {"meta": value, "data": value}}])
        crash(exception=[{"type": "E", "mechanism": {"meta": {"signal": value, "mach_exception": value}}}])
        crash(threads=[{"id": value, "name": value, "crashed": value, "stacktrace": value}])
        crash(debug_meta={"images": [value]}, contexts={"os": value, "device": value, "app": value})
        for name in ("function", "abs_path", "lineno", "vars", "platform", "in_app", "instruction_addr", "pre_context"):
            crash(exception=[{"type": "E", "stacktrace": {"frames": [{"filename": "x", name: value}]}}])
        for name in ("type", "debug_id", "code_id", "image_addr", "image_size", "arch", "code_file"):
            crash(debug_meta={"images": [{**IMAGE, name: value}]})


def test_who_recognises_it() -> None:
    def hits(value: Any) -> list[str]:
        return [f.name for f in reports.FORMATS if f.sniff(reports.Probe(json.dumps(value).encode()))]

    assert hits(sentry_event()) == ["sentry-event"]
    assert hits({"exception": {"values": []}}) == ["sentry-event"]
    assert hits({"sentry.interfaces.User": {}}) == ["sentry-event"]
    assert hits({"_meta": {}, "request": {}}) == ["sentry-event"]
    assert hits({"name": "package", "version": "1"}) == []
    assert hits({"schema": "deadreckon.event/1", "event_id": EVENT_ID, "platform": "native", "status": "ok"}) == []
    cut = json.dumps(sentry_event()).encode()[:-20]
    assert [f.name for f in reports.FORMATS if f.sniff(reports.Probe(cut))] == ["sentry-event"]


def test_frames_that_share_an_address_were_inlined() -> None:
    """As events are that Sentry itself has symbolicated; a call of a function to itself has one name and is none."""
    raw = [
        {"function": "main", "instruction_addr": "0x1800"},
        {"function": "again", "instruction_addr": "0x1700"},
        {"function": "again", "instruction_addr": "0x1700"},
        {"function": "f", "instruction_addr": "0x1234"},
        {"function": "inlined", "instruction_addr": "0x1234"},
    ]
    found = stack(*raw, platform="native")
    assert [(told(f).function, told(f).inline, f.is_return_address) for f in found] == [
        ("inlined", True, False),
        ("f", False, False),
        ("again", False, True),
        ("again", False, True),
        ("main", False, True),
    ]


def test_javascript_without_a_word_on_whose_code_it_is() -> None:
    raw = [{"filename": "app:///node_modules/a.js"}, {"filename": "app:///main.js"}]
    assert [told(f).in_app for f in stack(*raw, platform="javascript")] == [True, False]
    found = crash(platform="node", exception=[{"type": "E", "stacktrace": "E: x\n    at f (/srv/a.js:1:2)"}])
    (frame,) = [told(f) for f in found.exceptions[0].frames or []]
    assert (frame.function, frame.abs_path, frame.lineno, frame.colno) == ("f", "/srv/a.js", 1, 2)


def test_javascript_frames_are_mapped_by_their_images_debug_ids(tmp_path: Path) -> None:
    identity = "6862a0a0-9544-2d09-1756-e30ba2dff37d"
    source = "// one\nfunction failing() {\n  throw new Error('x')\n}\n"
    told_map = {
        "version": 3,
        "sources": ["src/a.ts"],
        "sourcesContent": [source],
        "names": ["failing"],
        "debugId": identity,
    }
    (tmp_path / "other-name.js.map").write_text(json.dumps({**told_map, "mappings": "AACA,SAASA,IACP"}))
    url = "https://cdn.example.com/x/app.min.js"
    frame = {"filename": url, "abs_path": url, "function": "f", "lineno": 1, "colno": 16}
    sent = sentry_event(
        platform="javascript",
        exception=[{"type": "Error", "value": "x", "stacktrace": {"frames": [frame]}}],
        debug_meta={"images": [{"type": "sourcemap", "code_file": url, "debug_id": identity.upper()}]},
    )
    with Engine() as engine:
        event = engine.process(json.dumps(sent).encode(), sourcemaps=[str(tmp_path)])
    (mapped,) = (event.exceptions or [])[0].frames or []
    assert (mapped.filename, mapped.lineno, mapped.context_line) == ("src/a.ts", 3, "  throw new Error('x')")
    assert (mapped.origin or {})["map_by"] == "debug_id"
