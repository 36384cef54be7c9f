"""Forms: what browsers, curl and crash uploaders write, and what breaks them."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadreckon.errors import LimitExceeded, Malformed
from deadreckon.wire import multipart
from synth.payloads import form

if TYPE_CHECKING:
    from pathlib import Path


def test_fields_and_files() -> None:
    data = b"\x00\r\n--\r\nbinary\n"
    found = multipart.parse(form(("a", b"1"), ("f", data, "x.dmp"), ("empty", b"")))
    assert [(p.name, bytes(p.data), p.filename) for p in found.parts] == [
        ("a", b"1", None),
        ("f", data, "x.dmp"),
        ("empty", b"", None),
    ]
    assert found.problem is None
    assert found.first("x", "f") == found.parts[1]
    assert found.first("nothing") is None
    assert found.parts[0].text == "1"


@pytest.mark.parametrize(
    ("header", "boundary"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ('multipart/form-data; charset=utf-8; boundary="a b=c"', b"a b=c"),
        ("Multipart/Form-Data;BOUNDARY=abc;x=y", b"abc"),
        ("application/json", None),
        ("multipart/form-data", None),
        (None, None),
    ],
)
def test_boundary_of_a_header(header: str | None, boundary: bytes | None) -> None:
    assert multipart.boundary_of(header) == boundary


@pytest.mark.parametrize(
    ("disposition", "name", "filename"),
    [
        ('form-data; name="a"; filename="b.txt"', "a", "b.txt"),
        ("form-data; name=a; filename=b.txt", "a", "b.txt"),
        ('form-data; filename="C:\\dir\\b.txt"; name="a"', "a", "C:\\dir\\b.txt"),
        ('form-data; name="a \\"quoted\\" one"', 'a "quoted" one', None),
        ('form-data; name="a%22b"', 'a"b', None),
        ('form-data; name="a"; filename="x"; filename*=UTF-8\'\'na%C3%AFve.txt', "a", "naïve.txt"),
        ("form-data; name=\"a\"; filename*=iso-8859-1'en'%A3", "a", "£"),
        ('form-data;\r\n name="folded"', "folded", None),
        ('form-data; name="ü"', "ü", None),
        ('form-data; name="open', "open", None),
    ],
)
def test_names(disposition: str, name: str, filename: str | None) -> None:
    body = f"--b\r\ncontent-DISPOSITION: {disposition}\r\nContent-Type: text/plain\r\n\r\nx\r\n--b--".encode()
    (part,) = multipart.parse(body, b"b").parts
    assert (part.name, part.filename, part.content_type, part.text) == (name, filename, "text/plain", "x")


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_line_ends_preamble_and_what_follows(end: str) -> None:
    body = f'preamble{end}--b{end}Content-Disposition: form-data; name="a"{end}{end}1{end}--b-- {end}epilogue'
    assert [p.text for p in multipart.parse(body.encode(), b"b").parts] == ["1"]


def test_content_like_a_delimiter() -> None:
    inside = b"x--b\r\n--bc\r\n --b\r\n--b!\r\n"
    body = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + inside + b"\r\n--b--\r\n"
    assert bytes(multipart.parse(body, b"b").parts[0].data) == inside


def test_what_is_cut_short_is_kept() -> None:
    whole = form(("a", b"1"), ("f", b"content", "x"))
    found = multipart.parse(whole[: whole.index(b"content") + 3])
    assert [bytes(p.data) for p in found.parts] == [b"1", b"con"]
    assert found.problem is not None
    assert "closing boundary" in str(found.problem)
    nameless = form(("a", b"1")).replace(b"name=", b"nome=") + b""
    with pytest.raises(Malformed, match="a part's name"):
        multipart.parse(nameless)


@pytest.mark.parametrize("body", [b"", b"--", b"{}", b"--b\r\n", b"no delimiter\r\n", b"--b--\r\n"])
def test_no_form(body: bytes) -> None:
    with pytest.raises(Malformed):
        multipart.parse(body)
    with pytest.raises(Malformed):
        multipart.parse(body, b"b")


def test_limits() -> None:
    many = form(*[("a", b"1")] * (multipart.MAX_PARTS + 1))
    with pytest.raises(LimitExceeded, match="max_parts"):
        multipart.parse(many)
    header = b"--b\r\nX: " + b"y" * multipart.MAX_HEADER_BYTES + b"\r\n\r\nz\r\n--b--"
    with pytest.raises(LimitExceeded, match="max_header_bytes"):
        multipart.parse(header, b"b")
    # A name that is never closed is looked at once, however many of them there are.
    hostile = b"--b\r\nContent-Disposition: " + b';a="' * 4000 + b"\r\n\r\n1\r\n--b--"
    with pytest.raises(Malformed):
        multipart.parse(hostile, b"b")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.binary(max_size=40)), min_size=1, max_size=5))
def test_what_was_written_is_read(parts: list[tuple[str, bytes]]) -> None:
    found = multipart.parse(form(*parts))
    assert [(p.name, bytes(p.data)) for p in found.parts] == parts


@given(st.binary(max_size=60), st.integers(0, 120), st.integers(0, 120))
def test_mutations_give_an_answer(junk: bytes, start: int, end: int) -> None:
    whole = form(("a", b"1"), ("f", b"content", "x"))
    mutated = whole[: min(start, end)] + junk + whole[max(start, end) :]
    for boundary in (None, b"xX-boundary-Xx"):
        try:
            multipart.parse(mutated, boundary)
        except Malformed:
            pass


def test_urlencoded_fields() -> None:
    assert multipart.fields_of(b"a=1&b=%7B%22x%22%3A1%7D&a=2&c&d=x+y") == {
        "a": "1",
        "b": '{"x":1}',
        "c": "",
        "d": "x y",
    }
    assert multipart.fields_of(b"a=%FF") == {"a": "�"}
    with pytest.raises(LimitExceeded, match="max_fields"):
        multipart.fields_of(b"a=1&" * 3000)


def test_a_mapped_file_is_not_copied(tmp_path: Path) -> None:
    path = tmp_path / "form"
    path.write_bytes(form(("a", b"1"), ("upload_file", b"content", "x")))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert multipart.searchable(memoryview(mapped)) is mapped
        found = multipart.parse(memoryview(mapped))
        part = found.first("upload_file")
        assert part is not None
        assert (bytes(part.data), part.data.obj is mapped) == (b"content", True)
        for held in found.parts:
            held.data.release()
        del found, part, held
    whole = b"abc"
    assert multipart.searchable(whole) is whole
    assert multipart.searchable(memoryview(whole)) is whole
    assert multipart.searchable(memoryview(whole)[1:]) == b"bc"


def test_boundaries_without_parts() -> None:
    with pytest.raises(LimitExceeded, match="max_parts"):
        multipart.parse(b"--b\r\n" * (multipart.MAX_PARTS + 2), b"b")


def test_forms_that_are_too_large() -> None:
    with pytest.raises(LimitExceeded, match="max_bytes"):
        multipart.fields_of(b"a" * (multipart.MAX_FORM_BYTES + 1))
