"""The one place where the stages meet: bytes in, events out.

::

    bytes -> wire.archive -> reports -> RawCrash -> symbols -> unwind -> symbolicate -> grouping -> Event
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from deadreckon import inputs, reports, stacks
from deadreckon.analysis.code import reader
from deadreckon.config import Config, remote_source
from deadreckon.describe import conclude, derived, describe, exception_info, module_info, unreadable
from deadreckon.errors import (
    DeadreckonError,
    LimitExceeded,
    SourceUnavailable,
)
from deadreckon.model.event import (
    Diagnostic,
    Event,
    Source,
    Thread,
)
from deadreckon.stacks import Resolved
from deadreckon.symbols.mappings import Mappings
from deadreckon.symbols.sources import SymbolPath, resolve_all, unmatched
from deadreckon.symbols.store import Added, SymbolStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

    from deadreckon.model.crash import Module, RawCrash
    from deadreckon.model.event import Frame
    from deadreckon.symbolicate.javascript import JavaScript
    from deadreckon.symbols.maps import MapStore
    from deadreckon.symbols.remote import RemoteSource

    Place = SymbolPath | RemoteSource

__all__ = ["Engine", "process"]

_RESOLVED = 65_536
_FOUND_SECONDS = 3600.0
"""How long a module's tables are taken for granted; to look again also tells the store that they are in use."""
_MISSING_SECONDS = 30.0
"""How long a module without symbols is not looked for again; another process may import them meanwhile."""


class Engine:
    """Processes crashes with warm tables. Safe to use from several threads; survives a fork.

    Use as a context manager, or call ``close`` to end the helper process that builds tables. With ``explain`` each
    thread of an event says how every frame of its stack was found.
    """

    def __init__(self, config: Config | None = None, *, explain: bool = False) -> None:
        self.explain = explain
        self.config = config or Config()
        self.store = SymbolStore(self.config)
        self._mappings = Mappings(self.store)
        self._paths: dict[str, Place] = {}
        self._resolved: dict[tuple[Any, ...], Resolved] = {}
        self._maps: MapStore | None = None
        self._scripts: dict[tuple[str, ...], JavaScript] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the helper process and wait for what is being stored; the engine may be used again afterwards."""
        if self._maps is not None:
            self._maps.flush()
        self.store.close()

    def process(
        self,
        source: str | os.PathLike[str] | bytes | memoryview,
        *,
        name: str | None = None,
        kind: str | None = None,
        symbols: Sequence[str] = (),
        sourcemaps: Sequence[str] = (),
        attributes: dict[str, str] | None = None,
    ) -> Event:
        """Return the event of one crash: a path (str or PathLike) or the report's bytes.

        Of an archive that holds several, the first one's. An input that can't be read gives an event with status
        ``unreadable`` or ``unsupported``, never an exception.
        """
        return next(
            self.process_all(
                source, name=name, kind=kind, symbols=symbols, sourcemaps=sourcemaps, attributes=attributes
            )
        )  # There is always one.

    def process_many(
        self, sources: Iterable[str | os.PathLike[str] | bytes | memoryview], *, symbols: Sequence[str] = ()
    ) -> Iterator[Event]:
        """Yield the events of many inputs, in their order, over warm tables."""
        for source in sources:
            yield from self.process_all(source, symbols=symbols)

    def add_symbols(
        self, source: str | os.PathLike[str] | bytes, *, tags: Mapping[str, str] | None = None
    ) -> list[Added]:
        """Import debug files into the store: a file, a directory or an archive of them, by path or as bytes.

        ``tags`` are kept with them. Bad files cost themselves and are listed with the reason; what was imported before
        is ``known`` and stays as it is.
        """
        try:
            return self._each_debug_file(source, lambda path, name: self.store.add(path, tags=tags, origin=name))
        finally:
            with self._lock:
                self._resolved.clear()

    def check_symbols(self, source: str | os.PathLike[str] | bytes) -> list[Added]:
        """Say what ``add_symbols`` would import, without doing it."""
        return self._each_debug_file(source, lambda path, name: self.store.examine(path, origin=name))

    def process_all(
        self,
        source: str | os.PathLike[str] | bytes | memoryview | inputs.Crash,
        *,
        name: str | None = None,
        kind: str | None = None,
        symbols: Sequence[str] = (),
        sourcemaps: Sequence[str] = (),
        attributes: dict[str, str] | None = None,
        scratch: str | None = None,
    ) -> Iterator[Event]:
        """Yield the event of every crash in an input, at least one; see ``process``.

        Temporary files are made in ``scratch``, by default in the store.
        """
        label = name if name is not None else os.fspath(source) if isinstance(source, str | os.PathLike) else None
        with inputs.Scratch(lambda: scratch or self._temporary()) as unpacked:
            looked: list[Place] = []
            places = dict.fromkeys([*symbols, *(s.url for s in self.config.sources)])
            try:
                problems: list[Diagnostic] = []
                found = [self._symbol_path(path, unpacked, problems) for path in places]
                looked = [place for place in found if place is not None]
                for crash in inputs.crashes(source, label, kind, self.config.archive, unpacked, self.config.btt):
                    if crash.symbols is not None and crash.symbols not in {p.path for p in looked}:
                        looked.insert(0, self._search(crash.symbols))
                    crash.problems += problems
                    yield from self._events(crash, looked, attributes, (*sourcemaps, *symbols))
            except DeadreckonError as e:
                yield unreadable(label, e, inputs.size_of(source))
            except OSError as e:
                yield unreadable(label, e, None)
            finally:
                self.forget([p.path for p in looked if p.path not in self._paths])  # What was unpacked goes away.

    def forget(self, symbols: Sequence[str]) -> None:
        """Let go of what is known of symbol paths that go away or whose files change."""
        if symbols:
            with self._lock:
                for path in symbols:
                    self._paths.pop(path, None)
                self._resolved = {k: v for k, v in self._resolved.items() if set(symbols).isdisjoint(k[4:])}

    # -- symbols ------------------------------------------------------------------------------------------------------

    def _temporary(self) -> str | None:
        """Return the store's scratch directory, None (the system's) where the store can't be written to."""
        try:
            return str(self.store.temporary)
        except OSError:
            return None

    @contextmanager
    def _spooled(self, data: inputs.Data) -> Iterator[str]:
        with tempfile.TemporaryDirectory(dir=self._temporary()) as scratch:
            yield str(inputs.write(Path(scratch) / "data", data))

    def _search(self, path: str) -> SymbolPath:
        return SymbolPath(path, self.store, self.config.symbols.max_scan_files)

    def _symbol_path(self, path: str, scratch: inputs.Scratch, problems: list[Diagnostic]) -> Place | None:
        """Return a place to look for symbols; an archive of debug files is unpacked for the time of the call.

        What can't be read goes into ``problems``: what is missing, and of an archive what comes after the damage.
        """
        known = self._paths.get(path)
        if known is not None:
            return known
        if (source := remote_source(path, self.config.sources)) is not None:
            from deadreckon.symbols.remote import RemoteSource  # noqa: PLC0415  (most runs have no remote source)

            return self._paths.setdefault(path, RemoteSource(path, source, self.config, self.store))
        if os.path.isfile(path) and inputs.is_archive(path):
            directory = tempfile.mkdtemp(dir=scratch.path)
            try:
                for _ in inputs.debug_files(path, self.config.archive, Path(directory), problems):
                    pass
            except DeadreckonError as e:
                message = f"{path}: {e}"
                problems.append(
                    Diagnostic(code="symbols_malformed", severity="warning", stage="symbols", message=message)
                )
            unpacked = self._search(directory)
            unpacked.packages.append(path)
            return unpacked
        if not os.path.exists(path):
            message = f"--symbols {path}: no such file or directory"
            problems.append(Diagnostic(code="source_unavailable", severity="warning", stage="symbols", message=message))
            return None
        return self._paths.setdefault(path, self._search(path))

    def _each_debug_file(
        self, source: str | os.PathLike[str] | bytes, use: Callable[[str, str | None], Added]
    ) -> list[Added]:
        if isinstance(source, bytes):
            try:
                with self._spooled(source) as path:
                    return self._used(path, "bytes", use)
            except OSError as e:
                raise SourceUnavailable(f"the symbol store can't be written to: {e}") from e
        return self._used(os.fspath(source), None, use)

    def _used(self, path: str, name: str | None, use: Callable[[str, str | None], Added]) -> list[Added]:
        return [
            use(file.path, file.origin) if file.problem is None else Added(file.origin or file.path, [], file.problem)
            for file in inputs.symbol_files(path, self.config.archive, self._temporary(), name)
        ]

    # -- one crash ----------------------------------------------------------------------------------------------------

    def _events(
        self, crash: inputs.Crash, paths: list[Place], attributes: dict[str, str] | None, sourcemaps: Sequence[str]
    ) -> Iterator[Event]:
        data = crash.data
        digest = inputs.digest(data)
        source = Source(
            format=crash.form.name,
            name=os.path.basename(crash.name) if crash.name else None,
            size=len(data),
            sha256=digest,
            container=crash.container or None,
        )
        try:
            if len(data) > self.config.report.max_bytes:
                raise LimitExceeded("report.max_bytes", self.config.report.max_bytes, len(data))
            crashes = reports.read(crash.form, memoryview(data), self.config.report)
        except DeadreckonError as e:
            event = unreadable(crash.name, e, len(data))
            event.source, event.event_id = source, digest[:32]
            event.diagnostics = [*crash.problems, *(event.diagnostics or [])]
            yield event
            return
        for number, raw in enumerate(crashes):
            raw.diagnostics[:0] = crash.problems
            if attributes:
                raw.attributes.update(attributes)
            event = describe(raw, source, digest if not number else derived(digest, number), crash.attachments)
            self._resolve_stacks(raw, paths, event, sourcemaps)
            conclude(event, raw, self.config.grouping)
            yield event

    def _resolve_stacks(self, raw: RawCrash, paths: list[Place], event: Event, sourcemaps: Sequence[str]) -> None:
        """Unwind and symbolicate every thread; fill threads, modules and diagnostics."""
        told = stacks.find(raw, self.config.unwind, lambda modules: self._modules(modules, paths))
        frames_of, resolved, stops = told.frames, told.resolved, told.stops
        all_stacks = list(frames_of.values())
        self._add_source(all_stacks, raw.modules, resolved)
        languages = {frame.lang for stack in all_stacks for frame in stack}
        if "javascript" in languages:
            raw.diagnostics.extend(self._map_scripts(all_stacks, tuple(dict.fromkeys(sourcemaps))))
        if "java" in languages:
            raw.diagnostics.extend(self._retrace(raw, frames_of, paths, event))
        if undecided := [f for stack in frames_of.values() for f in stack if f.in_app is None]:
            from deadreckon.grouping.normalize import in_app  # noqa: PLC0415

            for frame in undecided:
                frame.in_app = in_app(frame)
        code = [r.tables.code if r.tables else None for r in resolved]
        lacking = any(e.instruction is None for e in event.exceptions or ())
        if lacking and any(table is not None and len(table.data) for table in code):
            event.exceptions = [exception_info(raw, e, reader(raw, code)) for e in raw.exceptions]
        for number, exception in enumerate(event.exceptions or (), len(raw.threads)):
            exception.frames = frames_of.get(number)
        explained: dict[int, list[str]] = {}
        if self.explain and told.walk is not None:
            from deadreckon.unwind.explain import explain  # noqa: PLC0415  (only when asked for)

            explained = explain(raw, told.walk, told.tables)
        event.threads = []
        for number, thread in enumerate(raw.threads):
            frames = frames_of.get(number)
            shown = thread.registers.as_hex() if thread.registers is not None else None
            event.threads.append(
                Thread(
                    id=thread.id,
                    name=thread.name,
                    crashed=thread.crashed,
                    registers=shown,
                    frames=frames,
                    explanation=explained.get(number),
                )
            )
            if thread.registers is None and thread.frames is None:
                raw.diagnostics.append(
                    Diagnostic(
                        code="context_missing",
                        severity="warning",
                        stage="unwind",
                        message=f"thread {thread.id} has no readable registers",
                        where={"thread": thread.id},
                    )
                )
            elif thread.crashed and stops[number] not in {"end of stack", "base function"}:
                raw.diagnostics.append(
                    Diagnostic(
                        code="frame_limit" if stops[number] == "frame limit" else "unwind_stopped",
                        severity="info",
                        stage="unwind",
                        message=f"the crashed thread's stack ends early: {stops[number]}",
                        where={"thread": thread.id, "frames": len(frames or ())},
                    )
                )
        raw.diagnostics.extend(
            Diagnostic(
                code="source_unavailable",
                severity="warning",
                stage="symbols",
                message=f"{source}: {why}",
                where={"source": source},
            )
            for source, why in {s: why for r in resolved for s, why in r.unavailable.items()}.items()
        )
        event.modules = []
        for index, module in enumerate(raw.modules):
            found = resolved[index]
            state = found.symbols.state if index in told.used else "unused"
            event.modules.append(module_info(module, state))
            if index not in told.used:
                continue
            raw.diagnostics.extend(
                Diagnostic(code="symbols_malformed", severity="warning", stage="symbols", message=problem)
                for problem in (found.problems if state in {"found", "malformed"} else ())
            )
            if state == "found" and module.debug_id is None and module.code_id is None:
                message = f"{module.code_file}: the report has no id of it; its symbols were taken by its name"
                raw.diagnostics.append(
                    Diagnostic(code="symbols_by_name", severity="info", stage="symbols", message=message)
                )
            if state in {"missing", "mismatch"}:
                raw.diagnostics.append(
                    Diagnostic(
                        code="symbols_missing" if state == "missing" else "symbols_mismatch",
                        severity="info",
                        stage="symbols",
                        message="; ".join(found.problems) or f"no debug file for {module.code_file or 'a module'}",
                        where={"module": module.code_file, "debug_id": module.debug_id or "none"},
                    )
                )

        raw.diagnostics.extend(unmatched(paths, raw.modules, raw.diagnostics))

    def _add_source(self, stacks: list[list[Frame]], modules: list[Module], resolved: list[Resolved]) -> None:
        """Give frames the lines around theirs, where there are source bundles or the user named source roots."""
        limits = self.config.symbols
        bundles = {m.debug_id: r.bundles for m, r in zip(modules, resolved, strict=True) if m.debug_id and r.bundles}
        if bundles or limits.source_roots:
            from deadreckon.symbolicate.source import SourceContext  # noqa: PLC0415  (off by default)

            context = SourceContext(limits.source_roots, limits.source_remap, limits.source_lines)
            context.add((frame for stack in stacks for frame in stack), bundles)

    def _retrace(
        self, raw: RawCrash, frames_of: dict[int, list[Frame]], paths: list[Place], event: Event
    ) -> list[Diagnostic]:
        """Undo the renaming of Java frames and exceptions; returns what is to be said of it."""
        from deadreckon.symbolicate import java  # noqa: PLC0415

        told = raw.attributes.get("symbolication_id")  # As Backtrace's clients call it.
        named = raw.mappings or ([str(told)] if told else [])
        mappings, problems = self._mappings.find(named, java.map_ids(frames_of.values()), paths)
        return problems + java.retrace(frames_of, event.exceptions or (), len(raw.threads), mappings)

    def _map_scripts(self, stacks: list[list[Frame]], paths: tuple[str, ...]) -> list[Diagnostic]:
        """Replace positions in generated scripts by those in their sources; returns what is to be said of it."""
        from deadreckon.symbolicate.javascript import JavaScript  # noqa: PLC0415  (most crashes are not JavaScript's)
        from deadreckon.symbols.maps import MapStore  # noqa: PLC0415
        from deadreckon.symbols.scriptplaces import open_place  # noqa: PLC0415
        from deadreckon.symbols.scripts import Scripts  # noqa: PLC0415

        with self._lock:
            known = self._scripts.get(paths)
        problems = []
        if known is None:
            places = []
            for path in paths:
                try:
                    places.append(open_place(path, self.config))
                except DeadreckonError as e:
                    problems.append(
                        Diagnostic(code="source_unavailable", severity="warning", stage="symbols", message=str(e))
                    )
            with self._lock:
                self._maps = self._maps or MapStore(self.config, self.store.note)
            scripts = Scripts(places, self._maps, self.store, self.config)
            known = JavaScript(scripts, self.config.symbols.source_lines)
            with self._lock:
                self._scripts = {paths: known}
        return problems + known.apply(stacks)

    def _modules(self, modules: list[Module], paths: list[Place]) -> list[Resolved]:
        """Return modules' tables, found once for every crash that has the same build of them."""
        from deadreckon.symbolicate.native import ModuleSymbols  # noqa: PLC0415

        searched = tuple(p.path for p in paths)
        keys = [
            (m.debug_id, m.code_id, m.debug_file, (m.code_file, m.file_offset, hash(m.contents)), *searched)
            for m in modules
        ]
        now = time.monotonic()
        with self._lock:
            known = {k: self._resolved[k] for k in keys if k in self._resolved and now < self._resolved[k].until}
        wanted = {k: m for k, m in zip(keys, modules, strict=True) if k not in known}
        for key, answer in zip(wanted, resolve_all(list(wanted.values()), paths, self.store), strict=True):
            tables, lasting = answer.tables, answer.tables is not None and not answer.unavailable
            known[key] = Resolved(
                tables,
                ModuleSymbols(tables.sym if tables else None, answer.state),
                answer.problems,
                time.monotonic() + (_FOUND_SECONDS if lasting else _MISSING_SECONDS),
                answer.unavailable,
                answer.bundles,
            )
        with self._lock:
            if len(self._resolved) + len(wanted) > _RESOLVED:
                self._resolved.clear()
            self._resolved |= {k: known[k] for k in wanted}
        return [known[k] for k in keys]


def process(
    source: str | os.PathLike[str] | bytes, *, symbols: Sequence[str] = (), config: Config | None = None
) -> Event:
    """Process one crash: a path or the report's bytes; ``symbols`` are debug files or directories of them."""
    with Engine(config) as engine:
        return engine.process(source, symbols=symbols)
