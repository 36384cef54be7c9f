"""Decode, normalize and fingerprint error trackers' payloads, against ``json.loads`` of the same bytes.

The target is five times what ``json.loads`` takes, for 7 KB and 30 frames. Prints microseconds for each step, the best
of many short runs, and two ratios: the median of runs that alternate, and that of the best.
"""

from __future__ import annotations

import importlib
import json
import statistics
import time
from typing import TYPE_CHECKING, Any

from deadreckon import reports
from deadreckon.config import ReportLimits
from deadreckon.describe import describe
from deadreckon.grouping.fingerprint import group
from deadreckon.model.event import Source

if TYPE_CHECKING:
    from collections.abc import Callable

    from deadreckon.model.event import Event

FRAMES = 30
LIMITS = ReportLimits()
CODE = "        result = self.dispatch(request, *args)"


def place(n: int) -> dict[str, Any]:
    """What every frame tells of its place."""
    file = f"app/views/module_{n % 9}.py"
    told = {"filename": file, "abs_path": f"/srv/{file}", "lineno": 100 + n, "function": f"handle_request_{n}"}
    return {**told, "module": f"app.views.module_{n % 9}", "in_app": n % 3 != 0}


def sentry() -> bytes:
    """An event of Python."""
    frames = [{**place(n), "context_line": CODE} for n in range(FRAMES)]
    mechanism = {"type": "generic", "handled": True}
    return json.dumps(
        {
            "event_id": "fc6d8c0c43fc4630ad850ee518f1b9d0",
            "platform": "python",
            "timestamp": "2026-11-20T21:03:01.908Z",
            "release": "app@1.2.3",
            "tags": {"tier": "gold"},
            "user": {"id": "7"},
            "sdk": {"name": "sentry.python", "version": "2"},
            "exception": {
                "values": [
                    {"type": "KeyError", "value": "'k'", "mechanism": mechanism, "stacktrace": {"frames": frames}}
                ]
            },
        }
    ).encode()


def envelope() -> bytes:
    """The same event in an envelope."""
    return b'{"event_id":"fc6d8c0c43fc4630ad850ee518f1b9d0"}\n{"type":"event"}\n' + sentry()


def rollbar() -> bytes:
    """An item with a chain of one trace."""
    frames = [
        {
            "filename": f"/srv/app/views/module_{n % 9}.py",
            "lineno": 100 + n,
            "method": f"handle_request_{n}",
            "code": CODE,
            "context": {"pre": ["a = 1"], "post": []},
            "locals": {"self": "<View object>", "n": str(n)},
        }
        for n in range(FRAMES)
    ]
    trace = {"frames": frames, "exception": {"class": "KeyError", "message": "'k'"}}
    data = {
        "environment": "production",
        "uuid": "bd249503-6f54-4a5d-932e-f893c32c4132",
        "language": "python 3.11",
        "server": {"host": "vm", "root": "/srv/app"},
        "body": {"trace_chain": [trace]},
    }
    return json.dumps({"access_token": "a" * 32, "data": data}).encode()


def posthog() -> bytes:
    """A batch of one event."""
    frames = [{"platform": "python", **place(n), "context_line": CODE} for n in range(FRAMES)]
    exception = {"type": "KeyError", "value": "'k'", "stacktrace": {"type": "raw", "frames": frames}}
    event = {
        "event": "$exception",
        "uuid": "62cbeab3-23e8-463b-8c3f-db5858ef9605",
        "distinct_id": "u1",
        "timestamp": "2026-11-20T21:03:05Z",
        "properties": {"$lib": "posthog-python", "$os": "Linux", "$exception_list": [exception]},
    }
    return json.dumps({"api_key": "phc", "batch": [event]}).encode()


CASES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "sentry-event": ("deadreckon.reports.sentry.store", sentry),
    "sentry-envelope": ("deadreckon.reports.sentry.envelope", envelope),
    "rollbar": ("deadreckon.reports.rollbar", rollbar),
    "posthog": ("deadreckon.reports.posthog", posthog),
}


def seconds(work: Callable[[], object], times: int = 20) -> float:
    """Time of one call."""
    start = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - start) / times


def best(work: Callable[[], object]) -> float:
    """The best of many runs, in microseconds."""
    return min(seconds(work) for _ in range(400)) * 1e6


def main() -> None:
    """Measure all formats."""
    source = Source(format="x", name="x", size=7000, sha256="0" * 64)
    for name, (module, make) in CASES.items():
        body = make()
        read = importlib.import_module(module).read
        document = body.rpartition(b"\n")[2]

        def whole(read: Any = read, body: bytes = body) -> Event:
            found = read(body, LIMITS)
            raw = found[0] if isinstance(found, list) else found
            event = describe(raw, source, "0" * 64, [])
            for told, listed in zip(event.exceptions or (), raw.exceptions, strict=True):
                told.frames = [f.reported for f in listed.frames or ()]
            event.fingerprint, event.title, event.culprit = group(event)
            return event

        event = whole()
        pairs = [(seconds(lambda d=document: json.loads(d)), seconds(whole)) for _ in range(200)]  # type: ignore[misc]
        ratio = statistics.median(all_of_it / loads for loads, all_of_it in pairs)
        steps = {
            "json.loads": best(lambda d=document: json.loads(d)),  # type: ignore[misc]
            "read": best(lambda b=body, r=read: r(b, LIMITS)),  # type: ignore[misc]
            "fingerprint": best(lambda e=event: group(e)),  # type: ignore[misc]
            "all": best(whole),
            "detect": best(lambda b=body: reports.detect(reports.Probe(b))),  # type: ignore[misc]
        }
        told = "  ".join(f"{step} {value:.0f}" for step, value in steps.items())
        print(
            f"{name}: {len(body)} B  {told} us  ratio {ratio:.2f}, of the best {steps['all'] / steps['json.loads']:.2f}"
        )


if __name__ == "__main__":
    main()
