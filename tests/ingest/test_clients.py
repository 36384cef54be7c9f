"""Real clients, of the versions that are installed, against a sink on the loopback: what they send is what was raised.

``DEADRECKON_CLIENTS`` names an interpreter that has sentry-sdk, rollbar, backtracepython and posthog; without it, or
without one of them, the test is skipped.
"""

from __future__ import annotations

import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from deadreckon import Engine
from deadreckon.ingest import Grant, Job, Operation, Request, Tokens, body_limit, receive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deadreckon.model.event import Event, Frame

CLIENTS = os.environ.get("DEADRECKON_CLIENTS", "")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CLIENTS, reason="no clients (set DEADRECKON_CLIENTS)")]

ACCESS = Tokens(
    {
        ("sentry", "abcdef0123456789abcdef0123456789"): Grant(frozenset({"event:write"})),
        ("rollbar", "aaaabbbbccccddddeeeeffff00001111"): Grant(frozenset({"post_server_item"})),
        ("backtrace", "685f2e33a75f0f4623584389"): Grant(frozenset({"error:post"})),
        ("posthog", "phc_testtoken"): Grant(frozenset({"capture"})),
    }
)


class Sink(ThreadingHTTPServer):
    """A front end as small as one can be: it reads a request, asks ``receive``, and sends the answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.jobs: list[Job] = []
        self.statuses: list[tuple[str, int]] = []


class Handler(BaseHTTPRequestHandler):
    server: Sink

    def answer(self) -> None:
        size = min(int(self.headers.get("Content-Length") or 0), body_limit(self.command, self.path) + 1)
        body = self.rfile.read(size)
        found = receive(
            Request(self.command, self.path, dict(self.headers.items()), body, self.client_address[0]), ACCESS
        )
        assert not isinstance(found, Operation)
        answer = found.answer if isinstance(found, Job) else found
        self.server.statuses.append((self.path, answer.status))
        if isinstance(found, Job):
            self.server.jobs.append(found)
        self.send_response(answer.status)
        for name, value in {**answer.headers, "Content-Length": str(len(answer.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_POST = answer  # noqa: N815 - as the base class looks for them

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def events(sink: Sink, client: str, tmp_path: Path) -> list[Event]:
    """Run a client under a clean environment, and return the events of what it sent."""
    run = subprocess.run(
        [CLIENTS, str(Path(__file__).with_name("clients.py")), client, str(sink.server_port)],
        env={"PATH": os.defpath, "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if run.returncode == 77:
        pytest.skip(f"{client}: {run.stdout.strip()}")
    assert run.returncode == 0, run.stderr
    assert sink.jobs, sink.statuses
    assert {status for path, status in sink.statuses if "flags" not in path} == {200}, sink.statuses
    with Engine() as engine:
        found = []
        for job in sink.jobs:
            made = list(engine.process_all(bytes(job.files[0].data), name=job.files[0].name, kind=job.kind))
            assert job.event_id in {None, *(e.event_id for e in made)}
            found += made
        return found


def stacks(event: Event) -> list[list[Frame]]:
    assert event.exceptions
    return [e.frames or [] for e in event.exceptions]


def check_chain(event: Event) -> None:
    """The wrapped error first, the root cause last, every frame where it is in clients.py."""
    assert [(e.type, e.value) for e in event.exceptions or ()] == [
        ("OrderError", "order 7 failed"),
        ("KeyError", "'pear'"),
    ]
    wrapped, cause = stacks(event)
    assert wrapped[0].function == "boom"
    assert [f.function for f in cause] == ["inner", "inner", "inner", "boom"]
    source = Path(__file__).with_name("clients.py").read_text().splitlines()
    for frame in (*wrapped, *cause):
        assert frame.filename == "clients.py"
        assert frame.lineno
        assert frame.context_line is not None
        assert source[frame.lineno - 1].strip() == frame.context_line.strip()
    assert "inner(number - 1)" in (cause[1].context_line or "")


def test_sentry(sink: Sink, tmp_path: Path) -> None:
    error, message = events(sink, "sentry", tmp_path)
    check_chain(error)
    assert (error.source.format, error.platform, error.level) == ("sentry-envelope", "python", "error")
    assert (error.release, error.environment, error.tags) == ("app@1.2.3", "prod", {"tier": "gold"})
    assert (error.user or {}).items() >= {"id": "7", "email": "a@example.com"}.items()
    assert (stacks(error)[1][0].locals or {}).get("number") == "0"
    assert "hunter2" not in str(stacks(error)[1][0].locals)
    assert (message.message, message.level, message.tags) == ("plain message 99", "info", {"tier": "gold"})
    assert message.grouping == ["{{ default }}", "tenant-1"]
    assert [(a.name, a.size) for a in message.attachments or ()] == [("a.log", 9)]


def test_rollbar(sink: Sink, tmp_path: Path) -> None:
    error, message = events(sink, "rollbar", tmp_path)
    check_chain(error)
    assert (error.source.format, error.platform, error.level) == ("rollbar", "python", "error")
    assert (error.release, error.environment, error.grouping) == ("b6437f45", "production", ["mine"])
    assert (error.user or {})["id"] == "7"
    assert (error.attributes or {})["custom"]["tier"] == "gold"
    assert all(f.in_app for f in stacks(error)[1])
    assert "number" in (stacks(error)[1][0].locals or {})
    assert (message.message, message.level) == ("User logged in", "warning")


def test_backtrace(sink: Sink, tmp_path: Path) -> None:
    (error,) = events(sink, "backtrace", tmp_path)
    assert (error.source.format, error.platform) == ("backtrace-json", "python")
    assert [(e.type, e.value) for e in error.exceptions or ()] == [("OrderError", "order 7 failed")]
    (crashed,) = [t for t in error.threads or () if t.crashed]
    assert (crashed.frames or [])[0].function == "boom"
    assert {k: str(v) for k, v in (error.attributes or {}).items()}.items() >= {"tier": "gold", "order": "7"}.items()


def test_posthog(sink: Sink, tmp_path: Path) -> None:
    (error,) = events(sink, "posthog", tmp_path)
    check_chain(error)
    assert (error.source.format, error.platform, error.grouping) == ("posthog", "python", ["mine"])
    assert (error.user, (error.attributes or {})["tier"]) == ({"id": "u1"}, "gold")
