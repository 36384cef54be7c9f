"""Forms as clients post them: multipart/form-data (RFC 7578, RFC 2046 5.1) and application/x-www-form-urlencoded."""

from __future__ import annotations

import mmap
import re
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, unquote_to_bytes

from deadreckon.errors import LimitExceeded, Malformed

__all__ = [
    "MAX_FORM_BYTES",
    "MAX_PARTS",
    "Form",
    "Part",
    "boundary_in",
    "boundary_of",
    "fields_of",
    "parse",
    "searchable",
]

MAX_PARTS = 2000
MAX_FORM_BYTES = 64 << 20
"""Of an urlencoded form, whose parsing takes seven times its size."""
MAX_HEADER_BYTES = 16_384
_MAX_BOUNDARY = 200
"""Bytes; RFC 2046 allows 70."""

_BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,200})"|([^\s;,"]{1,200}))', re.IGNORECASE)
_FIRST = re.compile(rb"(?:\r?\n)*--([!-~ ]{0,199}[!-~])[ \t]*\r?\n")
_BLANK = re.compile(rb"\r?\n[ \t]*\r?\n|\A[ \t]*\r?\n")
_PARAMETER = re.compile(r';[ \t]*([\w*-]{1,32})[ \t]*=[ \t]*(?:"((?:[^"\\]++|\\.)*+)"?|([^;\r\n]*))', re.DOTALL)
_FOLD = re.compile(rb"\r?\n[ \t]+")


class Part(NamedTuple):
    """One part of a form: ``data`` is its content as it came; ``filename`` is for show only."""

    name: str
    data: memoryview
    filename: str | None = None
    content_type: str | None = None

    @property
    def text(self) -> str:
        """The content as text."""
        return bytes(self.data).decode("utf-8", "replace")


@dataclass(slots=True)
class Form:
    """A form's parts in their order. ``problem`` says where it stops making sense; what came before counts."""

    parts: list[Part] = field(default_factory=list)
    problem: Malformed | None = None

    def first(self, *names: str) -> Part | None:
        """Return the first part that has one of these names."""
        return next((part for part in self.parts if part.name in names), None)


def boundary_of(content_type: str | None) -> bytes | None:
    """Return the boundary that a ``Content-Type`` header names, None where it names none or is of another type."""
    if not content_type or not content_type.lstrip().lower().startswith("multipart/"):
        return None
    match = _BOUNDARY.search(content_type[:4096])
    return (match[1] or match[2]).rstrip().encode("latin-1", "replace") if match else None


def boundary_in(head: bytes) -> bytes | None:
    """Return the boundary that a body itself begins with, None where it begins with none."""
    match = _FIRST.match(head)
    return match[1] if match and b"content-disposition" in head[match.end() : match.end() + 4096].lower() else None


def parse(data: bytes | memoryview, boundary: bytes | None = None) -> Form:
    """Read a form; ``boundary`` is the header's, by default the one that the body begins with.

    The parts are views of the body. Raises Malformed where there is no part at all, LimitExceeded beyond MAX_PARTS or
    MAX_HEADER_BYTES.
    """
    body = searchable(data)
    boundary = boundary or boundary_in(body[: _MAX_BOUNDARY + 8192])
    if not boundary:
        raise Malformed("form", offset=0, expected="a boundary", got=repr(body[:16]))
    delimiter = b"--" + boundary
    form = Form()
    view = memoryview(body)
    start, end, last = _delimiter(body, delimiter, 0)
    count = 0
    while start >= 0 and not last:
        count += 1
        content = end
        start, end, last = _delimiter(body, delimiter, content)
        stop = start
        if start < 0:
            stop = len(body)
            form.problem = Malformed("form", offset=len(body), expected="its closing boundary", got="its end")
        if count > MAX_PARTS:
            raise LimitExceeded("multipart.max_parts", MAX_PARTS, what="form")
        blank = _BLANK.search(body, content, min(stop, content + MAX_HEADER_BYTES))
        if blank is None:
            if stop - content > MAX_HEADER_BYTES:
                raise LimitExceeded("multipart.max_header_bytes", MAX_HEADER_BYTES, what="form")
            form.problem = Malformed("form", offset=content, expected="a part's headers", got="none")
            continue
        part = _part(body[content : blank.start()], view[blank.end() : max(stop, blank.end())])
        if part is None:
            form.problem = Malformed("form", offset=content, expected="a part's name", got="none")
        else:
            form.parts.append(part)
    if not form.parts:
        raise form.problem or Malformed("form", offset=0, expected="a part", got="none")
    return form


def searchable(data: bytes | memoryview) -> bytes | mmap.mmap:
    """Return what a view is of, where that can be searched as it is; else a copy. A mapped file may be large."""
    inner = data.obj if isinstance(data, memoryview) else data
    return inner if isinstance(inner, bytes | mmap.mmap) and len(inner) == len(data) else bytes(data)


def fields_of(data: bytes | memoryview, max_fields: int = MAX_PARTS) -> dict[str, str]:
    """Return an urlencoded form's or query's fields, the first of each name.

    Raises LimitExceeded beyond MAX_FORM_BYTES or that many fields.
    """
    if len(data) > MAX_FORM_BYTES:
        raise LimitExceeded("form.max_bytes", MAX_FORM_BYTES, len(data), "form")
    told = bytes(data).decode("utf-8", "replace")
    try:
        pairs = parse_qsl(told, keep_blank_values=True, max_num_fields=max_fields, errors="replace")
    except ValueError as e:
        raise LimitExceeded("form.max_fields", max_fields, what="form") from e
    return dict(reversed(pairs))


def _delimiter(body: bytes | mmap.mmap, delimiter: bytes, at: int) -> tuple[int, int, bool]:
    """Return where the content before the next delimiter ends and what follows it begins, and whether it is the last.

    (-1, -1, False) where there is no more.
    """
    while (found := body.find(delimiter, at)) >= 0:
        after = found + len(delimiter)
        last = body[after : after + 2] == b"--"
        line = body.find(b"\n", after, after + 80)
        padding = body[after + 2 * last : line if line >= 0 else after + 80]
        if (found == 0 or body[found - 1] == 0x0A) and (last or line >= 0) and (last or not padding.strip()):
            before = found - 1 - (body[found - 2 : found - 1] == b"\r") if found else 0
            return max(before, 0), line + 1 if line >= 0 else len(body), last
        at = found + 1
    return -1, -1, False


def _part(header: bytes, data: memoryview) -> Part | None:
    told = _FOLD.sub(b" ", header).decode("utf-8", "replace")
    parameters: dict[str, str] = {}
    content_type = None
    for line in told.splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-disposition":
            for match in _PARAMETER.finditer(value):
                parameters.setdefault(
                    match[1].lower(), _unquoted(match[2]) if match[2] is not None else match[3].strip()
                )
        elif name.strip().lower() == "content-type":
            content_type = value.strip()[:256] or None
    if "name" not in parameters:
        return None
    filename = parameters.get("filename")
    if "filename*" in parameters:
        charset, _, rest = parameters["filename*"].partition("'")
        encoded = unquote_to_bytes(rest.partition("'")[2])
        filename = encoded.decode("utf-8" if charset.lower() != "iso-8859-1" else "latin-1", "replace")
    return Part(parameters["name"][:1024], data, filename[:1024] if filename else filename, content_type)


def _unquoted(value: str) -> str:
    # Browsers write a quote as %22 and line ends as %0D%0A; a backslash is a path's of Internet Explorer.
    return unquote(value.replace('\\"', '"')) if "%22" in value or "%0" in value else value.replace('\\"', '"')
