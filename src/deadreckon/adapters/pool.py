"""Worker processes for ``process``: they make events and encode them, in order, for one output.

Inputs go to processes in batches, so that a message is sent for dozens of crashes; what comes back is bytes, ready to
be written. Batches are numbered and given back in their order. A process that dies, or that an input keeps for too
long, costs that input only: those of its batch are tried again one by one, and the one it dies of becomes an event that
says so.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import signal
from collections import deque
from dataclasses import dataclass, field
from multiprocessing import connection
from typing import TYPE_CHECKING

import msgspec

from deadreckon.adapters.many import Item, Made, lost, made
from deadreckon.errors import SpoolError
from deadreckon.worker.child import leash, memory_limit
from deadreckon.worker.supervisor import start_forkserver

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from multiprocessing.context import ForkServerProcess

    from deadreckon.adapters.many import Plan

__all__ = ["process_items"]

MiB = 1 << 20
_BATCH = 64
_BATCH_BYTES = 4 * MiB
_AHEAD = 2
"""Batches a process has at a time: one under way, one waiting for it."""
_MAX_FALSE_STARTS = 64
"""More poisonous inputs in a row than that are not to be expected; processes that can't start are."""
_WINDOW = 16
"""How many batches per process may wait for one before them."""


@dataclass(slots=True)
class _Child:
    process: ForkServerProcess
    line: connection.Connection
    batches: deque[int] = field(default_factory=deque)


class _Pool:
    """Deals batches out and takes their results in; ``results`` are kept until their turn."""

    def __init__(self, plan: Plan, processes: int) -> None:
        self._plan, self._processes = plan, processes
        self._context = multiprocessing.get_context("forkserver")
        self._children: list[_Child] = []
        self._false_starts = 0
        self._batches: dict[int, list[Item]] = {}
        self.results: dict[int, list[Made]] = {}
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Made)

    def room(self, items: list[Item]) -> bool:
        """Say whether a process may be given these now.

        One that is busy gets what fits into the buffers between us only: it could be telling a result, which waits for
        us to listen, while we wait for it to.
        """
        small = all(item.data is None and item.found is None for item in items)
        ahead = _AHEAD if small else 1
        return len(self._children) < self._processes or any(len(c.batches) < ahead for c in self._children)

    def put(self, number: int, items: list[Item]) -> None:
        self._batches[number] = items
        self._send(number, items)

    def _send(self, number: int, items: list[Item]) -> None:
        child = min(self._children, key=lambda c: len(c.batches), default=None)
        if child is None or (child.batches and len(self._children) < self._processes):
            child = self._start()
        child.batches.append(number)
        with contextlib.suppress(OSError):  # It has just died; that is noticed where its results are awaited.
            child.line.send_bytes(self._encoder.encode(items))

    def _start(self) -> _Child:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_live, args=(self._plan, theirs, self._processes), name="deadreckon")
        process.start()
        theirs.close()
        child = _Child(process, ours)
        self._children.append(child)
        return child

    def take(self) -> None:
        """Wait for a result, or for the end of a process."""
        lines = {child.line: child for child in self._children if child.batches}
        for line in connection.wait(list(lines)):
            assert isinstance(line, connection.Connection)
            child = lines[line]
            try:
                result = self._decoder.decode(line.recv_bytes())
            except (EOFError, OSError):
                self._bury(child)
                continue
            self._false_starts = 0
            number = child.batches.popleft()
            self.results[number] = [result]
            del self._batches[number]

    def _bury(self, child: _Child) -> None:
        """Do what a process that died had to do item by item, each in a process of its own."""
        self._children.remove(child)
        _end(child)
        for number in child.batches:
            items = self._batches.pop(number)
            self.results[number] = self._one_by_one(items)

    def _one_by_one(self, items: list[Item]) -> list[Made]:
        """Process items in another process, and in one more after each that it dies of."""
        found = []
        child: _Child | None = None
        for item in items:
            if child is None:
                child = self._start()
                self._children.remove(child)
            child.line.send_bytes(self._encoder.encode([item]))
            try:
                found.append(self._decoder.decode(child.line.recv_bytes()))
                self._false_starts = 0
            except (EOFError, OSError):
                child.process.join()
                found.append(self._lost(item, child.process.exitcode or 0))
                _end(child)
                child = None
        if child is not None:
            _end(child)
        return found

    def _lost(self, item: Item, code: int) -> Made:
        """Say of an item how the process ended that was at it. Raises SpoolError where none can even start."""
        self._false_starts += 1
        if self._false_starts > _MAX_FALSE_STARTS:
            raise SpoolError(f"{_MAX_FALSE_STARTS} worker processes in a row ended without any result")
        if code == -signal.SIGALRM:
            return lost(self._plan, item, "")
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return lost(self._plan, item, f"the process that read it ended: {how}")

    def close(self) -> None:
        for child in self._children:
            _end(child)
        self._children.clear()


def _end(child: _Child) -> None:
    child.line.close()
    child.process.kill()
    child.process.join()
    child.process.close()


def process_items(items: Iterable[Item], plan: Plan, processes: int) -> Iterator[tuple[int, Made]]:
    """Yield what came of items, in their order: of how many, and what."""
    start_forkserver("deadreckon.worker.warm")
    pool = _Pool(plan, processes)
    sizes: deque[int] = deque()
    given = 0

    def ready() -> Iterator[tuple[int, Made]]:
        nonlocal given
        while given in pool.results:
            results = pool.results.pop(given)
            given += 1
            size = sizes.popleft()
            if len(results) == 1:
                yield size, results[0]
            else:
                yield from ((1, each) for each in results)

    try:
        for number, batch in enumerate(_batches(items, processes)):
            while number - given >= _WINDOW * processes or not pool.room(batch):
                pool.take()
                yield from ready()
            sizes.append(len(batch))
            pool.put(number, batch)
        while sizes:
            pool.take()
            yield from ready()
    finally:
        pool.close()


def _batches(items: Iterable[Item], processes: int) -> Iterator[list[Item]]:
    """Gather items, few at first, so that all processes have something to do soon."""
    batch: list[Item] = []
    size = 0
    limit, made_so_far = 8, 0
    for item in items:
        batch.append(item)
        if item.data is not None:
            size += len(item.data)
        elif item.found is not None:
            size += len(item.found.data)
        else:
            with contextlib.suppress(OSError):
                size += os.path.getsize(item.path)
        if len(batch) >= limit or size >= _BATCH_BYTES:
            yield batch
            made_so_far += 1
            batch, size = [], 0
            if made_so_far >= 2 * processes:
                limit = _BATCH
    if batch:
        yield batch


def _live(plan: Plan, line: connection.Connection, processes: int) -> None:
    """Be a process that makes events."""
    leash()
    limit = memory_limit(plan.config, processes)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    from deadreckon.engine import Engine

    encoder, decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(list[Item])
    with Engine(plan.config, explain=plan.explain) as engine:
        while True:
            try:
                items = decoder.decode(line.recv_bytes())
            except (EOFError, OSError):
                return
            whole = Made()
            outputs = []
            for item in items:
                signal.setitimer(signal.ITIMER_REAL, plan.config.worker.job_seconds)
                part = made(engine, plan, item)
                signal.setitimer(signal.ITIMER_REAL, 0)
                outputs.append(part.output)
                whole.events += part.events
                whole.unreadable += part.unreadable
                whole.degraded += part.degraded
                whole.complaints += part.complaints
            whole.output = b"".join(outputs)
            line.send_bytes(encoder.encode(whole))
