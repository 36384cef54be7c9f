"""What fetching a file has in common whatever it comes by: how it can fail, the time it may take, its encoding."""

from __future__ import annotations

import threading
import time
import zlib
from typing import TYPE_CHECKING, Protocol

from deadreckon.errors import LimitExceeded, SourceUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager

__all__ = ["BLOCK", "Absent", "Clock", "Refused", "Transfer", "Transient", "Unreachable", "counted", "decoded"]

BLOCK = 1 << 18
"""Bytes read at once."""


class Absent(SourceUnavailable):
    """The source does not have the file."""


class Refused(SourceUnavailable):
    """The source's answer is no use, and asking again would not change it."""


class Unreachable(SourceUnavailable):
    """Nothing can be had from the source: no such host, no route, no trust in its certificate."""


class Transient(SourceUnavailable):
    """A timeout, a lost connection or an overloaded server; ``retry_after`` is the pause in seconds it asked for."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Clock:
    """The time for everything that is fetched for one crash. Another thread may stop it."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._stopped = threading.Event()

    def left(self, most: float) -> float:
        """Return how long the next step may take, ``most`` seconds at most. Raises Transient where no time is left."""
        left = self._end - time.monotonic()
        if left <= 0 or self.stopped:
            raise Transient("remote.total_seconds is over")
        return min(left, most)

    @property
    def stopped(self) -> bool:
        """Say whether somebody ended it before its time."""
        return self._stopped.is_set()

    def over(self) -> bool:
        """Say whether no time is left."""
        return self.stopped or time.monotonic() >= self._end

    def wait(self, seconds: float) -> bool:
        """Sleep; return at once, and False, where that would take all the time that is left."""
        return time.monotonic() + seconds < self._end and not self._stopped.wait(seconds)

    def stop(self) -> None:
        """Let every step under way end."""
        self._stopped.set()


# -- Bodies -----------------------------------------------------------------------------------------------------------


def counted(blocks: Iterable[bytes], most: int) -> Iterator[bytes]:
    """Pass blocks on. Raises LimitExceeded once they are more than ``most`` bytes."""
    size = 0
    for block in blocks:
        size += len(block)
        if size > most:
            raise LimitExceeded("remote.max_bytes", most)
        yield block


def decoded(blocks: Iterable[bytes], encoding: str | None) -> Iterator[bytes]:
    """Undo a Content-Encoding. Raises Refused for one that was not asked for or is damaged, Transient if cut short."""
    name = (encoding or "").strip().lower()
    if name in {"", "identity"}:
        return iter(blocks)
    if name in {"gzip", "x-gzip"}:
        return _gunzip(blocks)
    raise Refused(f"content encoding {name[:40]!r}")


def _gunzip(blocks: Iterable[bytes]) -> Iterator[bytes]:
    inflate = zlib.decompressobj(31)
    try:
        for block in blocks:
            data = block
            while True:
                if inflate.eof:
                    if not data.startswith(b"\x1f"):
                        break  # Padding.
                    inflate = zlib.decompressobj(31)
                out = inflate.decompress(data, BLOCK)
                if out:
                    yield out
                # Output that had no room is never the last: the checksum after it isn't taken before.
                data = inflate.unused_data or inflate.unconsumed_tail
                if not data:
                    break
    except zlib.error as e:
        raise Refused(f"content encoding gzip: {e}") from e
    if not inflate.eof:
        raise Transient("cut short")


class Transfer(Protocol):
    """A way to get the files of one source. Safe to use from several threads."""

    def get(self, path: str, clock: Clock) -> AbstractContextManager[Iterator[bytes]]:
        """Give a file's content in blocks, its content encoding undone.

        Raises Absent, Refused, Unreachable, Transient, also while the blocks are read; LimitExceeded above max_bytes;
        MissingDependency.
        """

    def hang_up(self) -> None:
        """Close the connections that nobody uses."""
