"""What the command line understands. Imports nothing but argparse, so that ``--help`` is there in a blink."""

from __future__ import annotations

import argparse

TYPE_CHECKING = False  # typing costs as much as a fifth of a bare start; checkers know the name.
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["parser"]


def parser(asked: str | None = None) -> argparse.ArgumentParser:
    """Return the parser; what it yields has the command's name as ``command``.

    ``asked`` is the only command whose arguments are needed; None for all of them.
    """
    from deadreckon import __version__  # noqa: PLC0415

    parser = argparse.ArgumentParser(
        prog="deadreckon", description="Tells where a program died: function, file and line from a crash report."
    )
    parser.add_argument("--version", action="version", version=f"deadreckon {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Command)
    for name, (text, describe) in _COMMANDS.items():
        # A parser for each of them would take longer than all else that --help does.
        wanted = asked in {None, name}
        added = commands.add_parser(name, help=text, description=text, wanted=wanted)
        if wanted:
            added.set_defaults(command=name)
            describe(added)
    return parser


class _Command(argparse.ArgumentParser):
    """A command's parser, or what stands in its place where another command is asked for."""

    def __init__(self, *, wanted: bool = True, **given: object) -> None:
        if wanted:
            super().__init__(**given)  # type: ignore[arg-type]


def _process(added: argparse.ArgumentParser) -> None:
    added.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="crash file, archive or directory of them, or - for stdin"
    )
    added.add_argument(
        "--symbols", action="append", default=[], metavar="PATH", help="debug file, archive, directory or URL"
    )
    added.add_argument(
        "--sourcemaps", action="append", default=[], metavar="PATH", help="source map or directory of them"
    )
    added.add_argument("--format", choices=("json", "text", "html"), help="default: text on a terminal, else json")
    added.add_argument("-o", "--output", metavar="PATH", help="write there instead of to standard output")
    added.add_argument("--processes", type=_count, metavar="N", help="for many inputs (default: one for each core)")
    added.add_argument("--resume", action="store_true", help="go on where a run with the same inputs was interrupted")
    added.add_argument(
        "--attr", action="append", default=[], metavar="K=V", type=_pair, help="add an attribute to every event"
    )
    added.add_argument("--kind", metavar="FORMAT", help="the inputs' format, where it must not be detected")
    added.add_argument("--strict", action="store_true", help="exit 1 if any event is degraded")
    added.add_argument("--explain", action="store_true", help="show how each frame was found")
    added.add_argument(
        "--explain-grouping", action="store_true", help="show which frames made the fingerprint, and why"
    )
    _grouping(added)
    _store(added)


def _cluster(added: argparse.ArgumentParser) -> None:
    added.add_argument("inputs", nargs="+", metavar="PATH", help="crash file, archive or directory of them")
    added.add_argument(
        "--symbols", action="append", default=[], metavar="PATH", help="debug file, archive, directory or URL"
    )
    added.add_argument("--format", choices=("json", "text"), help="default: text on a terminal, else json")
    added.add_argument(
        "--distance", metavar="D", type=_share, default=0.3, help="how far two stacks of a cluster may be apart, 0 to 1"
    )
    _store(added)


def _lookup(added: argparse.ArgumentParser) -> None:
    which = added.add_mutually_exclusive_group(required=True)
    which.add_argument("--debug-file", metavar="FILE")
    which.add_argument("--debug-id", metavar="ID", help="of a module imported into the store, in any spelling")
    added.add_argument("addresses", nargs="*", metavar="ADDR", help="hex; without any, one a line from standard input")
    added.add_argument("--format", choices=("json", "text"), default="text")
    _store(added)


def _symbols(added: argparse.ArgumentParser) -> None:
    actions = added.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, text: str) -> argparse.ArgumentParser:
        return actions.add_parser(name, help=text, description=text)

    added = action("add", "Import debug files; those that are there already stay as they are.")
    added.add_argument("paths", nargs="+", metavar="PATH", help="debug file, directory or archive")
    added.add_argument("--tag", action="append", default=[], metavar="K=V", type=_pair, help="kept with each file")
    _store(added)
    added = action("list", "List what was imported, and what failed.")
    added.add_argument("--tag", action="append", default=[], metavar="K=V", type=_pair, help="only files with it")
    added.add_argument("--failed", action="store_true", help="only files that could not be imported")
    added.add_argument("--all", action="store_true", help="also what is there because of --symbols and sources")
    added.add_argument("--format", choices=("json", "text"), default="text")
    _store(added)
    added = action("show", "Show all that is known of one module.")
    added.add_argument("id", metavar="ID", help="debug id in any spelling, code id or build id")
    added.add_argument("--format", choices=("json", "text"), default="text")
    _store(added)
    added = action("check", "Say what is wrong with debug files, or with the store itself.")
    added.add_argument("paths", nargs="*", metavar="PATH", help="what might be imported; without any, the store")
    added.add_argument("--repair", action="store_true", help="put the store in order")
    _store(added)
    added = action("prune", "Keep the store below its limit, and clear up after killed processes.")
    added.add_argument("--older-than", metavar="DAYS", type=_days, help="remove what was not used for so long")
    added.add_argument("--max-bytes", metavar="N", type=_count, help="instead of the setting symbols.store_max_bytes")
    _store(added)


def _submit(added: argparse.ArgumentParser) -> None:
    added.add_argument("jobdir", metavar="JOBDIR")
    added.add_argument("inputs", nargs="*", metavar="INPUT", help="crash; without any, symbols are for all later jobs")
    added.add_argument("--kind")
    added.add_argument("--attr", action="append", default=[], metavar="K=V", type=_pair)
    added.add_argument("--attach", action="append", default=[], metavar="PATH")
    added.add_argument("--symbols", action="append", default=[], metavar="PATH", help="debug file for this job")
    added.add_argument("--sourcemaps", action="append", default=[], metavar="PATH", help="source map for this job")


def _worker(added: argparse.ArgumentParser) -> None:
    added.add_argument("jobdir", metavar="JOBDIR")
    added.add_argument("--processes", type=_count, default=1, metavar="N")
    added.add_argument("--once", action="store_true", help="stop when no job is left")
    added.add_argument("--sink", metavar="SPEC", help="all events: jsonl:DIR, parquet:DIR or call:MODULE:FUNCTION")
    _store(added)


def _jobs(added: argparse.ArgumentParser) -> None:
    added.add_argument("action", choices=("status", "retry", "purge"))
    added.add_argument("jobdir", metavar="JOBDIR")
    added.add_argument("job", metavar="JOB", nargs="?", help="the one failed job to retry (default: all)")
    added.add_argument(
        "--missing", metavar="DEBUG_ID", help="retry the done jobs that lacked a module's symbols instead"
    )
    added.add_argument(
        "--older-than", metavar="DAYS", type=_days, default=7.0, help="purge jobs that ended before that (default: 7)"
    )


def _diff(added: argparse.ArgumentParser) -> None:
    added.add_argument("a", metavar="A", help="crash file, or an event as process writes it")
    added.add_argument("b", metavar="B")
    added.add_argument("--symbols", action="append", default=[], metavar="PATH", help="debug file or directory")
    added.add_argument("--kind", metavar="FORMAT", help="the inputs' format, where it must not be detected")
    added.add_argument("--format", choices=("json", "text"), help="default: text on a terminal, else json")
    _grouping(added)
    _store(added)


def _snapshot(added: argparse.ArgumentParser) -> None:
    added.add_argument("source", metavar="CORE|PID", help="core or minidump, or the number of a process")
    added.add_argument("-o", "--output", metavar="F", required=True)
    added.add_argument("--attach", action="append", default=[], metavar="PATH", help="file to travel along")
    _store(added)


def _store(added: argparse.ArgumentParser) -> None:
    added.add_argument(
        "--store", metavar="DIR", help="symbol store (default: $DEADRECKON_STORE, else the user's cache)"
    )
    added.add_argument("--config", metavar="FILE", help="settings, as TOML")


def _grouping(added: argparse.ArgumentParser) -> None:
    added.add_argument(
        "--grouping", action="append", default=[], metavar="FAMILY", help="add this family's fingerprints"
    )
    added.add_argument(
        "--grouping-rules", action="append", default=[], metavar="FILE", help="rules, or lists of signatures"
    )


def _nothing(_: argparse.ArgumentParser) -> None:
    """A command without arguments."""


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"expected K=V, got {text!r}")
    return key, value


def _count(text: str) -> int:
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number of 1 or more, got {text!r}")
    return value


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return value


def _days(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"expected a number of days, got {text!r}")
    return value


_COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "process": ("Turn crash reports into events, one JSON line each.", _process),
    "cluster": ("Tell which crashes of a pile are the same, and which are almost the same.", _cluster),
    "lookup": ("Print function, file and line for module-relative addresses.", _lookup),
    "symbols": ("Import debug files into the store, say what is in it, keep it in order.", _symbols),
    "submit": ("Put a job into a job directory.", _submit),
    "worker": ("Process the jobs of a job directory.", _worker),
    "jobs": ("Show, retry or remove the jobs of a job directory.", _jobs),
    "diff": ("Say why two crashes fall in the same or in different groups.", _diff),
    "snapshot": ("Write a core, a minidump or a running process as a portable snapshot.", _snapshot),
    "demo": ("Process the crash that comes with the package, then run a worker on it.", _nothing),
    "doctor": ("Say what is installed, what is missing and what degrades without it.", _store),
    "warm": ("Compile every kernel now, so that the first crash need not wait.", _nothing),
    "schema": ("Print the JSON Schema of an event.", _nothing),
}
