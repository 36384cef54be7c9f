"""Payloads of error trackers, as their documentation spells them: small, whole, and ours."""

from __future__ import annotations

import json
from typing import Any

EVENT_ID = "fc6d8c0c43fc4630ad850ee518f1b9d0"


def sentry_event(**changes: Any) -> dict[str, Any]:
    """A Python event with one exception of two frames, the innermost last, as the store endpoint takes it."""
    event: dict[str, Any] = {
        "event_id": EVENT_ID,
        "platform": "python",
        "timestamp": "2011-05-02T17:41:36",
        "exception": {
            "values": [
                {
                    "type": "SyntaxError",
                    "value": "Wattttt!",
                    "module": "__builtins__",
                    "stacktrace": {"frames": [sentry_frame("main", 1), sentry_frame("inner", 2)]},
                }
            ]
        },
    }
    return {name: value for name, value in (event | changes).items() if value is not ...}


def sentry_frame(function: str, line: int = 1, **changes: Any) -> dict[str, Any]:
    return {"function": function, "filename": "app/x.py", "lineno": line, "in_app": True, **changes}


def envelope(*items: tuple[dict[str, Any], bytes], header: dict[str, Any] | None = None, length: bool = True) -> bytes:
    """An envelope of (item header, payload) pairs."""
    lines = [json.dumps(header if header is not None else {"event_id": EVENT_ID}).encode()]
    for told, data in items:
        named = {**told, "length": len(data)} if length else told
        lines += [json.dumps(named).encode(), data]
    return b"\n".join(lines) + b"\n"


def form(*parts: tuple[str, bytes] | tuple[str, bytes, str], boundary: str = "xX-boundary-Xx") -> bytes:
    """A multipart form of (name, content) fields and (name, content, file name) files."""
    found = b""
    for name, data, *filename in parts:
        file = f'; filename="{filename[0]}"' if filename else ""
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n'
        head += "Content-Type: application/octet-stream\r\n" if filename else ""
        found += head.encode() + b"\r\n" + data + b"\r\n"
    return found + f"--{boundary}--\r\n".encode()


def rollbar_item(body: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """An item with a trace of two frames, the most recent call last, unless another body is given."""
    data: dict[str, Any] = {
        "environment": "production",
        "body": body if body is not None else {"trace": rollbar_trace()},
        **changes,
    }
    data = {name: value for name, value in data.items() if value is not ...}
    return {"access_token": "aaaabbbbccccddddeeeeffff00001111", "data": data}


def rollbar_trace(kind: str = "NameError", message: str = "no foo") -> dict[str, Any]:
    return {
        "frames": [
            {"filename": "/app/views/project.py", "lineno": 26, "method": "index"},
            {"filename": "/app/views/project.py", "lineno": 497, "method": "_save_last_project"},
        ],
        "exception": {"class": kind, "message": message},
    }


def posthog_event(*exceptions: dict[str, Any], **properties: Any) -> dict[str, Any]:
    """An event with exceptions, by default one of two Python frames, the innermost last."""
    listed = exceptions or (posthog_exception(),)
    return {
        "event": "$exception",
        "uuid": "019295b1-519f-71a6-aacf-c97b5db73696",
        "timestamp": "2026-11-20T21:03:05.664706+00:00",
        "distinct_id": "u1",
        "properties": {"$exception_list": list(listed), **properties},
    }


def posthog_exception(*frames: dict[str, Any], **changes: Any) -> dict[str, Any]:
    stack = frames or (posthog_frame("main"), posthog_frame("inner"))
    return {"type": "KeyError", "value": "'k'", "stacktrace": {"type": "raw", "frames": list(stack)}, **changes}


def posthog_frame(function: str, **changes: Any) -> dict[str, Any]:
    return {"platform": "python", "function": function, "filename": "x.py", "lineno": 3, "in_app": True, **changes}
