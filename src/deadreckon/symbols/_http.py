"""One GET of a file from a symbol server, by the standard library's HTTP client, with what a hostile server calls for.

* Every wait ends with the crash's clock, also for a server that sends its headers a byte at a time.
* A redirect is followed to http and https only, never from https to http, and to a host in a private network only
  where the configured host is in one itself: the address that was looked at is the one that is connected to.
* Configured headers go to the configured scheme, host and port, and are not sent again once a redirect has left it.
* ``HTTPS_PROXY`` and its like are obeyed.

Sources: RFC 9110 (statuses, redirects, Retry-After, Content-Encoding), RFC 9112 (framing).
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import ipaddress
import os
import socket
import ssl
import threading
import urllib.request
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import quote, unquote, urljoin, urlsplit

from deadreckon.errors import LimitExceeded, SourceUnavailable
from deadreckon.symbols._transfer import BLOCK, Absent, Refused, Transient, Unreachable, counted, decoded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from urllib.parse import SplitResult

    from deadreckon.config import RemoteLimits, SourceConfig
    from deadreckon.symbols._transfer import Clock

__all__ = ["Http"]

_SMALL_BODY = 1 << 16
_ADDRESSES = 8
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ABSENT = frozenset({204, 404, 410})
_PORTS = {"http": 80, "https": 443}
_PATH = "/%:@!$&'()*+,;=~"
"""Characters that stay as they are in a path that is a URL's already; in a query also the question mark."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


# -- Addresses --------------------------------------------------------------------------------------------------------


class _Origin(NamedTuple):
    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, parts: SplitResult) -> Self:
        """Read a URL's. Raises ValueError."""
        host = (parts.hostname or "").encode("idna").decode()
        return cls(parts.scheme, host, parts.port or _PORTS[parts.scheme])

    @property
    def bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def netloc(self) -> str:
        return self.bracketed if self.port == _PORTS[self.scheme] else f"{self.bracketed}:{self.port}"


def _is_public(address: str) -> bool:
    """Say whether an IP address is one of the open Internet, also where it wraps an IPv4 address."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    inner = None
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return _is_public(str(ip.ipv4_mapped))
        inner = ip.sixtofour or (ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF) if ip in _NAT64 else None)
    return ip.is_global and not ip.is_multicast and (inner is None or inner.is_global)


def _look_up(host: str, port: int) -> list[tuple[Any, ...]]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[:_ADDRESSES]
    except (OSError, UnicodeError) as e:
        raise Unreachable(f"{host}: {getattr(e, 'strerror', None) or e}") from e


class _Stream:
    """A socket as http.client uses one; each wait is bounded by silence and by the clock."""

    def __init__(self, sock: socket.socket, clock: Clock, silence: float) -> None:
        self.clock = clock
        self._sock = sock
        self._silence = silence

    def arm(self) -> None:
        self._sock.settimeout(self.clock.left(self._silence))

    def sendall(self, data: bytes) -> None:
        self.arm()
        self._sock.sendall(data)

    def makefile(self, *_: object) -> io.BufferedReader:
        return io.BufferedReader(_Raw(self, self._sock.makefile("rb", buffering=0)))

    def close(self) -> None:
        self._sock.close()


class _Raw(io.RawIOBase):
    def __init__(self, stream: _Stream, raw: io.RawIOBase | Any) -> None:
        self._stream = stream
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._stream.arm()
        count: int | None = self._raw.readinto(buffer)
        return count

    def readall(self) -> bytes:
        # Asked for by http.client on its own where a chunk claims a size of -1: all there is, into memory.
        raise OSError("negative chunk size")

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Connection(http.client.HTTPConnection):
    """A connection to an origin, perhaps by a proxy that wants whole URLs (``prefix``) and headers of its own."""

    def __init__(
        self, origin: _Origin, stream: _Stream, prefix: str = "", extra: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(origin.host, origin.port)
        self.stream = stream  # It has all that http.client uses of a socket.
        self.sock = stream
        self.prefix = prefix
        self.extra = extra or {}


# -- The client -------------------------------------------------------------------------------------------------------


class Http:
    """Gets files below one URL; without a source, files of any public server (``fetch``).

    Safe to use from several threads; connections are kept until ``hang_up``.
    """

    def __init__(self, source: SourceConfig | None, limits: RemoteLimits) -> None:
        self._limits = limits
        self._origin: _Origin | None = None
        self._anonymous = {"User-Agent": "deadreckon", "Accept": "*/*", "Accept-Encoding": "gzip"}
        self._headers = self._anonymous
        if source is not None:
            parts = urlsplit(source.url)
            self._origin = _Origin.of(parts)
            self._base = quote(parts.path.rstrip("/"), safe=_PATH)
            self._query = quote(parts.query, safe=_PATH + "?")
            sent = source.sent_headers()
            names = {name.lower() for name in sent}
            self._headers = {n: v for n, v in self._anonymous.items() if n.lower() not in names} | sent
        self._idle: dict[tuple[int, _Origin], list[_Connection]] = {}
        self._lock = threading.Lock()
        self._tls: ssl.SSLContext | None = None

    def hang_up(self) -> None:
        """Close the connections that nobody uses."""
        with self._lock:
            idle, self._idle = self._idle, {}
        for connection in (c for kept in idle.values() for c in kept):
            connection.close()

    @contextlib.contextmanager
    def get(self, path: str, clock: Clock) -> Iterator[Iterator[bytes]]:
        """Give a file's content in blocks, its content encoding undone.

        Raises Absent, Refused, Unreachable, Transient, also while the blocks are read; LimitExceeded above max_bytes.
        """
        assert self._origin is not None
        target = f"{self._base}/{quote(path)}" + (f"?{self._query}" if self._query else "")
        with self._got(self._origin, target, clock) as (_, blocks):
            yield blocks

    @contextlib.contextmanager
    def fetch(self, url: str, clock: Clock) -> Iterator[tuple[Mapping[str, str], Iterator[bytes]]]:
        """Give the headers and the content of an http or https URL, on a public server only.

        Raises as ``get`` does; Refused for other URLs.
        """
        with self._got(*_parsed(url), clock) as found:
            yield found

    @contextlib.contextmanager
    def _got(self, origin: _Origin, target: str, clock: Clock) -> Iterator[tuple[Mapping[str, str], Iterator[bytes]]]:
        headers = self._headers
        for _ in range(self._limits.max_redirects + 1):
            asked = origin
            connection, response = self._ask(asked, target, headers, clock)
            try:
                location = response.headers.get("Location") if response.status in _REDIRECTS else None
                if location is None:
                    _judge(response)
                    blocks = self._blocks(response)
                    content = decoded(blocks, response.headers.get("Content-Encoding"))
                    said = {name.lower(): value for name, value in response.headers.items()}
                    yield said, counted(content, self._limits.max_bytes)
                    return
                origin, target = _follow(asked, target, location)
                if origin != self._origin:
                    headers = self._anonymous
            finally:
                self._release(asked, connection, response)
        raise Refused(f"more than {self._limits.max_redirects} redirects")

    def _ask(
        self, origin: _Origin, target: str, headers: Mapping[str, str], clock: Clock
    ) -> tuple[_Connection, http.client.HTTPResponse]:
        while True:
            connection = self._kept(origin, clock)
            fresh = connection is None
            if connection is None:
                connection = self._open(origin, clock)
            try:
                all_headers = {"Host": origin.netloc, **headers, **connection.extra}
                connection.request("GET", connection.prefix + target, headers=all_headers)
                return connection, connection.getresponse()
            except BaseException as e:
                connection.close()
                # A server may close a kept connection at any time; that says nothing of the server.
                if not fresh and isinstance(e, ConnectionError):
                    continue
                if isinstance(e, TimeoutError):
                    raise Transient("timed out") from e
                if isinstance(e, OSError | http.client.BadStatusLine):
                    raise Transient(f"connection lost: {_reason(e)}") from e
                if isinstance(e, http.client.HTTPException | ValueError):
                    raise Refused(f"not HTTP: {_reason(e)}") from e
                raise

    def _kept(self, origin: _Origin, clock: Clock) -> _Connection | None:
        # Not the parent's after a fork: both would talk over one socket.
        with self._lock:
            kept = self._idle.get((os.getpid(), origin))
            connection = kept.pop() if kept else None
        if connection is not None:
            connection.stream.clock = clock
        return connection

    def _release(self, origin: _Origin, connection: _Connection, response: http.client.HTTPResponse) -> None:
        """Keep a connection whose answer was read to its end, close any other."""
        if not response.isclosed() and response.length is not None and response.length <= _SMALL_BODY:
            with contextlib.suppress(OSError, http.client.HTTPException, SourceUnavailable):
                response.read(_SMALL_BODY)
        whole = response.isclosed()
        response.close()
        if whole and connection.sock is not None:
            with self._lock:
                self._idle.setdefault((os.getpid(), origin), []).append(connection)
        else:
            connection.close()

    def _blocks(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        expected, got, most = response.length, 0, self._limits.max_bytes
        if expected is not None and expected > most:
            raise LimitExceeded("remote.max_bytes", most, expected)
        try:
            while block := response.read(BLOCK):
                got += len(block)
                if got > most:
                    raise LimitExceeded("remote.max_bytes", most)
                yield block
        except TimeoutError as e:
            raise Transient("timed out") from e
        except (OSError, http.client.HTTPException, ValueError) as e:
            raise Transient(f"connection lost: {_reason(e)}") from e
        # In Python 3.11 http.client says nothing of a body that ends early.
        if expected is not None and got < expected:
            raise Transient(f"cut short: {got} of {expected} bytes")

    # -- Connecting ---------------------------------------------------------------------------------------------------

    def _open(self, origin: _Origin, clock: Clock) -> _Connection:
        guarded = self._origin is None or (origin.host != self._origin.host and not self._home_is_private())
        proxy = urllib.request.getproxies().get(origin.scheme)
        if proxy and not urllib.request.proxy_bypass(origin.netloc):
            if guarded:
                self._check_proxied(origin)
            return self._open_by_proxy(proxy, origin, clock)
        sock = self._connect(origin.host, origin.port, clock, guarded=guarded)
        if origin.scheme == "https":
            sock = self._encrypt(sock, origin.host, clock)
        return _Connection(origin, _Stream(sock, clock, self._limits.read_seconds))

    def _home_is_private(self) -> bool:
        assert self._origin is not None
        try:
            return not all(_is_public(info[4][0]) for info in _look_up(self._origin.host, self._origin.port))
        except Unreachable:
            return False  # Known to a proxy only.

    def _connect(self, host: str, port: int, clock: Clock, *, guarded: bool) -> socket.socket:
        problem: Exception = Unreachable(f"{host}: no address")
        for family, kind, protocol, _, address in _look_up(host, port):
            if guarded and not _is_public(address[0]):
                problem = Refused(f"{self._led_to(host)} in a private network")
                continue
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(clock.left(self._limits.connect_seconds))
                sock.connect(address)
            except BaseException as e:
                sock.close()
                if isinstance(e, TimeoutError):
                    problem = Transient(f"{host}: connecting timed out")
                elif isinstance(e, OSError):
                    problem = Unreachable(f"{host}: {_reason(e)}")
                else:
                    raise
            else:
                return sock
        raise problem

    def _encrypt(self, sock: socket.socket, host: str, clock: Clock) -> socket.socket:
        try:
            with self._lock:
                if self._tls is None:
                    self._tls = ssl.create_default_context()
            sock.settimeout(clock.left(self._limits.connect_seconds))
            return self._tls.wrap_socket(sock, server_hostname=host)
        except BaseException as e:
            sock.close()
            if isinstance(e, TimeoutError):
                raise Transient(f"{host}: TLS timed out") from e
            if isinstance(e, ssl.SSLCertVerificationError):
                raise Unreachable(f"{host}: certificate: {e.verify_message}") from e
            if isinstance(e, OSError | ValueError):
                raise Unreachable(f"{host}: TLS: {_reason(e)}") from e
            raise

    def _open_by_proxy(self, proxy: str, origin: _Origin, clock: Clock) -> _Connection:
        try:
            parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
            host, port = parts.hostname or "", parts.port or 80
        except ValueError as e:
            raise Unreachable(f"the proxy's URL: {e}") from e
        if parts.scheme != "http":
            raise Unreachable(f"proxy {host}: only http:// is supported to reach a proxy")
        headers = {}
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            headers["Proxy-Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
        sock = self._connect(host, port, clock, guarded=False)
        stream = _Stream(sock, clock, self._limits.read_seconds)
        if origin.scheme == "http":
            return _Connection(origin, stream, f"http://{origin.netloc}", headers)
        _tunnel(stream, origin, headers)
        return _Connection(origin, _Stream(self._encrypt(sock, origin.host, clock), clock, self._limits.read_seconds))

    def _check_proxied(self, origin: _Origin) -> None:
        """Refuse a host that is private as far as can be told here: a proxy looks names up by itself."""
        try:
            found = _look_up(origin.host, origin.port)
        except Unreachable:
            return
        if not all(_is_public(info[4][0]) for info in found):
            raise Refused(f"{self._led_to(origin.host)} in a private network")

    def _led_to(self, host: str) -> str:
        return f"redirect to {host}, which is" if self._origin is not None else f"{host} is"


def _tunnel(stream: _Stream, origin: _Origin, headers: Mapping[str, str]) -> None:
    """Ask a proxy for a connection to an origin (RFC 9110 9.3.6). Closes the stream where it says no."""
    authority = f"{origin.bracketed}:{origin.port}"
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}", *(f"{n}: {v}" for n, v in headers.items())]
    try:
        stream.sendall("\r\n".join([*lines, "", ""]).encode())
        with http.client.HTTPResponse(stream, method="CONNECT") as response:  # type: ignore[arg-type]
            response.begin()
    except BaseException as e:
        stream.close()
        if isinstance(e, OSError | http.client.HTTPException):
            raise Transient(f"proxy: {_reason(e)}") from e
        raise
    if response.status != 200:
        stream.close()
        raise Unreachable(f"proxy: HTTP {response.status}")


def _follow(origin: _Origin, target: str, location: str) -> tuple[_Origin, str]:
    """Return where a redirect leads. Raises Refused where that is nowhere to go."""
    try:
        url = urljoin(f"{origin.scheme}://{origin.netloc}{target}", location)
    except ValueError as e:
        raise Refused(f"redirect: {e}") from e
    found, path = _parsed(url, "redirect to ")
    if origin.scheme == "https" and found.scheme == "http":
        raise Refused(f"redirect to {found.host} without encryption")
    return found, path


def _parsed(url: str, what: str = "") -> tuple[_Origin, str]:
    """Return a URL's origin, and its path as it is asked for. Raises Refused for one that is not to be asked for."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
            raise Refused(f"{what}{parts.scheme[:20]}:")
        found = _Origin.of(parts)
    except ValueError as e:
        raise Refused(f"{what}{e}") from e
    path = quote(parts.path or "/", safe=_PATH)
    return found, path + (f"?{quote(parts.query, safe=_PATH + '?')}" if parts.query else "")


def _judge(response: http.client.HTTPResponse) -> None:
    status = response.status
    if status == 200:
        return
    if status in _ABSENT:
        raise Absent(f"HTTP {status}")
    if status in {408, 429} or status >= 500:
        raise Transient(f"HTTP {status}", _retry_after(response.headers.get("Retry-After")))
    raise Refused(f"HTTP {status}")


def _retry_after(text: str | None) -> float | None:
    """Read Retry-After: seconds or a date."""
    if not text:
        return None
    try:
        if text.strip().isdigit():
            return float(int(text))
        date = parsedate_to_datetime(text)
        return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)[:200] or type(error).__name__
