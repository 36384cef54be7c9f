"""Events handed to other products: what a product's reader makes of the export is the event again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from deadreckon import Engine
from deadreckon.adapters.backtrace import backtrace_report
from deadreckon.adapters.posthog import captured
from deadreckon.adapters.rollbar import rollbar_item
from deadreckon.adapters.sentry import sentry_event
from deadreckon.ingest import rollbar as rollbar_api
from deadreckon.model.event import Event, ExceptionInfo, Frame, ModuleInfo, OsInfo, Source, Thread
from synth.payloads import posthog_event, rollbar_trace
from synth.payloads import rollbar_item as posted_item
from synth.payloads import sentry_event as posted_event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DUMPS = Path(__file__).parent.parent.parent / "native_fixtures/linux/x86_64/pie-O2/dumps"
EXPORTS: dict[str, Callable[[Event], dict[str, Any]]] = {
    "sentry-event": sentry_event,
    "rollbar": rollbar_item,
    "backtrace-json": backtrace_report,
    "posthog": captured,
}
"""By the format that the export is read as."""
SECURITY = ("csp", "hpkp", "expectct", "expectstaple")
"""Members of reports that browsers send to Sentry, which its schema of what clients send leaves out."""


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as made:
        yield made


def again(engine: Engine, event: Event, form: str) -> Event:
    """Return the event of an event's export, which is told by its content."""
    found = engine.process(json.dumps(EXPORTS[form](event)).encode())
    assert found.source.format == form
    return found


def stack(frames: list[Frame] | None) -> list[tuple[Any, ...]]:
    return [(f.function, f.abs_path, f.lineno, f.colno, f.context_line, f.locals) for f in frames or ()]


def chain(event: Event) -> list[tuple[Any, ...]]:
    return [(e.type, e.value, stack(e.frames)) for e in event.exceptions or ()]


def managed() -> dict[str, Any]:
    """A Python error with its cause, and all that clients say beside one."""

    def frame(name: str, line: int, *, own: bool = True) -> dict[str, Any]:
        around = {"pre_context": ["a", "b"], "context_line": f"{name}()", "post_context": ["c"]}
        place = {"filename": "app/x.py", "abs_path": "/srv/app/x.py", "lineno": line, "module": "app.x"}
        return {"function": name, **place, **around, "in_app": own, "vars": {"n": str(line)}}

    def thrown(kind: str, *frames: dict[str, Any], **mechanism: Any) -> dict[str, Any]:
        return {
            "type": kind,
            "value": f"{kind} was thrown",
            "mechanism": {"type": "generic", "handled": False, **mechanism},
            "stacktrace": {"frames": list(frames)},
        }

    cause = thrown("KeyError", frame("main", 9), frame("inner", 2, own=False), exception_id=1, parent_id=0)
    return posted_event(
        exception={"values": [cause, thrown("AppError", frame("main", 10), frame("boom", 11), exception_id=0)]},
        timestamp="2026-11-20T21:03:01Z",
        level="warning",
        release="app@1",
        environment="prod",
        tags={"tier": "gold"},
        user={"id": "7", "email": "a@example.com"},
        request={"url": "https://x/y", "method": "GET", "headers": {"Accept": "*"}},
        fingerprint=["mine"],
        contexts={"runtime": {"type": "runtime", "name": "CPython", "version": "3.11"}},
        extra={"order": 7},
        breadcrumbs={"values": [{"message": "clicked", "type": "ui"}]},
        sdk={"name": "sentry.python", "version": "2.75"},
        server_name="vm",
        modules={"flask": "3"},
        transaction="GET /y",
    )


@pytest.mark.parametrize("form", list(EXPORTS))
def test_an_error_with_its_cause(engine: Engine, form: str) -> None:
    event = engine.process(json.dumps(managed()).encode())
    found = again(engine, event, form)
    assert (found.event_id, found.timestamp, found.release) == (event.event_id, event.timestamp, event.release)
    assert (found.environment, found.user) == (event.environment, event.user)
    if form == "backtrace-json":
        # One exception, with its stack in a thread; the cause is told beside it.
        (thrown,) = found.exceptions or []
        (thread,) = found.threads or []
        assert (thrown.type, thrown.value, stack(thread.frames)) == chain(event)[0]
        (cause,) = (found.attributes or {})["annotations"]["causes"]
        assert [f["funcName"] for f in cause["stack"]] == ["inner", "main"]
        return
    assert chain(found) == chain(event)
    assert (found.platform, found.level, found.grouping) == ("python", "warning", ["mine"])
    if form != "rollbar":  # Which tells by paths whose code it is.
        assert found.fingerprint == event.fingerprint
    if form == "sentry-event":
        found.source, event.source = Source(format="x"), Source(format="x")
        assert found == event


def test_frames_and_chains_are_in_each_products_order(engine: Engine) -> None:
    event = engine.process(json.dumps(managed()).encode())
    names = ["inner", "main"]  # Innermost first, of the cause.
    values = sentry_event(event)["exception"]["values"]
    assert [v["type"] for v in values] == ["KeyError", "AppError"]
    assert [f["function"] for f in values[0]["stacktrace"]["frames"]] == names[::-1]
    traces = rollbar_item(event)["data"]["body"]["trace_chain"]
    assert [t["exception"]["class"] for t in traces] == ["AppError", "KeyError"]
    assert [f["method"] for f in traces[1]["frames"]] == names[::-1]
    listed = captured(event)["properties"]["$exception_list"]
    assert [e["type"] for e in listed] == ["AppError", "KeyError"]
    assert [f["resolved_name"] for f in listed[1]["stacktrace"]["frames"]] == names[::-1]
    report = backtrace_report(event)
    assert [f["funcName"] for f in report["threads"][report["mainThread"]]["stack"]] == ["boom", "main"]


@pytest.mark.parametrize("form", list(EXPORTS))
def test_a_native_crash(engine: Engine, form: str) -> None:
    event = engine.process(DUMPS / "templates.dmp")
    found = again(engine, event, form)
    (crashed,) = [t for t in event.threads or () if t.crashed]
    addresses = [f.instruction_addr for f in crashed.frames or ()]
    assert addresses
    assert (found.event_id, (found.exceptions or [])[0].type) == (
        event.event_id,
        (event.exceptions or [])[0].type,
    )
    if form in {"sentry-event", "backtrace-json"}:
        (thread,) = [t for t in found.threads or () if t.crashed]
        assert [f.instruction_addr for f in thread.frames or ()] == addresses
        assert [f.function for f in thread.frames or ()] == [f.function for f in crashed.frames or ()]
        assert len(found.modules or ()) == len(event.modules or ())
        known = {m.image_addr: m.debug_id for m in event.modules or ()}
        assert {m.image_addr: m.debug_id for m in found.modules or ()} == known
    else:
        stacks = [*(e.frames for e in found.exceptions or ()), *(t.frames for t in found.threads or ())]
        assert len(next(s for s in stacks if s)) == len(addresses)


def test_guesses_are_told() -> None:
    sure = Frame(status="missing", instruction_addr="0x10", trust="context", in_app=True)
    guess = Frame(status="missing", instruction_addr="0x20", trust="scan", in_app=True)
    event = Event(
        schema="s",
        event_id="0" * 32,
        status="ok",
        source=Source(format="minidump"),
        platform="native",
        exceptions=[ExceptionInfo(type="SIGSEGV", code="0xb", address="0x8", mechanism="minidump", thread_id=7)],
        threads=[Thread(id=7, crashed=True, frames=[sure, guess], registers={"rip": "0x10"})],
    )
    (value,) = sentry_event(event)["exception"]["values"]
    assert [f["in_app"] for f in value["stacktrace"]["frames"]] == [False, True]
    assert value["thread_id"] == 7
    assert value["stacktrace"]["registers"] == {"rip": "0x10"}
    assert value["mechanism"]["meta"]["signal"] == {"number": 11, "name": "SIGSEGV"}
    assert value["mechanism"]["data"] == {"relevant_address": "0x8"}
    told = backtrace_report(event)
    assert [f.get("guessed_frame") for f in told["threads"]["7"]["stack"]] == [None, True]
    assert told["attributes"]["fault.address"] == "0x8"


def test_images_without_an_address() -> None:
    """Frames of reports that tell offsets only count from their image."""
    frame = Frame(status="missing_symbol", rva="0x1234", package="/x/lib.so", debug_id="d" * 32)
    event = Event(
        schema="s",
        event_id="0" * 32,
        status="ok",
        source=Source(format="x"),
        platform="native",
        os=OsInfo(name="Android"),
        threads=[Thread(id=1, crashed=True, frames=[frame])],
        modules=[ModuleInfo(code_file="/other"), ModuleInfo(code_file="/x/lib.so", debug_id="d" * 32)],
    )
    told = sentry_event(event)
    (written,) = told["threads"]["values"][0]["stacktrace"]["frames"]
    assert (written["instruction_addr"], written["addr_mode"]) == ("0x1234", "rel:1")
    assert told["debug_meta"]["images"][1] == {"type": "elf", "code_file": "/x/lib.so", "debug_id": "d" * 32}


def test_columns_of_node_count_from_zero_for_rollbar(engine: Engine) -> None:
    trace = rollbar_trace()
    trace["frames"] = [{"filename": "/app/x.js", "lineno": 3, "colno": 0, "method": "f"}]
    for notifier, column in (("node_rollbar", 1), ("rollbar-browser-js", None)):
        item = posted_item({"trace": trace}, language="javascript", notifier={"name": notifier, "version": "3"})
        event = engine.process(json.dumps(item).encode())
        assert [f.colno for e in event.exceptions or () for f in e.frames or ()] == [column]
        assert chain(again(engine, event, "rollbar")) == chain(event)


def test_scripts_that_no_map_was_applied_to_keep_their_debug_ids() -> None:
    raw = Frame(status="missing", lang="javascript", abs_path="https://x/a.js", lineno=1, colno=9, debug_id="d" * 32)
    mapped = Frame(
        status="symbolicated",
        lang="javascript",
        abs_path="src/a.ts",
        lineno=1,
        debug_id="e" * 32,
        origin={"abs_path": "https://x/b.js"},
    )
    event = Event(
        schema="s",
        event_id="0" * 32,
        status="ok",
        source=Source(format="x"),
        platform="javascript",
        exceptions=[ExceptionInfo(type="E", frames=[raw, mapped])],
    )
    (image,) = sentry_event(event)["debug_meta"]["images"]
    assert image == {"type": "sourcemap", "code_file": "https://x/a.js", "debug_id": "d" * 32}


def test_what_rollbar_asks_for() -> None:
    """An item of any event passes its API's own checks."""
    base = Event(schema="s", event_id="0" * 32, status="ok", source=Source(format="x"))
    variants: list[dict[str, Any]] = [
        {},
        {"message": "hello"},
        {"message": "hello", "exceptions": [ExceptionInfo()]},
        {"exceptions": [ExceptionInfo(type="E"), ExceptionInfo(type="C")]},
        {"threads": [Thread(id=1, crashed=True, frames=[Frame(status="missing")])]},
        {"environment": "e" * 400, "title": "t" * 400, "user": {"id": "i" * 100}, "grouping": ["{{ default }}", "x"]},
    ]
    for changes in variants:
        item = rollbar_item(msgspec.structs.replace(base, **changes), "token")
        assert rollbar_api.problem_of(item) is None
        assert item["access_token"] == "token"
    data = item["data"]
    assert (len(data["environment"]), len(data["title"]), len(data["person"]["id"])) == (255, 255, 40)
    assert "fingerprint" not in data  # Only Sentry knows what its default is.
    assert data["custom"]["fingerprint"] == ["{{ default }}", "x"]


@pytest.mark.parametrize(("level", "spelled"), [("fatal", "critical"), ("info", "info"), (None, None), ("?", None)])
def test_levels(level: str | None, spelled: str | None) -> None:
    event = Event(schema="s", event_id="0" * 32, status="ok", source=Source(format="x"), level=level)
    assert rollbar_item(event)["data"].get("level") == spelled
    assert sentry_event(event)["level"] == (level if level in {"fatal", "info"} else "error")


def test_an_event_of_nobody(engine: Engine) -> None:
    event = engine.process(json.dumps(posthog_event()).encode())
    event.user = None
    told = captured(event, "phc_key")
    assert (told["api_key"], told["distinct_id"]) == ("phc_key", event.event_id)
    assert told["properties"]["$process_person_profile"] is False


@pytest.mark.corpus
def test_exports_fit_sentrys_schema(corpus: Path, engine: Engine) -> None:
    """Whatever was read, from whichever product or format, Sentry's own schema of events takes the export."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((corpus / "payloads/sentry-event.schema.json").read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    patterns = ("payloads/captured/*.body", "payloads/sentry-samples*/**/*.json", "payloads/posthog/*.json")
    checked = same = 0
    for path in sorted(p for pattern in patterns for p in corpus.glob(pattern)):
        for event in engine.process_all(path):
            if event.status in {"unreadable", "unsupported"}:
                continue
            told = sentry_event(event)
            problems = [
                f"{path.name}: {error.json_path}: {error.message[:200]}"
                for error in validator.iter_errors({k: v for k, v in told.items() if k not in SECURITY})
            ]
            assert not problems
            checked += 1
            if event.source.format.startswith("sentry"):
                found = engine.process(msgspec.json.encode(told))
                assert found.event_id == event.event_id
                assert found.fingerprint is not None
                assert event.fingerprint is not None
                assert found.fingerprint.id == event.fingerprint.id, path.name
                same += 1
    assert checked >= 60
    assert same >= 50
