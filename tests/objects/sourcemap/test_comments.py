"""What generated code says of its map, compared with the `sourcemap` package's finder where both answer."""

from __future__ import annotations

import random

import pytest
import sourcemap as peer

from deadreckon.objects.sourcemap import comments

URL = "//# sourceMappingURL=a.js.map"


@pytest.mark.parametrize(
    ("code", "url", "unambiguous"),
    [
        ("", None, False),
        ("x()", None, False),
        (f"x()\n{URL}", "a.js.map", True),
        (f"x()\n{URL}\n\n  \n// more\n", "a.js.map", True),
        (f"x()\r\n{URL}\r\n", "a.js.map", True),
        (f"x()\r{URL}\r", "a.js.map", True),
        (f"x()\u2028{URL}\u2029", "a.js.map", True),
        (f"x()\n  {URL}  \n", "a.js.map", True),
        ("x()\n//@ sourceMappingURL=a.js.map", "a.js.map", True),
        ("x()\n//#sourceMappingURL=a.js.map", "a.js.map", True),
        ("x()\n//# sourceMappingURL=a.js.map?q=1#f", "a.js.map?q=1#f", True),
        ("//# sourceMappingURL=", "", True),
        (f"{URL}\n//# sourceMappingURL=b.js.map", "b.js.map", True),
        # What the walk from the end does not find, but the last occurrence is.
        (f"x() {URL}", "a.js.map", False),
        (f"{URL}\nx()", "a.js.map", False),
        (f"{URL}\n// it's\n", "a.js.map", False),
        (f"{URL}\n//# sourceMappingURL=b.js.map\nx()", "b.js.map", False),
        ("a{}\n/*# sourceMappingURL=a.css.map */", "a.css.map", False),
        ("a{}\n/*@ sourceMappingURL=a.css.map*/", "a.css.map", False),
        # What is none.
        ("x='sourceMappingURL=a'", None, False),
        ("//# sourceMappingURL=a b", "a", False),
        ("// sourceMappingURL=a", None, False),
        ("//# sourceMappingUrl=a", None, False),
        ("x='//# sourceMappingURL='", None, False),
    ],
)
def test_map_urls(code: str, url: str | None, unambiguous: bool) -> None:
    found = comments.read(code.encode())
    assert (found.map_url, found.unambiguous) == (url, unambiguous)


def test_a_comment_in_a_template_is_the_last_resort() -> None:
    """ECMA-426's example of code that links ambiguously: to a parser it has no map."""
    found = comments.read(b"let a = `\n//# sourceMappingURL=foo.js.map\n//`")
    assert found.map_url == "foo.js.map"
    assert not found.unambiguous


def test_long_data_urls() -> None:
    url = "data:application/json;base64," + "QUFB" * 500_000
    found = comments.read(f"x()\n//# sourceMappingURL={url}\n".encode())
    assert found.map_url == url


def test_ids() -> None:
    code = b"x()\n//# debugId=old\n//# sourceURL=app.js\n//# debugId=new\n//# chunkId=0190\n" + URL.encode() + b"\n"
    found = comments.read(code)
    assert found == comments.Comments("a.js.map", True, "new", "0190", "app.js")
    far = b"//# debugId=far\n" + b"\n" * 40 + b"x()"
    assert comments.read(far).debug_id is None
    assert comments.read(b"//# debugId=near" + b"\n" * 20 + b"x()").debug_id == "near"


def test_equal_to_the_peer() -> None:
    rng = random.Random(3)
    lines = [URL, "//@ sourceMappingURL=b.map", "x()", "", "// c", "  ", "/* d */"]
    answered = 0
    for _ in range(500):
        code = "\n".join(rng.choice(lines) for _ in range(rng.randrange(8)))
        if code.count("sourceMappingURL") > 1:
            continue  # The peer takes any of them.
        expected = peer.discover(code)
        assert comments.read(code.encode()).map_url == expected
        answered += expected is not None
    assert answered > 50


def test_hostile_ends_take_no_time() -> None:
    assert comments.read(b"// x\n" * 300_000).map_url is None
    assert comments.read(b"sourceMappingURL=" * 60_000).map_url is None
    assert comments.read(b"//# sourceMappingURL= x\n" * 60_000).map_url is None
    assert comments.read(b"\r\n" * 300_000).map_url is None
    assert comments.read(b"\r" * 20_000_000).map_url is None
    assert comments.read(b"// x\r" * 4_000_000).map_url is None
    assert comments.read(b"\xe2\x80\xa8" * 2_000_000).map_url is None
    assert comments.read(b"//\xe2\x80\xa8" * 2_000_000).map_url is None


@pytest.mark.parametrize(
    ("sections", "url"),
    [
        (b"\0\x15\x10sourceMappingURL\3a.b", "a.b"),
        (b"\1\2ab\0\x15\x10sourceMappingURL\3a.b", "a.b"),
        (b"\0\3\2ab\0\x15\x10sourceMappingURL\3a.b", "a.b"),
        (b"", None),
        (b"\0\3\2ab", None),
        (b"\0\x15\x10sourceMappingURL\4a.b", None),
        (b"\0\x15\x10sourceMappingURL", None),
        (b"\0\xff\xff\xff\xff\xff\xff", None),
        (b"\0\x80", None),
        (b"\0\0", None),
    ],
)
def test_wasm(sections: bytes, url: str | None) -> None:
    assert comments.wasm_url(b"\0asm\1\0\0\0" + sections) == url
    assert comments.wasm_url(b"\0as") is None
