"""The command line. ``--help`` and usage errors import nothing but argparse; each command imports what it needs."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from deadreckon.config import Config
    from deadreckon.engine import Engine
    from deadreckon.model.event import Event

__all__ = ["main"]

OK, DEGRADED, USAGE, UNREADABLE = 0, 1, 2, 3
"""Exit codes; see the contract."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = _parser()
    options = parser.parse_args(argv)
    from deadreckon.errors import DeadreckonError

    try:
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except DeadreckonError as e:
        return _fail(f"{e.code}: {e}", USAGE)
    except BrokenPipeError:
        # The reader of our output left (| head): silence what the interpreter would say when it closes stdout.
        import os

        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as e:  # Inputs that can't be read are events; this is the output, the job directory or the settings.
        return _fail(f"{e.filename or 'output'}: unreadable: {e.strerror}", USAGE)
    except KeyboardInterrupt:
        return 130


def run() -> None:
    """Run as a program. With LLVM loaded, taking the process apart would cost 0.13 s; the system does it at once."""
    code = main()
    if "numba" in sys.modules:
        import os

        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _fail(message: str, code: int) -> int:
    from deadreckon.adapters.text import safe

    print(f"deadreckon: {safe(message)}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="deadreckon", description="Tells where a program died: function, file and line from a crash report."
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], int], text: str, among: Any = commands
    ) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = among.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    def store(added: argparse.ArgumentParser) -> None:
        added.add_argument(
            "--store", metavar="DIR", help="symbol store (default: $DEADRECKON_STORE, else the user's cache)"
        )
        added.add_argument("--config", metavar="FILE", help="settings, as TOML")

    added = command("process", _process, "Turn crash reports into events, one JSON line each.")
    added.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="crash file, archive or directory of them, or - for stdin"
    )
    added.add_argument(
        "--symbols", action="append", default=[], metavar="PATH", help="debug file, archive, directory or URL"
    )
    added.add_argument(
        "--sourcemaps", action="append", default=[], metavar="PATH", help="source map or directory of them"
    )
    added.add_argument("--format", choices=("json", "text"), help="default: text on a terminal, else json")
    added.add_argument("-o", "--output", metavar="PATH", help="write there instead of to standard output")
    added.add_argument(
        "--attr", action="append", default=[], metavar="K=V", type=_pair, help="add an attribute to every event"
    )
    added.add_argument("--kind", metavar="FORMAT", help="the inputs' format, where it must not be detected")
    added.add_argument("--strict", action="store_true", help="exit 1 if any event is degraded")
    added.add_argument(
        "--explain-grouping", action="store_true", help="show which frames made the fingerprint, and why"
    )
    store(added)

    added = command("lookup", _lookup, "Print function, file and line for module-relative addresses.")
    which = added.add_mutually_exclusive_group(required=True)
    which.add_argument("--debug-file", metavar="FILE")
    which.add_argument("--debug-id", metavar="ID", help="of a module imported into the store, in any spelling")
    added.add_argument("addresses", nargs="*", metavar="ADDR", help="hex; without any, one a line from standard input")
    added.add_argument("--format", choices=("json", "text"), default="text")
    store(added)

    added = command("symbols", _symbols, "Import debug files into the store, say what is in it, keep it in order.")
    actions = added.add_subparsers(dest="action", required=True, metavar="ACTION")
    added = command("add", _symbols, "Import debug files; those that are there already stay as they are.", actions)
    added.add_argument("paths", nargs="+", metavar="PATH", help="debug file, directory or archive")
    added.add_argument("--tag", action="append", default=[], metavar="K=V", type=_pair, help="kept with each file")
    store(added)
    added = command("list", _symbols, "List what was imported, and what failed.", actions)
    added.add_argument("--tag", action="append", default=[], metavar="K=V", type=_pair, help="only files with it")
    added.add_argument("--failed", action="store_true", help="only files that could not be imported")
    added.add_argument("--all", action="store_true", help="also what is there because of --symbols and sources")
    added.add_argument("--format", choices=("json", "text"), default="text")
    store(added)
    added = command("show", _symbols, "Show all that is known of one module.", actions)
    added.add_argument("id", metavar="ID", help="debug id in any spelling, code id or build id")
    added.add_argument("--format", choices=("json", "text"), default="text")
    store(added)
    added = command("check", _symbols, "Say what is wrong with debug files, or with the store itself.", actions)
    added.add_argument("paths", nargs="*", metavar="PATH", help="what might be imported; without any, the store")
    added.add_argument("--repair", action="store_true", help="put the store in order")
    store(added)
    added = command("prune", _symbols, "Keep the store below its limit, and clear up after killed processes.", actions)
    added.add_argument("--older-than", metavar="DAYS", type=_days, help="remove what was not used for so long")
    added.add_argument("--max-bytes", metavar="N", type=_count, help="instead of the setting symbols.store_max_bytes")
    store(added)

    added = command("submit", _submit, "Put a job into a job directory.")
    added.add_argument("jobdir", metavar="JOBDIR")
    added.add_argument("inputs", nargs="+", metavar="INPUT")
    added.add_argument("--kind")
    added.add_argument("--attr", action="append", default=[], metavar="K=V", type=_pair)
    added.add_argument("--attach", action="append", default=[], metavar="PATH")
    added.add_argument("--symbols", action="append", default=[], metavar="PATH", help="debug file for this job")

    added = command("worker", _worker, "Process the jobs of a job directory.")
    added.add_argument("jobdir", metavar="JOBDIR")
    added.add_argument("--processes", type=_count, default=1, metavar="N")
    added.add_argument("--once", action="store_true", help="stop when no job is left")
    store(added)

    added = command("jobs", _jobs, "Show, retry or remove the jobs of a job directory.")
    added.add_argument("action", choices=("status", "retry", "purge"))
    added.add_argument("jobdir", metavar="JOBDIR")
    added.add_argument("job", metavar="JOB", nargs="?", help="the one failed job to retry (default: all)")
    added.add_argument(
        "--older-than", metavar="DAYS", type=_days, default=7.0, help="purge jobs that ended before that (default: 7)"
    )

    command("demo", _demo, "Process the crash that comes with the package, then run a worker on it.")
    added = command("doctor", _doctor, "Say what is installed, what is missing and what degrades without it.")
    store(added)
    added = command("warm", _warm, "Compile every kernel now, so that the first crash need not wait.")
    command("schema", _schema, "Print the JSON Schema of an event.")
    return parser


def _version() -> str:
    from deadreckon import __version__

    return f"deadreckon {__version__}"


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"expected K=V, got {text!r}")
    return key, value


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number of 1 or more, got {text!r}")
    return value


def _days(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"expected a number of days, got {text!r}")
    return value


def _config(options: argparse.Namespace) -> Config:
    from dataclasses import replace
    from pathlib import Path

    from deadreckon.config import load

    config = load(Path(options.config) if options.config else None)
    return replace(config, store=options.store) if options.store else config


# -- process ----------------------------------------------------------------------------------------------------------


def _inputs(paths: Sequence[str]) -> Iterator[str]:
    """Yield files: a directory stands for the files in it, in order of their names."""
    import os

    for path in paths:
        if path != "-" and os.path.isdir(path):
            for directory, names, files in os.walk(path):
                names.sort()
                for name in sorted(files):
                    yield os.path.join(directory, name)
        else:
            yield path


def _process(options: argparse.Namespace) -> int:
    import os

    from deadreckon import reports
    from deadreckon.config import remote_source
    from deadreckon.engine import Engine

    if options.kind:
        reports.detect(reports.Probe(b""), options.kind)
    for path in options.symbols:
        if remote_source(path) is None and not os.path.exists(path):
            return _fail(f"--symbols {path}: no such file or directory", USAGE)
    text = (options.format or ("text" if sys.stdout.isatty() and not options.output else "json")) == "text"
    _announce_compilation()
    code = OK
    with Engine(_config(options)) as engine, _Output(options.output) as output, _Progress() as progress:
        for path in _inputs(options.inputs):
            for event in _events(engine, path, options):
                progress.step()
                if event.status in {"unreadable", "unsupported"}:
                    code = UNREADABLE
                    for problem in (event.diagnostics or ())[-1:]:
                        _fail(f"{path}: {problem.code}: {problem.message}", UNREADABLE)
                    if text:
                        continue
                elif event.status == "degraded" and options.strict and code == OK:
                    code = DEGRADED
                output.write(event, text=text, explain_grouping=options.explain_grouping)
    return code


def _events(engine: Engine, path: str, options: argparse.Namespace) -> Iterator[Event]:
    source: str | bytes = path
    name: str | None = None
    if path == "-":
        source, name = sys.stdin.buffer.read(engine.config.report.max_bytes + 1), "-"
    try:
        yield from engine.process_all(
            source,
            name=name,
            kind=options.kind,
            symbols=options.symbols,
            sourcemaps=options.sourcemaps,
            attributes=dict(options.attr) or None,
        )
    except Exception as e:  # noqa: BLE001  (a bug met in one input must not cost the others)
        from deadreckon.describe import unreadable

        yield unreadable(name or path, e, None)


def _announce_compilation() -> None:
    """Say on a terminal why the very first crash on a machine takes so long."""
    if sys.stderr.isatty():
        from deadreckon import kernels

        if kernels.cold():
            print("deadreckon: compiling kernels, once on this machine (about 20 s) ...", file=sys.stderr)


class _Output:
    """Events to a file, written whole or not at all, or to standard output."""

    def __init__(self, path: str | None) -> None:
        self._path = path

    def __enter__(self) -> Self:
        self._temporary = f"{self._path}.tmp" if self._path else None
        self._file = open(self._temporary, "wb") if self._temporary else sys.stdout.buffer
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.flush()
        if self._path and self._temporary:
            import os

            self._file.close()
            if kind is None:
                os.replace(self._temporary, self._path)
            else:
                os.unlink(self._temporary)

    def write(self, event: Event, *, text: bool, explain_grouping: bool) -> None:
        if text:
            from deadreckon.adapters.text import render

            self._file.write((render(event, explain_grouping=explain_grouping) + "\n").encode("utf-8", "replace"))
        else:
            from deadreckon.model.event import encode_event

            self._file.write(encode_event(event) + b"\n")


class _Progress:
    """One line on a terminal's standard error once work has taken two seconds; nothing elsewhere."""

    def __enter__(self) -> Self:
        import time

        self._clock = time.monotonic
        self._start = self._shown = self._clock()
        self._done = 0
        self._active = sys.stderr.isatty()
        return self

    def step(self) -> None:
        self._done += 1
        now = self._clock()
        if self._active and now - self._start > 2 and now - self._shown > 0.2:
            self._shown = now
            print(f"\r{self._done} events, {self._done / (now - self._start):.0f} a second ", end="", file=sys.stderr)

    def __exit__(self, *_: object) -> None:
        if self._active and self._shown != self._start:
            print("\r\033[K", end="", file=sys.stderr)


# -- symbols ----------------------------------------------------------------------------------------------------------


def _lookup(options: argparse.Namespace) -> int:
    import json

    import numpy as np

    from deadreckon.errors import SymbolError
    from deadreckon.kernels.ranges import look_up
    from deadreckon.symbolicate.native import ModuleSymbols
    from deadreckon.symbols.store import ModuleTables, SymbolStore

    texts = options.addresses or [line.strip() for line in sys.stdin if line.strip()]
    try:
        addresses = [int(t, 16) for t in texts]
    except ValueError:
        addresses = [-1]
    if any(not 0 <= a < 1 << 64 for a in addresses):
        return _fail("lookup: addresses are hex numbers relative to the module", USAGE)
    store = SymbolStore(_config(options))
    try:
        if options.debug_file:
            files = [store.open(o["table"]) for o in store.tables_of(options.debug_file)]
            tables = ModuleTables.merge([f for f in files if f is not None])
        else:
            tables = ModuleTables.merge(store.imported(options.debug_id))
    except SymbolError as e:
        return _fail(f"{e.code}: {e}", UNREADABLE)
    finally:
        store.close()
    if tables is None:
        return _fail(f"nothing known of {options.debug_file or options.debug_id}", UNREADABLE)
    first, locations = look_up(tables.sym, np.array(addresses, np.uint64))
    symbols = ModuleSymbols(tables.sym, "found")
    for at, address in enumerate(addresses):
        frames = [symbols.location(i) for i in locations[first[at] : first[at + 1]].tolist()]
        if options.format == "json":
            listed = [
                {"function": f.function, "raw_function": f.raw_function, "filename": f.abs_path, "lineno": f.lineno}
                for f in frames
            ]
            print(json.dumps({"address": hex(address), "frames": listed}))
            continue
        for frame in frames:
            print(f"{frame.function or '??'} ({frame.abs_path or '??'}:{frame.lineno or 0})")
        if not frames:
            print("??")
        if len(addresses) > 1:
            print()
    return OK


def _symbols(options: argparse.Namespace) -> int:
    from deadreckon.adapters import inventory

    code = OK
    with _Progress() as progress:
        for line in inventory.run(**{**vars(options), "config": _config(options)}):
            progress.step()
            if isinstance(line, inventory.Problem):
                code = _fail(line, UNREADABLE)
            else:
                print(line)
    return code


# -- jobs -------------------------------------------------------------------------------------------------------------


def _submit(options: argparse.Namespace) -> int:
    from deadreckon.worker.submit import submit

    print(
        submit(
            options.jobdir,
            options.inputs,
            kind=options.kind,
            attributes=dict(options.attr),
            attach=options.attach,
            symbols=options.symbols,
        )
    )
    return OK


def _worker(options: argparse.Namespace) -> int:
    from deadreckon.worker.supervisor import run

    summary = run(options.jobdir, _config(options), processes=options.processes, once=options.once)
    print(f"{summary.done} done, {summary.failed} failed", file=sys.stderr)
    return OK


def _jobs(options: argparse.Namespace) -> int:
    import json

    from deadreckon.worker import jobs

    if options.action == "retry":
        print(jobs.retry(options.jobdir, options.job))
    elif options.action == "purge":
        print(jobs.purge(options.jobdir, options.older_than * jobs.DAY))
    else:
        print(json.dumps(jobs.status(options.jobdir)))
    return OK


# -- about ------------------------------------------------------------------------------------------------------------


def _demo(_options: argparse.Namespace) -> int:
    from deadreckon.adapters.demo import run

    _announce_compilation()
    run(sys.stdout)
    return OK


def _doctor(options: argparse.Namespace) -> int:
    from deadreckon.adapters.doctor import report

    for line in report(_config(options)):
        print(line)
    return OK


def _warm(_options: argparse.Namespace) -> int:
    import time

    start = time.monotonic()
    from deadreckon.kernels import warm

    print(f"{warm()} kernels ready in {time.monotonic() - start:.1f} s")
    return OK


def _schema(_options: argparse.Namespace) -> int:
    import json

    from deadreckon.model.event import json_schema

    print(json.dumps(json_schema(), indent=2))
    return OK


if __name__ == "__main__":
    run()
