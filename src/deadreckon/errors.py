"""The one tree of errors, and the list of diagnostic codes.

Parsers raise; readers turn what a section raised into a Diagnostic and go on. Only an unreadable
header, a limit or a bug leaves ``Engine.process``.
"""

from __future__ import annotations

__all__ = [
    "DIAGNOSTIC_CODES",
    "ConfigError",
    "DeadreckonError",
    "LimitExceeded",
    "Malformed",
    "Mismatch",
    "MissingDependency",
    "ReportError",
    "SourceUnavailable",
    "SpoolError",
    "SymbolError",
    "UnknownFormat",
    "Unsupported",
]


class DeadreckonError(Exception):
    """Base of every error this package raises on purpose; ``code`` is stable and machine-readable."""

    code = "error"


class ReportError(DeadreckonError):
    """A crash input can't be read."""

    code = "report_error"


class UnknownFormat(ReportError):
    """No reader recognises the input."""

    code = "unknown_format"


class Unsupported(ReportError):
    """The format is recognised, but its content is not public or not read by this version."""

    code = "unsupported"


class Malformed(ReportError):
    """Bytes contradict their format's specification.

    ``offset`` is in bytes from the start of what ``what`` names, None where it has no position.
    """

    code = "malformed"

    def __init__(self, what: str, *, offset: int | None = None, expected: object = None, got: object = None) -> None:
        self.what = what
        self.offset = offset
        self.expected = expected
        self.got = got
        parts = [what]
        if offset is not None:
            parts.append(f"at offset {offset:#x}")
        if expected is not None:
            parts.append(f"expected {expected}")
        if got is not None:
            parts.append(f"got {got}")
        super().__init__(": ".join((parts[0], ", ".join(parts[1:]))) if parts[1:] else what)

    def where(self) -> dict[str, str | int]:
        """Return position and expectation as a diagnostic's ``where``."""
        found: dict[str, str | int] = {}
        if self.offset is not None:
            found["offset"] = self.offset
        if self.expected is not None:
            found["expected"] = str(self.expected)
        if self.got is not None:
            found["got"] = str(self.got)
        return found


class LimitExceeded(ReportError):
    """An input asks for more than a configured limit allows."""

    code = "limit_exceeded"

    def __init__(self, limit: str, allowed: float, got: float | None = None, what: str = "") -> None:
        self.limit = limit
        self.allowed = allowed
        self.got = got
        tail = f", got {got}" if got is not None else ""
        head = f"{what}: " if what else ""
        super().__init__(f"{head}limit {limit} is {allowed}{tail}")


class SymbolError(DeadreckonError):
    """A debug file can't be used."""

    code = "symbol_error"


class SourceUnavailable(SymbolError):
    """A symbol source can't be reached or read."""

    code = "source_unavailable"


class Mismatch(SymbolError):
    """A debug file belongs to another build than the module."""

    code = "symbol_mismatch"

    def __init__(self, expected_id: str, got_id: str, path: str = "") -> None:
        self.expected_id = expected_id
        self.got_id = got_id
        super().__init__(f"{path or 'debug file'}: wanted debug id {expected_id}, got {got_id}")


class ConfigError(DeadreckonError):
    """A configuration value is unknown or of the wrong kind."""

    code = "config_error"


class SpoolError(DeadreckonError):
    """A job directory can't be used."""

    code = "spool_error"


class MissingDependency(DeadreckonError):
    """An optional package or system library is absent."""

    code = "missing_dependency"

    def __init__(self, name: str, install: str) -> None:
        self.name = name
        self.install = install
        super().__init__(f"{name} is not installed; {install}")


DIAGNOSTIC_CODES: dict[str, str] = {
    "archive_damaged": "An archive is cut short or damaged; the entries read before that were used.",
    "archive_entry_skipped": "An archive entry is encrypted, a link or a device, and was not read.",
    "archive_limit": "An archive exceeds a limit on count, size, ratio, filters or nesting.",
    "context_missing": "A thread has no readable register context, so it has no frames.",
    "converted": "The input is of no public layout; the configured command's conversion of it was read.",
    "converter_failed": "The configured command gave nothing that can be read for an input of no public layout.",
    "frame_ambiguous": "A mapping leaves several source positions for a frame; all are listed.",
    "frame_limit": "A stack is longer than the frame limit; the rest was not unwound.",
    "internal": "A bug in deadreckon; the traceback is in the worker's failed/ directory or on stderr.",
    "limit_exceeded": "The input asks for more than a configured limit allows.",
    "malformed": "Bytes contradict the format's specification.",
    "module_overlap": "Two modules of the report claim the same addresses; the later one was dropped.",
    "no_stack": "An error came without its stack, so there are no frames.",
    "source_unavailable": "A place for symbols is not there or could not be asked; what it has may be had later.",
    "sourcemap_malformed": "The source map of a script could not be read.",
    "sourcemap_mismatch": "The only source map found for a script is of another build.",
    "sourcemap_missing": "No source map was found for a script; the frame lists what was looked for.",
    "sourcemap_unmapped": "A script's source map says nothing of a frame's position.",
    "stream_duplicate": "A minidump has two streams of one type; the last one counts.",
    "stream_malformed": "A minidump stream contradicts its specification; the others were read.",
    "symbols_by_name": "A report gives a module's name and no id of its build; a debug file of that name was used.",
    "symbols_malformed": "A debug file matching a module could not be read.",
    "symbols_mismatch": "A debug file of a module's name has another debug id.",
    "symbols_missing": "No debug file was found for a module with frames in it.",
    "truncated": "The input ends before its own header says it does.",
    "unknown_format": "No reader recognises the input.",
    "unreadable": "The input can't be opened or read.",
    "unsupported": "The format is recognised, but its content is not public or not read by this version.",
    "unwind_stopped": "A stack ended before a thread's known start.",
}
"""Every code a Diagnostic may carry, with its meaning; stable, used as metric labels."""
