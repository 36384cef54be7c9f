"""Scripts and maps at the URLs that frames name: by HTTP(S), where it is switched on, from public addresses only.

A crash report is untrusted, and so are the URLs in it. Each is asked for once in a while, redirects and limits are
those of remote sources (_http.py), and a host that fails again and again is left alone for some time.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from deadreckon.errors import LimitExceeded, SourceUnavailable
from deadreckon.objects.artifactbundle import MAP
from deadreckon.symbols._http import Http
from deadreckon.symbols._transfer import Absent, Clock, counted

if TYPE_CHECKING:
    from deadreckon.config import Config
    from deadreckon.symbols.scriptplaces import File

__all__ = ["WebPlace"]

_KEPT = 4096
_KEPT_BYTES = 128 << 20


@dataclass(slots=True)
class _WebFile:
    name: str
    headers: dict[str, str]
    data: bytes

    @property
    def path(self) -> str | None:
        return None

    def read(self) -> bytes:
        return self.data


@dataclass(slots=True)
class _Answer:
    file: _WebFile | None
    until: float


class WebPlace:
    """The open Internet, as a place to look for scripts and maps by URL. Safe to use from several threads."""

    def __init__(self, config: Config) -> None:
        self._limits = config.remote
        self._hosts = tuple(host.lower() for host in config.maps.fetch_hosts)
        self._most = min(config.maps.max_bytes, config.remote.max_bytes)
        self._http = Http(None, config.remote)
        self._answers: OrderedDict[str, _Answer] = OrderedDict()
        self._failures: dict[str, tuple[int, float]] = {}
        self._size = 0
        self._lock = threading.Lock()

    def by_id(self, kind: str, ident: str) -> File | None:  # noqa: ARG002
        """Return None: nobody can be asked for an id."""
        return None

    def by_url(self, kind: str, url: str) -> File | None:
        """Return what is at a URL, None where nothing of use is, or where it may not be asked for."""
        whole = url.partition("#")[0]
        host = self._host(whole)
        if host is None:
            return None
        now = time.monotonic()
        with self._lock:
            known = self._answers.get(whole)
            if known is not None and now < known.until:
                return known.file
            failures, until = self._failures.get(host, (0, 0.0))
            if failures >= self._limits.skip_after and now < until:
                return None
        file, keep = self._fetch(kind, whole, host)
        with self._lock:
            self._keep(whole, _Answer(file, now + keep))
        return file

    def _host(self, url: str) -> str | None:
        if not url.startswith(("http://", "https://")):
            return None
        try:
            host = (urlsplit(url).hostname or "").lower()
        except ValueError:
            return None
        allowed = not self._hosts or any(fnmatchcase(host, pattern) for pattern in self._hosts)
        return host if host and allowed else None

    def _fetch(self, kind: str, url: str, host: str) -> tuple[_WebFile | None, float]:
        """Return what is at a URL, and for how many seconds that is taken for granted."""
        limits = self._limits
        try:
            with self._http.fetch(url, Clock(limits.total_seconds)) as (headers, blocks):
                data = b"".join(counted(blocks, self._most))
        except (Absent, LimitExceeded):
            return None, limits.missing_seconds
        except SourceUnavailable:
            with self._lock:
                if len(self._failures) >= _KEPT:
                    self._failures.clear()
                failures = self._failures.get(host, (0, 0.0))[0] + 1
                self._failures[host] = failures, time.monotonic() + limits.skip_seconds
            return None, limits.failure_seconds
        finally:
            self._http.hang_up()
        with self._lock:
            self._failures.pop(host, None)
        # Servers of single-page applications answer every URL with their page.
        page = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<"
        if page and (kind == MAP or headers.get("content-type", "").partition(";")[0].strip().lower() == "text/html"):
            return None, limits.missing_seconds
        return _WebFile(url, dict(headers), data), limits.missing_seconds

    def _keep(self, url: str, answer: _Answer) -> None:
        old = self._answers.pop(url, None)
        self._size -= len(old.file.data) if old is not None and old.file is not None else 0
        self._answers[url] = answer
        self._size += len(answer.file.data) if answer.file is not None else 0
        while len(self._answers) > _KEPT or (self._size > _KEPT_BYTES and len(self._answers) > 1):
            _, gone = self._answers.popitem(last=False)
            self._size -= len(gone.file.data) if gone.file is not None else 0
