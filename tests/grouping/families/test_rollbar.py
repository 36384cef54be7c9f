"""Rollbar's fingerprints: the client's, and what the default is documented to look at."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from deadreckon.grouping.families import rollbar
from deadreckon.model.event import SCHEMA, Event, ExceptionInfo, Frame, Source, Thread


def event(*frames: Frame, **told: Any) -> Event:
    exceptions = [ExceptionInfo(type=told.pop("kind", "T"), value=told.pop("value", "v"), frames=list(frames))]
    source = Source(format="rollbar")
    return Event(schema=SCHEMA, event_id="0" * 32, status="ok", source=source, exceptions=exceptions, **told)


def frame(function: str, path: str = "/srv/app/a.py", **told: Any) -> Frame:
    return Frame(status="symbolicated", function=function, abs_path=path, **told)


def test_the_clients_own() -> None:
    assert rollbar.values(event(grouping=["mine"])) == ["mine"]
    long = "x" * 41
    assert rollbar.values(event(grouping=[long])) == [hashlib.sha1(long.encode()).hexdigest()]
    assert rollbar.explain(event(grouping=["mine"]))[0].text == "mine"


BASE = rollbar.values(event(frame("f", lineno=1), frame("g")))


@pytest.mark.parametrize(
    "told",
    [
        event(frame("f", lineno=99), frame("g"), value="another message"),
        event(frame("f", "/srv/2026-11-20/app/a.py".replace("2026-11-20/", "")), frame("g")),
        event(frame("f", "/srv/app/a123.py"), frame("g")),
    ],
)
def test_what_does_not_count(told: Event) -> None:
    assert rollbar.values(told) == BASE


@pytest.mark.parametrize(
    "told",
    [
        event(frame("f"), frame("h")),
        event(frame("g"), frame("f")),
        event(frame("f")),
        event(frame("f"), frame("g"), kind="U"),
        event(frame("f", "/srv/app/b.py"), frame("g")),
    ],
)
def test_what_counts(told: Event) -> None:
    assert rollbar.values(told) != BASE


def test_releases_in_paths_and_the_servers_root() -> None:
    dated = [rollbar.values(event(frame("f", f"/srv/releases/{d}/a.py"))) for d in ("20261120101010", "2026-11-21")]
    assert dated[0] == dated[1]
    rooted = [
        rollbar.values(event(frame("f", f"{root}/app/a.py"), attributes={"server": {"root": root}}))
        for root in ("/srv/one", "/opt/two")
    ]
    assert rooted[0] == rooted[1]


def test_a_native_crash_and_a_message() -> None:
    told = event()
    told.threads = [Thread(id=1, crashed=True, frames=[frame("f")])]
    assert [c.text for c in rollbar.explain(told) if c.contributes] == ["/srv/app/a.py:f", "T"]
    bare = Event(schema=SCHEMA, event_id="0" * 32, status="ok", source=Source(format="rollbar"), message="m")
    assert [c.text for c in rollbar.explain(bare)] == ["m"]
    assert len(rollbar.values(bare)[0]) == 40
