"""The rows that tell findings, in the order in which they are tried, and the search for them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from deadreckon.reports.textlog import kernel, messages, sanitizers, signals
from deadreckon.reports.textlog.findings import LEAKS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deadreckon.reports.textlog.findings import Finding

__all__ = ["MAX_FINDINGS", "find"]

MAX_FINDINGS = 2000
MAX_LINE = 4096
"""Characters of a line that are looked at: what is said is said by then."""

_ROWS = tuple(
    (word, re.compile(pattern), make)
    for word, pattern, make in (*sanitizers.ROWS, *messages.ROWS, *signals.ROWS, *kernel.ROWS)
)


def find(lines: Sequence[str]) -> list[Finding]:
    """Return what a log's lines say went wrong, in their order; MAX_FINDINGS at most."""
    text = "\n".join(lines)
    rows = [row for row in _ROWS if row[0] in text]  # Few of them, in any one log.
    words = list(dict.fromkeys(row[0] for row in rows))
    found: list[Finding] = []
    for at, line in enumerate(lines if words else ()):
        said = line[:MAX_LINE]
        if not any(word in said for word in words):
            continue
        for word, pattern, make in rows:
            if word not in said or (match := pattern.search(said)) is None:
                continue
            finding = make(match, lines, at)
            if finding is not None:
                finding.line = at
                found.append(finding)
                break
        if len(found) >= MAX_FINDINGS:
            break
    if any(f.type.endswith(" leak") and f.type != LEAKS for f in found):
        found = [f for f in found if f.type != LEAKS]  # The leaks themselves say more than their headline.
    return found
