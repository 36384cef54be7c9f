"""Secrets taken out of an event before it is handed on: values of denied keys, and numbers of cards.

What goes is what products' own servers take out by default, so that nothing is sent that would not be kept. Keys are
compared without case and punctuation (``X-Api-Key``, ``api_key``, ``apiKey``), in objects, in lists of pairs, in
``key=value`` of URLs, cookies and command lines, and in JSON that is text. Lines of source code stay as they are.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from deadreckon.config import ScrubConfig

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deadreckon.model.event import Event, ExceptionInfo, Frame

__all__ = ["DEFAULT", "DENIED", "Scrubber", "is_card"]

DENIED = frozenset(
    """
    password passwd passphrase secret apikey accesskey privatekey authorization credential cookie sessionid
    sessionkey phpsessid csrf xsrf bearer accesstoken refreshtoken authtoken idtoken securitytoken creditcard cardnumber
    connectionstring
    """.split()
)
"""Keys that hold secrets, also as a part of longer ones: ``AWS_SECRET_ACCESS_KEY``, ``Set-Cookie``."""
_WHOLE = frozenset({"auth", "token", "pwd", "pw", "pass", "cvv", "cvc", "cvv2", "ssn", "pin", "dsn", "jwt", "sid"})
"""Keys that hold secrets and are part of harmless ones: ``author``, ``tokens``, ``compass``."""

_MAX_DEPTH = 64
_NOT_KEY = re.compile(r"[^a-z0-9]+")
# What stands before a value in text: key=, "key": and --key. The key itself is judged as one of an object is.
_ASSIGNED = re.compile(r"([A-Za-z][\w.-]{1,63})=([^\s&;,\"'<>\\]{1,4096})")
_QUOTED = re.compile(
    r'(["\'])([A-Za-z][\w.-]{1,63})\1(\s{0,8}:\s{0,8})(?:"(?:[^"\\]|\\.){0,4096}+"|\'[^\']{0,4096}+\'|[\w.+-]{1,64})'
)
_OPTION = re.compile(r"(--?[A-Za-z][\w-]{1,63}\s{1,4})(?!-)(\S{1,4096})")
_HEADER = re.compile(r"\b(Bearer|Basic)\s{1,4}[A-Za-z0-9+/=._~-]{8,4096}")
_USERINFO = re.compile(r"(\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@]{0,256}:)[^\s/@]{1,1024}(?=@)", re.IGNORECASE)
_PEM = re.compile(r"(-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----)[^-]{0,65536}(-----END|\Z)?")
_CARD = re.compile(r"(?<![\w.])[2-6]\d{3}(?:([ -]?)\d{4}\1\d{4}\1\d{1,7}|([ -]?)\d{6}\2\d{4,5})(?![\w])")
# By the first digits (ISO/IEC 7812): how many digits the cards of a network have.
_NETWORKS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
    r"|(?:5[1-5]\d{14}|2(?:2[2-9]|[3-6]\d|7[01])\d{13}|2720\d{12})"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|3(?:0[0-5]|[68]\d)\d{11}"  # Diners Club
    r"|35(?:2[89]|[3-8]\d)\d{12}"  # JCB
    r"|6(?:011|5\d\d|4[4-9]\d)\d{12}"  # Discover
    r"|62\d{14,17}"  # UnionPay
)


def is_card(digits: str) -> bool:
    """Tell a card's number: of a network's length and beginning, with the check digit of ISO/IEC 7812-1 (Luhn's)."""
    if not _NETWORKS.fullmatch(digits):
        return False
    doubled = [int(d) * 2 for d in digits[-2::-2]]
    return (sum(int(d) for d in digits[-1::-2]) + sum(d - 9 if d > 9 else d for d in doubled)) % 10 == 0


class Scrubber:
    """Takes out what a configuration says. Its methods return copies where there is something to take out."""

    def __init__(self, config: ScrubConfig | None = None) -> None:
        self._config = config or ScrubConfig()
        self._denied = tuple(DENIED | {part for key in self._config.deny if (part := _plain(key))})
        self._allowed = frozenset(_plain(key) for key in self._config.allow)
        self._known: dict[str, bool] = {}

    def denies(self, key: str) -> bool:
        """Tell whether what a key holds is to go."""
        found = self._known.get(key)
        if found is None:
            plain = _plain(key[:256])
            found = plain not in self._allowed and (plain in _WHOLE or any(part in plain for part in self._denied))
            if len(self._known) < 10_000:
                self._known[key] = found
        return found

    def text(self, value: str) -> str:
        """Return text without the secrets that are recognised in it."""
        mark = self._config.mark
        if "=" in value:
            value = _ASSIGNED.sub(lambda m: f"{m[1]}={mark}" if self.denies(m[1]) else m[0], value)
        if ":" in value:
            value = _QUOTED.sub(
                lambda m: f"{m[1]}{m[2]}{m[1]}{m[3]}{m[1]}{mark}{m[1]}" if self.denies(m[2]) else m[0], value
            )
            value = _USERINFO.sub(lambda m: m[1] + mark, value)
        if "-" in value:
            value = _OPTION.sub(lambda m: m[1] + mark if self.denies(m[1]) else m[0], value)
            value = _PEM.sub(lambda m: f"{m[1]}{mark}{m[2] or ''}", value)
        if "earer " in value or "asic " in value:
            value = _HEADER.sub(lambda m: f"{m[1]} {mark}", value)
        if self._config.cards and len(value) >= 13:
            value = _CARD.sub(lambda m: mark if is_card(re.sub("[ -]", "", m[0])) else m[0], value)
        return value

    def value(self, value: Any, depth: int = _MAX_DEPTH) -> Any:
        """Return a value of JSON without secrets; what is nested deeper than anything in an event goes as a whole."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return self._config.mark if self._config.cards and value > 10**12 and is_card(str(value)) else value
        if isinstance(value, dict):
            return self.members(value, depth) if depth else self._config.mark
        if isinstance(value, list | tuple):
            if len(value) == 2 and isinstance(value[0], str) and self.denies(value[0]):
                return [value[0], self._config.mark]
            return [self.value(v, depth - 1) for v in value] if depth else self._config.mark
        return value

    def members(self, told: dict[str, Any], depth: int = _MAX_DEPTH) -> dict[str, Any]:
        """Return an object without secrets; that a denied key holds nothing is no secret."""
        return {
            k: self._masked(v) if self.denies(k) and v not in (None, "", [], {}) else self.value(v, depth - 1)
            for k, v in told.items()
        }

    def _masked(self, value: Any) -> Any:
        """Return what stands for a secret; of an object, such as cookies, the names stay."""
        return dict.fromkeys(value, self._config.mark) if isinstance(value, dict) else self._config.mark

    def event(self, event: Event) -> Event:
        """Return an event without secrets: in its texts, its variables and in whatever clients put beside a crash."""
        return msgspec.structs.replace(
            event,
            message=event.message and self.text(event.message),
            title=event.title and self.text(event.title),
            exceptions=event.exceptions and [self._exception(e) for e in event.exceptions],
            threads=event.threads
            and [msgspec.structs.replace(t, frames=t.frames and self._frames(t.frames)) for t in event.threads],
            grouping=event.grouping and [self.text(part) for part in event.grouping],
            attributes=event.attributes and self.members(event.attributes),
            tags=event.tags and self.members(event.tags),
            user=event.user and self.members(event.user),
            request=event.request and self.members(event.request),
        )

    def _exception(self, told: ExceptionInfo) -> ExceptionInfo:
        return msgspec.structs.replace(
            told,
            value=told.value and self.text(told.value),
            details=told.details and self.members(told.details),
            frames=told.frames and self._frames(told.frames),
        )

    def _frames(self, frames: Iterable[Frame]) -> list[Frame]:
        return [self._frame(f) if f.locals or f.args or f.kwargs or f.details else f for f in frames]

    def _frame(self, frame: Frame) -> Frame:
        return msgspec.structs.replace(
            frame,
            locals=frame.locals and self.members(frame.locals),
            args=frame.args and [self.value(v) for v in frame.args],
            kwargs=frame.kwargs and self.members(frame.kwargs),
            details=frame.details and self.members(frame.details),
        )


def _plain(key: str) -> str:
    return _NOT_KEY.sub("", key.lower())


DEFAULT = Scrubber()
"""Takes out what DENIED says, and cards' numbers."""
