"""Glob patterns match what globset matches."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadreckon.grouping.rules.globs import glob, literal, path_glob
from oracle import stack_rules as oracle


@pytest.mark.parametrize(
    ("pattern", "text", "wanted"),
    [
        ("*.py", "a/b.py", True),
        ("foo?", "foob", True),
        ("foo?", "foo", False),
        ("[a-c]x", "bx", True),
        ("[!a-c]x", "bx", False),
        ("[^a-c]x", "dx", True),
        ("[]a]", "]", True),
        ("[[]Sentry*", "[SentryHub x]", True),
        ("?[[]KSCrash*", "-[KSCrash a]", True),
        ("{a,b*}c", "bxc", True),
        ("{a,{b,c}}d", "cd", True),
        ("a{b}", "a{b}", False),
        (r"*::\{dtor\}", "A::{dtor}", True),
        (r"-\[NSISEngine*", "-[NSISEngine x]", True),
        ("1.18.[0-4].*", "1.18.4.2153-2aa83397b", True),
        ("foo*", "foo\nbar", True),
        ("*a*b*c", "xaxbxbxc", True),
        ("*a*b*c", "xaxcxb", False),
        ("*{xyz,x}*z*", "xyz", True),
        ("std::rt::{{closure}}", "std::rt::closure", True),
        # What is no pattern matches nothing, not even itself.
        ("[abc", "[abc", False),
        ("a{b", "a{b", False),
        ("a}b", "a}b", False),
        ("a\\", "a\\", False),
        ("[c-a]", "b", False),
        ("", "", True),
        ("plain", "plain", True),
        ("plain", "Plain", False),
    ],
)
def test_texts(pattern: str, text: str, wanted: bool) -> None:
    assert glob(pattern)(text) is wanted


@pytest.mark.parametrize(
    ("pattern", "text", "wanted"),
    [
        ("*.py", "a/b.py", False),
        ("**/*.py", "a/b.py", True),
        ("**/*.py", "b.py", True),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("a/**/**/b", "a/x/b", True),
        ("a/**", "a/b/c", True),
        ("a/**", "a", False),
        ("**", "anything/at/all", True),
        ("**.app/contents/**", "/applications/my.app/contents/x", False),  # Two stars in a name are one.
        ("**.app/contents/**", "my.app/contents/x", True),
        ("/usr/**", "usr/lib", True),
        ("c:/windows/**", "c:\\windows\\system32\\a.dll", True),
        ("?:/windows/**", "d:/windows/a", True),
        ("a?b", "a/b", False),
        ("/apex/com.android.*/lib*/**", "/apex/com.android.art/lib64/libart.so", True),
        ("**/frameworks/libswift*.dylib", "/x/frameworks/libswiftcore.dylib", True),
        ("{a,b}/**/c", "b/x/c", True),
        ("linux-gate.so*", "linux-gate.so.1", True),
    ],
)
def test_paths(pattern: str, text: str, wanted: bool) -> None:
    assert path_glob(pattern)(text) is wanted


def test_case() -> None:
    assert not path_glob("**/*.py")("a.PY")
    assert path_glob("**/*.py", ignore_case=True)("a.PY")
    assert glob("*went WRONG*", ignore_case=True)("it went wrong")


def test_literals() -> None:
    assert literal("std::x") == "std::x"
    assert [literal(p) for p in ("a*", "a?", "[a]", "{a}", "a\\b")] == [None] * 5


@given(st.text("ab*", max_size=9), st.text("ab", max_size=9))
def test_stars_as_by_trying_everything(pattern: str, text: str) -> None:
    assert glob(pattern)(text) is oracle.glob(pattern, text)


@given(st.text("ab/*?[]{},!\\-", max_size=12), st.text("ab/\\[]{", max_size=12))
def test_any_pattern_is_a_test(pattern: str, text: str) -> None:
    assert glob(pattern)(text) in {True, False}
    assert path_glob(pattern, ignore_case=True)(text) in {True, False}


def test_many_stars_over_a_long_text_take_no_time() -> None:
    start = time.process_time()
    assert not glob("*a" * 30 + "b")("a" * 20_000)
    assert not glob("*ab*" * 20 + "c*d")("ab" * 20_000)
    assert time.process_time() - start < 5  # Seconds, not the age of the universe.
