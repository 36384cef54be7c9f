"""A client's request to a decoded job, or the answer that its product's API gives; functions only, without sockets.

A server gives ``receive`` what came in; it stores the Job that comes out and sends the job's answer, or sends the
Answer, or carries out the Operation. ``body_limit`` says how much of a body to read at most. One file a product:
``rollbar``, ``sentry``, ``backtrace``, ``posthog``; ``model`` has what they share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deadreckon.errors import LimitExceeded
from deadreckon.ingest import backtrace, posthog, rollbar, sentry
from deadreckon.ingest.model import PROFILES, Access, Answer, File, Grant, Job, Operation, Profile, Request, Tokens

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "PROFILES",
    "Access",
    "Answer",
    "File",
    "Grant",
    "Job",
    "Operation",
    "Profile",
    "Request",
    "Tokens",
    "body_limit",
    "receive",
]

# Backtrace comes last: its paths are of anyone's choice.
_PRODUCTS: tuple[Callable[[Request, Access, Profile], Job | Operation | Answer | None], ...] = (
    rollbar.receive,
    sentry.receive,
    posthog.receive,
    backtrace.receive,
)
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "X-Sentry-Error, X-Sentry-Rate-Limits, Retry-After",
}
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
    "Access-Control-Allow-Headers": (
        "Authorization, Content-Encoding, Content-Type, X-Requested-With, X-Rollbar-Access-Token, X-Sentry-Auth"
    ),
    "Access-Control-Max-Age": "3600",
}


def receive(request: Request, access: Access, profile: Profile | None = None) -> Job | Operation | Answer:
    """Return what a request asks for, as its path's product takes it; 404 for a path that is nobody's."""
    if request.method == "OPTIONS":
        return Answer(200, b"", {**_CORS, **_PREFLIGHT})
    for product in _PRODUCTS:
        found = product(request, access, profile or PROFILES["default"])
        if found is not None:
            answer = found.answer if isinstance(found, Job) else found
            if isinstance(answer, Answer):
                answer.headers |= _CORS  # Browsers send reports to other hosts than their page's.
            return found
    return Answer(404, b'{"error":"not found"}', {"Content-Type": "application/json", **_CORS})


def body_limit(method: str, target: str, profile: Profile | None = None) -> int:
    """Return how many bytes of a body are worth reading: beyond that, ``receive`` answers 413 whatever they are."""
    limits = profile or PROFILES["default"]
    if method.upper() not in {"POST", "PUT", "PATCH"}:
        return 0
    try:
        parts = Request(method, target).parts
    except LimitExceeded:
        return 0
    if parts[:1] == ["api"] and parts[2:3] in (["store"], ["envelope"], ["minidump"]):
        return int(getattr(limits, f"sentry_{parts[2]}_sent"))
    if parts[:2] == ["api", "1"]:
        return limits.rollbar_sent if parts[2:3] == ["item"] else max(limits.backtrace_sent, limits.rollbar_sent)
    if parts[-1:] == ["symbols"] or "symbols" in target:
        return limits.backtrace_symbols
    return max(limits.backtrace_sent, limits.posthog_sent)
