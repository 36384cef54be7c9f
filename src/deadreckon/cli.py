"""The command line. ``--help`` and usage errors import nothing but argparse; each command imports what it needs."""

from __future__ import annotations

import gc
import os
import sys

from deadreckon.arguments import parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from deadreckon.config import Config

__all__ = ["main"]

OK, DEGRADED, USAGE, UNREADABLE = 0, 1, 2, 3
"""Exit codes; see the contract."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    options = parser(next((word for word in argv if not word.startswith("-")), "")).parse_args(argv)
    from deadreckon.errors import DeadreckonError

    try:
        code = _COMMANDS[options.command](options)
        sys.stdout.flush()
        return code
    except DeadreckonError as e:
        return _fail(f"{e.code}: {e}", USAGE)
    except BrokenPipeError:
        # The reader of our output left (| head): silence what the interpreter would say when it closes stdout.

        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as e:  # Inputs that can't be read are events; this is the output, the job directory or the settings.
        return _fail(f"{e.filename or 'output'}: unreadable: {e.strerror}", USAGE)
    except KeyboardInterrupt:
        return 130


def run() -> None:
    """Run as a program. With LLVM loaded, taking the process apart would cost 0.13 s; the system does it at once.

    Modules make a hundred thousand objects that stay; to look through them for garbage again and again while they load
    takes an eighth of a start.
    """
    gc.set_threshold(300_000)
    code = main()
    if "numba" in sys.modules:
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _fail(message: str, code: int) -> int:
    from deadreckon.adapters.text import safe

    print(f"deadreckon: {safe(message)}", file=sys.stderr)
    return code


def _config(options: argparse.Namespace) -> Config:
    from dataclasses import replace
    from pathlib import Path

    from deadreckon.config import load

    config = load(Path(options.config) if options.config else None)
    if getattr(options, "grouping", None) or getattr(options, "grouping_rules", None) or _explains(options):
        families = (*config.grouping.families, *options.grouping)
        rules = (*config.grouping.rules, *options.grouping_rules)
        explain = config.grouping.explain or _explains(options)
        config = replace(config, grouping=replace(config.grouping, families=families, rules=rules, explain=explain))
    if config.grouping.families or config.grouping.rules:  # What is wrong with rules is told before the first crash.
        from deadreckon.grouping.families import families_of

        families_of(config.grouping)
    return replace(config, store=options.store) if options.store else config


def _explains(options: argparse.Namespace) -> bool:
    return bool(getattr(options, "explain_grouping", False))


# -- process ----------------------------------------------------------------------------------------------------------


def _inputs(paths: Sequence[str]) -> Iterator[str]:
    """Yield files: a directory stands for the files in it, in order of their names."""
    for path in paths:
        if path != "-" and os.path.isdir(path):
            for directory, names, files in os.walk(path):
                names.sort()
                for name in sorted(files):
                    found = os.path.join(directory, name)
                    if os.path.isfile(found):  # A pipe would be waited for.
                        yield found
        else:
            yield path


def _process(options: argparse.Namespace) -> int:
    from itertools import islice

    from deadreckon import inputs, reports
    from deadreckon.adapters import many
    from deadreckon.adapters.output import Output, Progress
    from deadreckon.config import remote_source

    if options.kind:
        reports.detect(reports.Probe(b""), options.kind)
    for path in options.symbols:
        if remote_source(path) is None and not os.path.exists(path):
            return _fail(f"--symbols {path}: no such file or directory", USAGE)
    if options.resume and (not options.output or "-" in options.inputs):
        return _fail("--resume goes with -o PATH, and not with standard input", USAGE)
    shown = options.format or ("text" if sys.stdout.isatty() and not options.output else "json")
    plan = many.Plan(
        _config(options),
        shown,
        options.symbols,
        options.sourcemaps,
        dict(options.attr) or None,
        options.kind,
        options.explain,
        options.explain_grouping,
    )
    _compile_kernels()
    paths = list(_inputs(options.inputs))
    asked = repr((plan, paths)) if options.resume else None
    head, tail = _frame(shown)
    code = OK
    with (
        inputs.Scratch(lambda: None) as scratch,
        Output(options.output, head=head, tail=tail, resume=asked) as output,
        Progress(len(paths) if len(paths) > 1 else None) as progress,
    ):
        items = islice(many.items_of(paths, plan, scratch), output.items, None)
        for number, result in many.process(items, plan, options.processes or len(os.sched_getaffinity(0))):
            progress.step(result.events, number)
            for complaint in result.complaints:
                _fail(complaint, UNREADABLE)
            if result.unreadable:
                code = UNREADABLE
            elif result.degraded and options.strict and code == OK:
                code = DEGRADED
            output.write(number, result.output)
    return code


def _frame(shown: str) -> tuple[bytes, bytes]:
    """Return what stands before and after all events."""
    if shown != "html":
        return b"", b""
    from deadreckon.adapters import html

    return html.HEAD.encode(), html.TAIL.encode()


def _cluster(options: argparse.Namespace) -> int:
    from deadreckon import inputs
    from deadreckon.adapters import many
    from deadreckon.adapters.output import Progress
    from deadreckon.engine import Engine
    from deadreckon.grouping.pile import Pile

    text = (options.format or ("text" if sys.stdout.isatty() else "json")) == "text"
    plan = many.Plan(_config(options), "json", options.symbols)
    _compile_kernels()
    code, pile = OK, Pile()
    with Engine(plan.config) as engine, inputs.Scratch(lambda: None) as scratch, Progress() as progress:
        for item in many.items_of(_inputs(options.inputs), plan, scratch):
            for event in many.events_of(engine, plan, item):
                progress.step()
                many.note(noted := many.Made(), event, item.path)
                for complaint in noted.complaints:
                    _fail(complaint, UNREADABLE)
                if noted.unreadable:
                    code = UNREADABLE
                else:
                    pile.add(event, os.path.basename(item.path))
    found = pile.clusters(options.distance)
    if text:
        import shutil

        from deadreckon.adapters.clusters import render

        print(render(found, width=max(shutil.get_terminal_size().columns, 60)), end="")
    else:
        import msgspec

        for cluster in found:
            print(msgspec.json.encode(cluster).decode())
    return code


def _compile_kernels() -> None:
    """On a terminal, compile on all processors before the very first crash, and say why that takes so long."""
    if sys.stderr.isatty():
        from deadreckon import kernels

        if kernels.cold():
            print("deadreckon: compiling kernels, once on this machine (about half a minute) ...", file=sys.stderr)
            kernels.warm()


def _diff(options: argparse.Namespace) -> int:
    from deadreckon.adapters.difference import difference, render
    from deadreckon.errors import ReportError

    try:
        found = difference(_config(options), options.a, options.b, options.symbols, options.kind)
    except ReportError as e:
        return _fail(f"{e.code}: {e}", UNREADABLE)
    if (options.format or ("text" if sys.stdout.isatty() else "json")) == "text":
        for line in render(found):
            print(line)
    else:
        import msgspec

        print(msgspec.json.encode(found).decode())
    return OK


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
    from deadreckon.adapters.output import Progress

    with Progress() as progress:
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
            sourcemaps=options.sourcemaps,
        )
    )
    return OK


def _worker(options: argparse.Namespace) -> int:
    from dataclasses import asdict, replace

    from deadreckon.worker.supervisor import run
    from deadreckon.worker.watch import log_end, log_to_stderr, terminal

    config = _config(options)
    if options.sink:
        config = replace(config, worker=replace(config.worker, sink=options.sink))
    as_json = terminal() is None
    log_to_stderr(as_json=as_json)
    summary = run(
        options.jobdir, config, processes=options.processes, once=options.once, progress=True, json_logs=as_json
    )
    if as_json:
        log_end(asdict(summary))
    else:
        print(f"{summary.done} done, {summary.failed} failed, {summary.retried} tried again", file=sys.stderr)
    return OK


def _jobs(options: argparse.Namespace) -> int:
    import json

    from deadreckon.worker import jobs

    if options.action == "retry":
        print(jobs.retry(options.jobdir, options.job, missing=options.missing))
    elif options.action == "purge":
        print(jobs.purge(options.jobdir, options.older_than * jobs.DAY))
    else:
        print(json.dumps(jobs.status(options.jobdir)))
    return OK


def _snapshot(options: argparse.Namespace) -> int:
    from deadreckon.adapters.snapshot import run

    said, done = run(_config(options), options.source, options.output, options.attach)
    if not done:
        return _fail(said, UNREADABLE)
    print(said)
    return OK


# -- about ------------------------------------------------------------------------------------------------------------


def _demo(_options: argparse.Namespace) -> int:
    from deadreckon.adapters.demo import run

    _compile_kernels()
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


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "process": _process,
    "cluster": _cluster,
    "lookup": _lookup,
    "symbols": _symbols,
    "submit": _submit,
    "worker": _worker,
    "jobs": _jobs,
    "diff": _diff,
    "snapshot": _snapshot,
    "demo": _demo,
    "doctor": _doctor,
    "warm": _warm,
    "schema": _schema,
}

if __name__ == "__main__":
    run()
