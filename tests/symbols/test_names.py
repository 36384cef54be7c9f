from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadreckon.symbols.names import brackets, flatten, strip_arguments


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("main", "main"),
        ("f()", "f"),
        ("a::b(int, char) const", "a::b"),
        ("a::b(int) const &", "a::b"),
        ("a::b() const volatile &&", "a::b"),
        ("int f<int>(int)", "f<int>"),
        ("std::vector<int, std::allocator<int> > make<int>()", "make<int>"),
        ("f(void (*)(int), char)", "f"),
        ("f(std::function<void ()>)", "f"),
        ("a<(x)3>::f()", "a<(x)3>::f"),
        ("a<b()::{lambda(auto:1)#1}>::c()", "a<b()::{lambda(auto:1)#1}>::c"),
        ("main::{lambda(int)#1}::operator()(int) const", "main::{lambda(int)#1}::operator()"),
        ("auto f(int) const::{lambda()#1}::operator()<int>() const", "f(int) const::{lambda()#1}::operator()<int>"),
        ("f(int)::g(char)::h", "f(int)::g(char)::h"),
        ("(anonymous namespace)::f(int)", "(anonymous namespace)::f"),
        ("(anonymous namespace)", "(anonymous namespace)"),
        ("a::(anonymous namespace)::B::B(int)", "a::(anonymous namespace)::B::B"),
        ("a::~a()", "a::~a"),
        ("operator delete(void*, unsigned long)", "operator delete"),
        ("operator new[](unsigned long)", "operator new[]"),
        ("std::ostream& operator<< <int>(std::ostream&, int)", "operator<< <int>"),
        ("bool operator< <a>(a const&)", "operator< <a>"),
        ("bool a::operator<(a const&) const", "a::operator<"),
        ("bool operator><int>(int)", "operator><int>"),
        ("a::operator->() const", "a::operator->"),
        ("a::operator->*(int)", "a::operator->*"),
        ("a::operator[](unsigned int) const &", "a::operator[]"),
        ("a::operator()(int) &&", "a::operator()"),
        ("a::operator,(int)", "a::operator,"),
        ("a::operator bool() const", "a::operator bool"),
        ("a::operator unsigned long() const", "a::operator unsigned long"),
        ("a::operator std::vector<b c>*()", "a::operator std::vector<b c>*"),
        ("a::operator int*<int>()", "a::operator int*<int>"),
        ('long double operator"" _km(long double)', 'operator"" _km'),
        ("a::operator int() const::{lambda()#1} f<b>(b)", "f<b>"),
        ("a::operator=(a&&)::{lambda(auto:1&&)#1}&& std::forward<a>(a&)", "std::forward<a>"),
        ("int (*f<int>(char))(double)", "f<int>"),
        ("void (a::*f(long))(int) const", "f"),
        ("void (a<b(c)>::*&&std::forward<d>(e&))()", "std::forward<d>"),
        ("char const (&std::forward<char const (&) [2]>(x&)) [2]", "std::forward<char const (&) [2]>"),
        ("int (*(*f(int))(char))(long)", "f"),
        ("decltype (({parm#1}.size)()) a::size<b>(b const&)", "a::size<b>"),
        ("std::enable_if<(0ul)<c<a>::value, d>::type e<false, true>::f(int)", "e<false, true>::f"),
        ("std::enable_if<((1)>(0)), d>::type e<false>::f(int)", "e<false>::f"),
        ("f(int) [clone .isra.0] [clone .cold]", "f"),
        ("f(int) (.part.0.cold)", "f"),
        ("f(int)@@V1.2", "f"),
        ("vtable for a<b (c)>", "vtable for a<b (c)>"),
        ("typeinfo for unsigned long", "typeinfo for unsigned long"),
        ("typeinfo name for a (*)(b)", "typeinfo name for a (*)(b)"),
        ("guard variable for f(int)::x", "guard variable for f(int)::x"),
        ("virtual thunk to a::f(int)", "virtual thunk to a::f"),
        ("non-virtual thunk to a::~a()", "non-virtual thunk to a::~a"),
        ("invocation function for block in f(int)", "invocation function for block in f"),
        (
            "invocation function for block in invocation function for block in int f<int>(int)",
            "invocation function for block in invocation function for block in f<int>",
        ),
        ("transaction clone for a::a(int)", "transaction clone for a::a"),
        ("<alloc::vec::Vec<T> as core::ops::Drop>::drop", "<alloc::vec::Vec<T> as core::ops::Drop>::drop"),
        ("core::ops::FnOnce<fn() -> i32>::call", "core::ops::FnOnce<fn() -> i32>::call"),
        ("static App.Point.move(by: Swift.Int) -> ()", "static App.Point.move(by: Swift.Int) -> ()"),
        ("-[NSString stringByAppendingString:]", "-[NSString stringByAppendingString:]"),
        ("`anonymous namespace'::A::f(int)", "`anonymous namespace'::A::f"),
        ("`f(int, char)'::`2'::A::g()", "`f(int, char)'::`2'::A::g"),
        ("a::`vftable'{for `b c'}", "a::`vftable'{for `b c'}"),
        ("a::`scalar deleting dtor'(unsigned int)", "a::`scalar deleting dtor'"),
        ("`dynamic initializer for 'a b''()", "`dynamic initializer for 'a b''"),
        ("a::'lambda'(int)::operator()(int) const", "a::'lambda'(int)::operator()"),
        ("<&'a str as b::C<'a>>::f", "<&'a str as b::C<'a>>::f"),
        ("", ""),
    ],
)
def test_strip_arguments(text: str, expected: str) -> None:
    assert strip_arguments(text) == expected
    assert strip_arguments(expected) == expected


def test_brackets() -> None:
    assert brackets("a<b<c>>(d[e]) {f}") == [(1, 7, "<"), (7, 13, "("), (14, 17, "{")]
    assert brackets("operator()(a)") == [(10, 13, "(")]
    assert brackets("f<(a)<(b)>(c)") == [(1, 10, "<"), (10, 13, "(")]
    assert brackets("f(a < b)") == [(1, 8, "(")]
    assert brackets("fn(x) -> y") == [(2, 5, "(")]
    assert brackets(")f(") == []


def test_flatten() -> None:
    assert flatten("a<b>(c d) const") == "a\1\1\1\1\1\1\1\1 const"
    assert flatten("operator<(a)") == "operator<\1\1\1"


_pieces = st.sampled_from(
    ("operator", "::", " const", " &", " [clone ", " (.", "@", "->", "*", " ", "a", *"<>()[]{}`'")
)


@given(st.lists(_pieces, max_size=60).map("".join))
def test_brackets_nest_and_flatten_keeps_the_length(text: str) -> None:
    end = 0
    for bracket in brackets(text):
        assert bracket.start >= end
        assert text[bracket.start] == bracket.kind
        assert {"(": ")", "[": "]", "{": "}", "<": ">", "`": "'"}[bracket.kind] == text[bracket.end - 1]
        end = bracket.end
    flat = flatten(text)
    assert len(flat) == len(text)
    assert all(c in {old, "\1"} for c, old in zip(flat, text, strict=True))


@given(st.lists(_pieces, max_size=60).map("".join))
def test_what_is_left_was_there(text: str) -> None:
    assert len(strip_arguments(text)) <= len(text)
    rest = iter(text)
    assert all(c in rest for c in strip_arguments(text))


@pytest.mark.parametrize(
    "piece",
    [
        *("operator ", "operator<", "operator x()::", " [clone ", " [clone ]", " const", " (*x)", " (.a)", "()::"),
        *("(", "<", "<>", "a<b ", "@", "->", "{<", "a::"),
    ],
)
def test_long_text_costs_little(piece: str) -> None:
    text = piece * (60_000 // len(piece))
    assert len(strip_arguments(text)) <= len(text)
    assert len(strip_arguments("x" + text + "x")) <= len(text) + 2
