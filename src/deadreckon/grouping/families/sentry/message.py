"""What of a message is the same for two events: two lines at most, with marks for what is the event's own.

Specification: sentry's ``trim_message_for_grouping`` of 2023-02. The kinds are tried in order at each place, and the
first that fits is replaced by its name: ``user 17 of 10.0.0.1`` is ``user <int> of <ip>``.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import islice

__all__ = ["normalize_message"]

_MAX_MESSAGE = 65_536

_HEX = "[0-9a-fA-F]"
_WORD = f"{_HEX}{{1,4}}"
_BYTE = r"(?:25[0-5]|(?:2[0-4]|1?[0-9])?[0-9])"
_V4 = rf"(?:{_BYTE}\.){{3}}{_BYTE}"
_V6 = [
    f"(?:{_WORD}:){{7}}{_WORD}",
    f"(?:{_WORD}:){{1,7}}:",
    f"(?:{_WORD}:){{1,6}}:{_WORD}",
    *(f"(?:{_WORD}:){{1,{left}}}(?::{_WORD}){{1,{7 - left}}}" for left in range(5, 1, -1)),
    f"{_WORD}:(?::{_WORD}){{1,6}}",
    f":(?:(?::{_WORD}){{1,7}}|:)",
    f"fe80:(?::{_HEX}{{0,4}}){{0,4}}%[0-9a-zA-Z]+",
    f"::(?:ffff(?::0{{1,4}})?:)?{_V4}",
    rf"(?:{_WORD}:){{1,4}}:{_V4}\b",
]
_DAY = "(?:Sun|Mon|Tue|Wed|Thu|Fri|Sat)"
_MONTH = "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_ZONE = r"(?:[+-][0-2]\d:[0-5]\d|Z)"
_MINUTE = r"\d{4}-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d"
_DATES = [
    rf"{_MINUTE}:[0-5]\d\.\d+{_ZONE}",
    rf"{_MINUTE}:[0-5]\d{_ZONE}",
    f"{_MINUTE}{_ZONE}",
    rf"\b(?:{_DAY}\s+)?{_MONTH}\s+\d{{1,2}}\s+\d{{2}}:\d{{2}}:\d{{2}}\s+\d{{4}}",
    (
        rf"\b(?:{_DAY},\s+)?(?:0[1-9]|[1-2]?\d|3[01])\s+{_MONTH}\s+(?:19\d{{2}}|[2-9]\d{{3}})\s+"
        r"(?:2[0-3]|[0-1]\d):[0-5]\d(?::(?:60|[0-5]\d))?\s+(?:[-+]\d{2}[0-5]\d|UT|GMT|[ECMP](?:ST|DT)|[A-IK-Z])"
    ),
]
_MAILBOX = r"[a-zA-Z0-9.!#$%&'*+/=?^_`{|}~-]"
_KINDS = {
    # From its first character only: a later one fits no better, and trying each would be quadratic.
    "email": rf"(?<!{_MAILBOX}){_MAILBOX}++@[a-zA-Z0-9-]+(?:\.[a-zA-Z0-9-]+)*",
    "url": r"\b(?:wss?|https?|ftp)://[^\s/$.?#].[^\s]*",
    "ip": rf"{'|'.join(_V6)}|\b{_V4}\b",
    "uuid": rf"\b{_HEX}{{8}}-(?:{_HEX}{{4}}-){{3}}{_HEX}{{12}}\b",
    "sha1": rf"\b{_HEX}{{40}}\b",
    "md5": rf"\b{_HEX}{{32}}\b",
    "date": "|".join(_DATES),
    "hex": rf"\b0[xX]{_HEX}+\b",
    "float": r"-\d+\.\d+\b|\b\d+\.\d+\b",
    "int": r"-\d+\b|\b\d+\b",
}


@lru_cache(maxsize=1)
def _own() -> re.Pattern[str]:
    return re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in _KINDS.items()))


@lru_cache(maxsize=4096)
def normalize_message(message: str) -> str:
    """Return the first two lines of a message that are not blank, with the event's own values replaced."""
    lines = islice((line for line in message.splitlines() if line.strip()), 2)
    text = "\n".join(lines).strip()
    if text != message:
        text += "..."
    return _own().sub(lambda match: f"<{match.lastgroup}>", text[:_MAX_MESSAGE])
