"""Backtrace JSON reports, after the manual's list of fields."""

from __future__ import annotations

from typing import Any


def frame(**fields: Any) -> dict[str, Any]:
    """Return a frame; a value of None leaves the field out."""
    return {key: value for key, value in ({"funcName": "f"} | fields).items() if value is not None}


def report(**changes: Any) -> dict[str, Any]:
    """Return a report with the required members; a value of None leaves one out."""
    told: dict[str, Any] = {
        "uuid": "0b7ac2ae-8f43-4e4b-9a0c-2b0e9f7a4d11",
        "timestamp": 1_700_000_000,
        "lang": "nodejs",
        "langVersion": "v4.5.0",
        "agent": "backtrace-node",
        "agentVersion": "0.4.0",
        "threads": {"main": {"name": "main", "fault": True, "stack": [frame()]}},
        "mainThread": "main",
    }
    return {key: value for key, value in (told | changes).items() if value is not None}
