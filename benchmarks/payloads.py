"""Error trackers' payloads from bytes to events, beside what ``json.loads`` takes for the same bytes.

    python -m benchmarks.payloads [--events N] [--json FILE]

An event is read, normalized, fingerprinted and titled, as ``Engine.process`` does for a job whose kind ingestion has
told: 7 KB, 30 frames. The events differ, and share the functions of one program; in a second run no two do. Every
event's exception, frames, user and tags are compared with the document's own before anything is timed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import _result
from benchmarks._result import Result

from deadreckon import Engine, reports

if TYPE_CHECKING:
    from collections.abc import Callable

    from deadreckon.model.event import Event

FRAMES = 30
CODE = "        result = self.dispatch(request, *args)"
FUNCTIONS = 400
ROUNDS = 41
WANTED = 5.0
"""How many times what ``json.loads`` takes it may be at most."""


_NEVER = itertools.count(FUNCTIONS)


class Program:
    """Makes up stacks: of the functions of one program, or of ones that are never seen again."""

    def __init__(self, *, fresh: bool) -> None:
        self._random = random.Random(7)  # noqa: S311
        self._fresh = fresh

    def __call__(self) -> list[dict[str, Any]]:
        """Return what each of a stack's frames has, outermost first."""
        return [self._place() for _ in range(FRAMES)]

    def _place(self) -> dict[str, Any]:
        n = next(_NEVER) if self._fresh else self._random.randrange(FUNCTIONS)
        file = f"app/views/module_{n if self._fresh else n % 37}.py"
        return {
            "function": f"handle_request_{n}",
            "module": file[:-3].replace("/", "."),
            "filename": file,
            "abs_path": f"/srv/{file}",
            "lineno": 100 + n % 900,
            "context_line": CODE,
            "in_app": n % 3 != 0,
        }


def sentry(number: int, frames: list[dict[str, Any]]) -> dict[str, Any]:
    """An event of Python."""
    mechanism = {"type": "generic", "handled": True}
    thrown = {"type": "KeyError", "value": f"'{number}'", "mechanism": mechanism, "stacktrace": {"frames": frames}}
    return {
        "event_id": f"{number:032x}",
        "platform": "python",
        "timestamp": "2026-11-20T21:03:01.908Z",
        "release": "app@1.2.3",
        "environment": "production",
        "tags": {"tier": "gold"},
        "user": {"id": str(number)},
        "sdk": {"name": "sentry.python", "version": "2"},
        "exception": {"values": [thrown]},
    }


def rollbar(number: int, frames: list[dict[str, Any]]) -> dict[str, Any]:
    """An item with a chain of one trace."""
    names = {"filename": "abs_path", "lineno": "lineno", "method": "function", "class_name": "module"}
    around = {"context": {"pre": ["        # comment"], "post": ["        return result"]}}
    listed = [{**{theirs: f[ours] for theirs, ours in names.items()}, "code": CODE, **around} for f in frames]
    trace = {"frames": listed, "exception": {"class": "KeyError", "message": f"'{number}'"}}
    data = {
        "environment": "production",
        "uuid": f"{number:032x}",
        "language": "python 3.11",
        "person": {"id": str(number)},
        "server": {"host": "vm", "root": "/srv/app"},
        "body": {"trace_chain": [trace]},
    }
    return {"access_token": "a" * 32, "data": data}


def posthog(number: int, frames: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch of one event."""
    listed = [{"platform": "python", **f} for f in frames]
    thrown = {"type": "KeyError", "value": f"'{number}'", "stacktrace": {"type": "raw", "frames": listed}}
    event = {
        "event": "$exception",
        "uuid": f"{number:032x}",
        "distinct_id": str(number),
        "timestamp": "2026-11-20T21:03:05Z",
        "properties": {"$lib": "posthog-python", "$os": "Linux", "$exception_list": [thrown]},
    }
    return {"api_key": "phc", "batch": [event]}


CASES: dict[str, Callable[[int, list[dict[str, Any]]], dict[str, Any]]] = {
    "sentry-event": sentry,
    "sentry-envelope": sentry,
    "rollbar": rollbar,
    "posthog": posthog,
}


def problem(event: Event, number: int, frames: list[dict[str, Any]]) -> str | None:
    """Say what an event lacks of its document, None for nothing."""
    exceptions = event.exceptions or []
    if event.status != "ok" or event.event_id != f"{number:032x}" or event.fingerprint is None:
        return "status, id or fingerprint"
    if [(e.type, e.value) for e in exceptions] != [("KeyError", f"'{number}'")] or not event.title:
        return "exception or title"
    if (event.user or {}).get("id") != str(number):
        return "user"
    found = [(f.function, f.abs_path, f.lineno, f.context_line) for f in exceptions[0].frames or ()]
    told = [(f["function"], f["abs_path"], f["lineno"], f["context_line"]) for f in reversed(frames)]
    return None if found == told else "frames"


def main() -> int:
    """Check every event, time in turns, write the result. Exit 1 if an event is not what its document says."""
    parser = argparse.ArgumentParser(description="Payloads to events, beside json.loads.")
    parser.add_argument("--events", type=int, default=60)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    answers, notes = [], []
    with Engine() as engine:
        for fresh in (False, True):
            for kind, make in CASES.items():
                program = Program(fresh=fresh)
                stacks = [program() for _ in range(options.events)]
                texts = [json.dumps(make(n, stack)).encode() for n, stack in enumerate(stacks)]
                around = b'{"sent_at":"2026-11-20T21:03:05Z"}\n{"type":"event"}\n' if "envelope" in kind else b""
                bodies = [around + text for text in texts]
                if not fresh:
                    for number, (body, stack) in enumerate(zip(bodies, stacks, strict=True)):
                        if wrong := problem(engine.process(body, kind=kind), number, stack):
                            print(f"{kind}, event {number}: {wrong}", file=sys.stderr)
                            return 1
                ours, theirs = [], []
                for turn in range(1 if fresh else ROUNDS):
                    for at in range(0, len(texts), 20):
                        chosen = slice(at, at + 20)
                        if not fresh and turn % 3 != at // 20 % 3:
                            continue  # A third of the events each turn: as many pairs, in less time.
                        start = time.process_time()
                        for text in texts[chosen]:
                            json.loads(text)
                        middle = time.process_time()
                        for body in bodies[chosen]:
                            engine.process(body, kind=kind)
                        ours.append((time.process_time() - middle) / len(texts[chosen]))
                        theirs.append((middle - start) / len(texts[chosen]))
                what = f"{kind}, {'all names new' if fresh else 'warm'}, beside json.loads"
                unit, wanted = "times as long", None if fresh else WANTED
                answers.append(_result.answer(what, ours, theirs, unit=unit, wanted=wanted, at_most=True))
                size = sum(map(len, bodies)) // len(bodies)
                notes.append(f"{what}: {size:,} bytes, {min(ours) * 1e6:.0f} us at best, {min(theirs) * 1e6:.0f} us.")
        notes.append(telling(engine.process, bodies[0]))
    checked = "exception, frames, user and id of every event against its document"
    _result.write(
        options.json, Result("payloads", "How long do payloads take to become events?", checked, answers, notes=notes)
    )
    return 0


def telling(process: Callable[[bytes], Event], body: bytes) -> str:
    """Say what it costs to tell a payload's format where nobody has said it."""
    process(body)
    times = []
    for _ in range(200):
        start = time.process_time()
        reports.detect(reports.Probe(body))
        times.append(time.process_time() - start)
    return f"To tell the format of a payload by its content takes {min(times) * 1e6:.0f} us more."


if __name__ == "__main__":
    sys.exit(main())
