"""Event: what we say about a crash. The shapes are the contract ``deadreckon.event/1``; see docs/event.md.

The types are msgspec Structs that leave out what is unset: an event of 1,200 frames encodes to half the bytes of one
that spells out every null, and no second description of the fields is needed for the JSON Schema. Addresses are
lower-case hex strings. Frames are innermost first.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

__all__ = [
    "SCHEMA",
    "Attachment",
    "Component",
    "Diagnostic",
    "Event",
    "ExceptionInfo",
    "Fingerprint",
    "Frame",
    "ModuleInfo",
    "OsInfo",
    "ProcessInfo",
    "Source",
    "Thread",
    "decode_event",
    "encode_event",
    "json_schema",
]

SCHEMA = "deadreckon.event/1"


class Diagnostic(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Something that was lost, or found odd, on the way. ``code`` is one of errors.DIAGNOSTIC_CODES."""

    code: str
    severity: Literal["info", "warning", "error"]
    stage: str | None = None
    message: str | None = None
    where: dict[str, str | int] | None = None


class Source(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The input an event was made from; ``container`` lists the archives it was in, outermost first."""

    format: str
    name: str | None = None
    size: int | None = None
    sha256: str | None = None
    container: list[str] | None = None


class OsInfo(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The operating system that ran the program."""

    name: str | None = None
    version: str | None = None
    build: str | None = None


class ProcessInfo(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The process that died."""

    name: str | None = None
    pid: int | None = None
    uptime_s: float | None = None


# Frames and components come by the thousand, and hold nothing that refers back to them: no cycles to be looked for.
class Frame(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    """One frame. ``status`` says what is known of it, ``trust`` how it was found."""

    status: str
    instruction_addr: str | None = None
    image_addr: str | None = None
    rva: str | None = None
    symbol_addr: str | None = None
    package: str | None = None
    debug_id: str | None = None
    module: str | None = None
    """The class or module of a managed language."""
    function: str | None = None
    raw_function: str | None = None
    filename: str | None = None
    abs_path: str | None = None
    lineno: int | None = None
    colno: int | None = None
    lang: str | None = None
    pre_context: list[str] | None = None
    context_line: str | None = None
    post_context: list[str] | None = None
    source_link: str | None = None
    inline: bool = False
    in_app: bool | None = None
    trust: str | None = None
    locals: dict[str, Any] | None = None
    args: list[Any] | None = None
    kwargs: dict[str, Any] | None = None
    registers: dict[str, str] | None = None
    origin: dict[str, Any] | None = None
    details: dict[str, Any] | None = None
    """What else the report tells of the frame: an asynchronous call, evaluated code, an offset in WebAssembly ..."""


class Thread(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One thread and its stack."""

    id: int | None = None
    name: str | None = None
    crashed: bool = False
    registers: dict[str, str] | None = None
    frames: list[Frame] | None = None
    explanation: list[str] | None = None
    """How each frame was found, a line a frame, where that was asked for."""


class ExceptionInfo(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Why the program stopped; in a chain the root cause is last.

    ``access`` is read, write or execute: what was done at ``address``. ``instruction`` is the one that did it, in an
    assembler's words. ``notes`` are what that suggests, each with how sure it is; docs/event.md lists their kinds.
    ``module`` is where a managed language has ``type``; ``details`` what a client says of how it was caught.
    """

    type: str | None = None
    module: str | None = None
    value: str | None = None
    code: str | None = None
    address: str | None = None
    access: str | None = None
    instruction: str | None = None
    notes: list[str] | None = None
    mechanism: str | None = None
    details: dict[str, Any] | None = None
    thread_id: int | None = None
    frames: list[Frame] | None = None


class ModuleInfo(msgspec.Struct, omit_defaults=True, kw_only=True):
    """An image of the process; ``symbols`` is found, missing, mismatch, malformed or unused."""

    code_file: str | None = None
    code_id: str | None = None
    debug_file: str | None = None
    debug_id: str | None = None
    image_addr: str | None = None
    image_size: int | None = None
    arch: str | None = None
    symbols: str | None = None


class Component(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    """One part of a fingerprint: its text, whether it counted, and why (or why not)."""

    text: str
    contributes: bool
    why: str


class Fingerprint(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The group a crash falls in. ``id`` is 32 hex digits, ``algorithm`` the family and its version."""

    id: str
    algorithm: str
    components: list[Component] | None = None
    similarity: str | None = None


class Attachment(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A file that came with the crash."""

    name: str
    size: int | None = None
    content_type: str | None = None


class Event(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One crash, normalized. Readers of the JSON must tolerate unknown enumeration values and absent fields."""

    schema: str
    event_id: str
    status: str
    source: Source
    timestamp: str | None = None
    platform: str | None = None
    level: str | None = None
    release: str | None = None
    environment: str | None = None
    message: str | None = None
    title: str | None = None
    culprit: str | None = None
    os: OsInfo | None = None
    arch: str | None = None
    process: ProcessInfo | None = None
    exceptions: list[ExceptionInfo] | None = None
    threads: list[Thread] | None = None
    modules: list[ModuleInfo] | None = None
    fingerprint: Fingerprint | None = None
    grouping: list[str] | None = None
    """The client's own fingerprint, verbatim."""
    fingerprints: dict[str, list[str]] | None = None
    explained: dict[str, dict[str, list[Component]]] | None = None
    """What the fingerprints of each family were made of, by variant, where that was asked for."""
    attributes: dict[str, Any] | None = None
    tags: dict[str, str] | None = None
    user: dict[str, Any] | None = None
    request: dict[str, Any] | None = None
    attachments: list[Attachment] | None = None
    diagnostics: list[Diagnostic] | None = None


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)


def encode_event(event: Event) -> bytes:
    """Return the event as one line of JSON, without the line end."""
    return _encoder.encode(event)


def decode_event(data: bytes | str) -> Event:
    """Read an event back. Raises msgspec.ValidationError where the JSON contradicts the contract."""
    return _decoder.decode(data)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of an event."""
    schema = msgspec.json.schema(Event)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": SCHEMA, **schema}
