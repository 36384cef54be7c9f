"""What of a message differs from one occurrence to the next: numbers, addresses, ids, dates, paths and the like.

One pass over the text with one pattern of alternatives, the most specific first; each becomes its name in angle
brackets. Not the parameterization of any other product.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache

__all__ = ["MAX_MESSAGE", "parameterize"]

MAX_MESSAGE = 4096
"""Characters of a message that are looked at."""

_DAY = r"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]{0,6},? )?"
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]{0,6}"
_KINDS = {
    "email": r"[\w.+%-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}\b",
    "url": r"\b[a-z][a-z0-9+.-]{1,20}://[^\s\"'<>)\]]{1,2048}",
    "uuid": r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b",
    "ip": (
        r"(?<![\w.:])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?::\d{1,5})?(?![\w.]\d|\w)"
        r"|(?<![\w:])(?:[0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}(?![\w:])"
        r"|(?<![\w:])(?=[a-fA-F:]{0,30}\d)(?:[0-9a-fA-F]{1,4}:){1,6}:(?:[0-9a-fA-F]{1,4}(?::[0-9a-fA-F]{1,4}){0,5})?(?![\w:])"
    ),
    "mac": r"\b(?:[0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}\b",
    "date": (
        r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(?: ?(?:Z|[+-]\d\d:?\d\d|UTC|GMT)\b)?)?"
        rf"|\b{_DAY}\d{{1,2}}[ -]{_MONTH}"
        r"[ -]\d{2,4}(?:,? \d\d:\d\d(?::\d\d)?(?: (?:[A-Z]{2,4}|[+-]\d{4}))?)?"
        rf"|\b{_DAY}{_MONTH}"
        r" \d{1,2},?(?: \d\d:\d\d:\d\d)? \d{4}(?: \d\d:\d\d(?::\d\d)?)?"
        r"|\b\d{1,2}[/.]\d{1,2}[/.]\d{4}\b|\b\d{1,2}:\d\d:\d\d(?:[.,]\d{1,9})?(?: ?[AP]M)?\b"
    ),
    "path": (
        r"(?<![\w<:/.])(?:~|\.{1,2})?/(?:[\w.@+%~-]{1,255}/){1,64}[\w.@+%~-]{0,255}"
        r"|(?<!\w)[A-Za-z]:[\\/](?:[\w .@+%~()-]{1,255}[\\/]){0,64}[\w.@+%~-]{0,255}"
        r"|(?<!\w)\\\\[\w.-]{1,255}(?:\\[\w.$@+%~-]{1,255}){1,64}"
    ),
    "duration": r"(?<![\w.])\d{1,12}(?:\.\d{1,9})? ?(?:ns|us|µs|ms|sec|secs|seconds?|s|min|minutes?|h|hours?|days?)\b",
    "size": r"(?<![\w.])\d{1,12}(?:\.\d{1,9})? ?(?:[KMGT]i?B|bytes?|kb|mb|gb)\b",
    "address": r"\b0[xX][0-9a-fA-F]{1,16}\b|#<?0[xX][0-9a-fA-F]{1,16}>?|(?<=@)[0-9a-f]{5,16}\b",
    "hash": r"\b(?=[0-9a-f]{0,127}\d)(?=[0-9a-f]{0,127}[a-f])(?:[0-9a-f]{7}|[0-9a-f]{8,128})\b",
    "id": (
        r"\b(?=[0-9A-Z]{0,31}\d)(?=[0-9A-Z]{0,31}[A-Z])[0-9A-Z]{12,32}\b"
        r"|\b\w{1,16}_(?=\w{0,64}\d)[A-Za-z0-9]{14,64}\b"
    ),
    "number": r"(?<![\w.])[+-]?\d{1,64}(?:[.,]\d{1,64})*(?:[eE][+-]?\d{1,4})?(?![\w])%?|(?<=[A-Za-z_])\d{3,64}\b",
}  # fmt: skip


@cache
def _pattern() -> re.Pattern[str]:
    return re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _KINDS.items()))


@lru_cache(maxsize=4096)
def parameterize(message: str) -> str:
    """Return a message with what differs between occurrences replaced by what it is: ``timed out after <duration>``.

    Only the first two lines that are not empty count, and of those what fits MAX_MESSAGE; runs of white space are one
    space.
    """
    lines = [line for line in message[:MAX_MESSAGE].splitlines() if line.strip()]
    text = " ".join(" ".join(lines[:2]).split())
    return _pattern().sub(lambda match: f"<{match.lastgroup}>", text)
