"""What comes in and what goes out of ingestion: requests, answers, jobs, who may do what, and how much."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol
from urllib.parse import unquote

from deadreckon.errors import LimitExceeded
from deadreckon.wire import encoding, multipart

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "PROFILES",
    "Access",
    "Answer",
    "File",
    "Grant",
    "Job",
    "Operation",
    "Product",
    "Profile",
    "Request",
    "Tokens",
    "body_of",
    "digest",
    "json_answer",
    "later",
]

KiB = 1 << 10
MiB = 1 << 20

Product = Literal["rollbar", "sentry", "backtrace", "posthog"]
Role = Literal["crash", "attachment", "symbols", "sourcemap"]


@dataclass(frozen=True, slots=True)
class Profile:
    """How much is taken, in bytes (1 KB is 1024 of them): as it is sent, and without its encodings.

    The products' documents disagree with each other and with their clients; PROFILES has what each of them says.
    """

    rollbar_sent: int = 1 * MiB
    rollbar_decoded: int = 1 * MiB
    """32 KB by the Items API, 128 KB by the API's overview; clients cut at 512 KB or 1 MB."""
    sentry_store_sent: int = 1 * MiB
    sentry_store_decoded: int = 20 * MiB
    """200 KB and 1 MB by the store endpoint's page, which present-day clients exceed."""
    sentry_envelope_sent: int = 40 * MiB
    sentry_envelope_decoded: int = 200 * MiB
    sentry_minidump_sent: int = 40 * MiB
    sentry_minidump_decoded: int = 200 * MiB
    """20 and 100 MB by older pages."""
    backtrace_sent: int = 256 * MiB
    backtrace_decoded: int = 1024 * MiB
    backtrace_symbols: int = 10 * 1024 * MiB
    posthog_sent: int = 20 * MiB
    posthog_decoded: int = 20 * MiB
    strict_tokens: bool = True
    """Whether Rollbar's items of browsers and phones need a client token; its overview lets server tokens post all."""


PROFILES: dict[str, Profile] = {
    "default": Profile(),
    "documented": replace(
        Profile(),
        rollbar_sent=128 * KiB,
        rollbar_decoded=128 * KiB,
        sentry_store_sent=200 * KiB,
        sentry_store_decoded=1 * MiB,
        sentry_minidump_sent=20 * MiB,
        sentry_minidump_decoded=100 * MiB,
    ),
    "rollbar-32k": replace(Profile(), rollbar_sent=32 * KiB, rollbar_decoded=32 * KiB),
    "rollbar-128k": replace(Profile(), rollbar_sent=128 * KiB, rollbar_decoded=128 * KiB),
    "rollbar-512k": replace(Profile(), rollbar_sent=512 * KiB, rollbar_decoded=512 * KiB),
}


class Request:
    """A request as a server has it: the target is the path with its query, ``peer`` the address it came from."""

    __slots__ = ("_headers", "body", "method", "path", "peer", "query")

    def __init__(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | memoryview = b"",
        peer: str | None = None,
    ) -> None:
        """Raises LimitExceeded where the query has more fields than any client's."""
        self.method = method.upper()
        path, _, query = target.partition("?")
        self.path = path
        self.query = multipart.fields_of(query.encode("utf-8", "replace"), 1000) if query else {}
        self._headers = {name.lower(): value for name, value in (headers or {}).items()}
        self.body = body
        self.peer = peer

    def header(self, name: str) -> str:
        """Return a header's value, "" where it is absent."""
        return self._headers.get(name.lower(), "")

    @property
    def parts(self) -> list[str]:
        """The path's segments, unquoted, without empty ones."""
        return [unquote(part) for part in self.path.split("/") if part]

    @property
    def bearer(self) -> str | None:
        """The token of an ``Authorization: Bearer`` header."""
        scheme, _, token = self.header("authorization").strip().partition(" ")
        return token.strip() or None if scheme.lower() == "bearer" else None


@dataclass(slots=True)
class Answer:
    """What to send back."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class File:
    """A file of a job."""

    name: str
    data: bytes | memoryview
    role: Role = "crash"


@dataclass(slots=True)
class Job:
    """Work that a request brought; ``answer`` is to be sent once the job is safely stored.

    ``kind`` is the format of the file whose role is crash; ``attributes`` are what the request said beside it.
    """

    product: Product
    files: list[File]
    answer: Answer
    kind: str | None = None
    project: str | None = None
    event_id: str | None = None
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Operation:
    """A permitted request for stored records, which is for the caller to carry out: ``resource`` and ``action``."""

    product: Product
    resource: str
    action: str
    project: str | None = None
    id: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token allows: its scopes, in its product's own words, and the seconds until it may be used again."""

    scopes: frozenset[str]
    project: str | None = None
    retry_after: float | None = None


class Access(Protocol):
    """Who may do what: the caller's to know."""

    def grant(self, product: Product, token: str, project: str | None) -> Grant | None:
        """Return what a token allows, None for one that is not known or belongs to another project."""

    def subdomain(self, name: str) -> bool:
        """Tell whether Backtrace's subdomain is known."""


@dataclass(slots=True)
class Tokens:
    """Access by a table: product and token to what it allows. Without subdomains, any is known."""

    grants: Mapping[tuple[Product, str], Grant]
    subdomains: frozenset[str] | None = None

    def grant(self, product: Product, token: str, project: str | None) -> Grant | None:
        """See Access."""
        found = self.grants.get((product, token))
        if found is None or (project is not None and found.project is not None and found.project != project):
            return None
        return found

    def subdomain(self, name: str) -> bool:
        """See Access."""
        return self.subdomains is None or name in self.subdomains


def body_of(request: Request, sent: int, decoded: int) -> bytes:
    """Return a request's body without its encodings.

    Raises LimitExceeded where it has more than ``sent`` bytes, or more than ``decoded`` without its encodings;
    Malformed, Unsupported or MissingDependency where those can't be undone.
    """
    if len(request.body) > sent:
        raise LimitExceeded("bytes as sent", sent, len(request.body), "body")
    return encoding.decode(request.body, request.header("content-encoding"), decoded)


def later(answer: Answer, grant: Grant) -> Answer:
    """Return the answer to a request that comes too soon, with the time to wait."""
    answer.headers["Retry-After"] = str(max(1, round(grant.retry_after or 0)))
    return answer


def json_answer(status: int, told: Any, **headers: str) -> Answer:
    """Return an answer in JSON; a header's name has underscores for its dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, json.dumps(told).encode(), {"Content-Type": "application/json", **named})


def digest(data: bytes | memoryview) -> str:
    """Return the SHA-256 of a body, from which ids are derived, so that the same body has the same one."""
    return hashlib.sha256(data).hexdigest()
