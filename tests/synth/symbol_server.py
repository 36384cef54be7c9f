"""A symbol server on this computer that does as a test says: serves, stalls, drops, lies, redirects."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Reply = bytes | Callable[["Handler"], None]


class SymbolServer(ThreadingHTTPServer):
    """``files`` maps paths to content or to a function; ``fallback`` answers for what is not there, else 404."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, Reply] = {}
        self.fallback: Reply | None = None
        self.requests: list[tuple[str, Mapping[str, str]]] = []
        self.connections = 0
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def asked(self) -> list[str]:
        """The paths asked for, in order."""
        return [path for path, _ in self.requests]

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, *_: Any) -> None:
        """Clients hang up on purpose here."""


class Handler(BaseHTTPRequestHandler):
    server: SymbolServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        self.server.requests.append((self.path, {n.lower(): v for n, v in self.headers.items()}))
        reply = self.server.files.get(self.path, self.server.fallback)
        if reply is None:
            self.send(404, b"no such file")
        elif isinstance(reply, bytes):
            self.send(200, reply)
        else:
            reply(self)

    do_CONNECT = do_GET  # noqa: N815

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Answer whole; underscores in the names of headers stand for dashes."""
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Stay silent."""

    def stall(self) -> None:
        """Say no more until the test is over."""
        self.server.over.wait(20)
        self.close_connection = True


def failing(times: int, then: bytes, status: int = 500, **headers: str) -> Callable[[Handler], None]:
    """Fail for some requests, then serve."""
    left = [times]

    def reply(handler: Handler) -> None:
        left[0] -= 1
        if left[0] < 0:
            handler.send(200, then)
        else:
            handler.send(status, b"busy", **headers)

    return reply


def redirect(to: str, status: int = 302) -> Callable[[Handler], None]:
    return lambda handler: handler.send(status, Location=to)
