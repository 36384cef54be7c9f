"""Patterns in bounded time: the same answers as Python's own, where both know the syntax, and no endless searches."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadreckon.grouping.patterns import MAX_PATTERN, PatternError, StepsExhausted, compile_pattern

ATOMS = (
    *(
        "a",
        "b",
        "A",
        "1",
        "_",
        " ",
        ".",
        r"\d",
        r"\w",
        r"\s",
        r"\W",
        r"\D",
        r"\S",
        "[ab]",
        "[^a]",
        "[a-b1]",
        r"\.",
        "(a|b)",
    ),
    *("(?:ab)", "(?i:a)", "-", r"[\d-]", r"\n", "^", r"\b", "$", r"\x41", "[]a]", "[a-]", "é"),
)
patterns = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda p: f"(?:{p[0]}|{p[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{0,2}", "{1,}", "*?", "+?"])).map(
            lambda p: f"(?:{p[0]}){p[1]}"
        ),
    ),
    max_leaves=8,
)
texts = st.text(alphabet="abAB1_ \n.-é", max_size=10)


@settings(max_examples=150, deadline=None)
@given(patterns, st.lists(texts, max_size=6), st.booleans())
def test_it_finds_what_pythons_own_finds(pattern: str, several: list[str], fold: bool) -> None:
    # RE2's $ is the end of the text, which Python spells \Z.
    reference = re.compile(pattern.replace("$", r"\Z"), re.ASCII | (re.IGNORECASE if fold else re.NOFLAG))
    if fold and "é" in pattern:
        return
    made = compile_pattern(pattern, fold=fold)
    for text in several:
        assert made.search(text) is bool(reference.search(text)), (pattern, text)


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        (".*null.*", "Cannot read null", True),
        ("^$", "", True),
        ("a$", "a\n", False),
        ("(?m)^b$", "a\nb\nc", True),
        ("(?s)a.b", "a\nb", True),
        ("a.b", "a\nb", False),
        ("(?i)TypeError", "typeerror", True),
        ("(?i)straße", "STRASSE", False),
        ("a(?i)b(?-i)c", "aBc", True),
        ("a(?i)b(?-i)c", "aBC", False),
        ("((?i)a)b", "Ab", True),
        ("((?i)a)b", "AB", False),
        (r"\Qa.b\E+", "a.bb", True),
        (r"\Qa.b", "axb", False),
        (r"[[:alpha:]]{3}\z", "1abc", True),
        ("[[:^digit:]]", "123", False),
        (r"[^\w]", "a", False),
        ("(?i)[^a]", "A", False),
        ("a{,2}", "a{,2}", True),
        ("a{x}", "a{x}", True),
        (r"\x{1F600}", "\U0001f600", True),
        ("[a-z", "a", None),
        (r"\d{2,3}", "1", False),
        (r"\B", "", True),
        ("(?U)a+", "aa", True),
        ("(?P<name>a)(?<other>b)", "ab", True),
    ],
)
def test_syntax(pattern: str, text: str, found: bool | None) -> None:
    if found is None:
        with pytest.raises(PatternError):
            compile_pattern(pattern)
    else:
        assert compile_pattern(pattern).search(text) is found


@pytest.mark.parametrize(
    "pattern",
    [
        *("(", ")", "a)", "[", "[]", "[z-a]", r"\p{L}", "(?=a)", "(?!a)", "(?<=a)", "(?<!a)", r"\1", "(?P<1>a)"),
        *("*a", "+", "a**", "a++", "a{2}{3}", "a{2000}", "a{3,2}", "x{500}{500}", "(?:(?:a{1000}){1000})", "\\"),
        *("(?P=a)", r"\x{110000}"),
        *(r"\xZZ", "(?", "(?i", "[[:nothing:]]", "(" * 200 + ")" * 200, "a" * (MAX_PATTERN + 1), r"[\d-a]\8", r"\C"),
    ],
)  # fmt: skip
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(PatternError):
        compile_pattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("(a+)+$", "a" * 50_000 + "b"),
        ("(a|a)*b", "a" * 100_000),
        ("(.*)*x", "y" * 100_000),
        ("(?:a?){50}a{50}b", "a" * 10_000),
        (".*" * 50 + "z", "q" * 10_000),
        ("(x+x+)+y", "x" * 20_000),
        ("[a-z]*[a-z]*[a-z]*[0-9]", "abc" * 10_000),
    ],
)
def test_what_hangs_others_ends(pattern: str, text: str) -> None:
    assert compile_pattern(pattern).search(text) is False


def test_steps_are_counted() -> None:
    pattern = compile_pattern("(?:" + "|".join("a" * n + "b" for n in range(60)) + ")")
    with pytest.raises(StepsExhausted):
        pattern.search("a" * 1000, 200)
    # Distinct characters are looked up anew, each of them in all states.
    wide = compile_pattern("(?:[^0-9]{0,90}){0,20}!")
    text = "".join(chr(0x4E00 + n) for n in range(5000))
    with pytest.raises(StepsExhausted):
        wide.search(text, 100_000)
    found, left = compile_pattern("b").run("aab", 100)
    assert (found, 0 < left < 100) == (True, True)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=r"ab()[]{}*+?|^$\.-:<>P=!i01,xQE", max_size=20), texts)
def test_any_text_is_a_pattern_or_is_not(pattern: str, text: str) -> None:
    try:
        compile_pattern(pattern).search(text)
    except PatternError:
        pass
