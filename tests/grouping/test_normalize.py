from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadreckon.grouping.normalize import STARTERS, TERMINATORS, in_app, module_name, normalize_function
from deadreckon.model.event import Frame


@pytest.mark.parametrize(
    ("name", "normal"),
    [
        ("main", "main"),
        ("nav::Track<nav::Vector<double>, 8u>::fold<double>(double) const", "nav::Track<>::fold<>"),
        ("double nav::operator*<double>(nav::Vector<double> const&)", "nav::operator*<>"),
        ("bool operator< <int>(A<int> const&, A<int> const&)", "operator< <>"),
        ("A::operator<(A const&) const", "A::operator<"),
        ("A::operator->() const", "A::operator->"),
        ("std::ostream& operator<< <char>(std::ostream&, char)", "operator<< <>"),
        ("(anonymous namespace)::f(int)", "anonymous::f"),
        ("`anonymous namespace'::f", "anonymous::f"),
        ("f(int)::{lambda(double)#1}::operator()(double) const", "f::lambda::operator()"),
        ("compute(int) [clone .part.0]", "compute"),
        ("compute.cold.3", "compute"),
        ("f[abi:cxx11](int)", "f"),
        ("core::panicking::panic_fmt::h0123456789abcdef", "core::panicking::panic_fmt"),
        ("alloc[8f2a61c33b5e7d10]::vec::Vec<u8>::push", "alloc::vec::Vec<>::push"),
        ("<alloc::vec::Vec<u8> as Drop>::drop", "<alloc::vec::Vec<u8> as Drop>::drop"),
        ("-[NSArray(Extra) objectAt:or:]", "-[NSArray(Extra) objectAt:or:]"),
        ("void (*signal(int, void (*)(int)))(int)", "signal"),
        ("", ""),
    ],
)  # fmt: skip
def test_what_is_kept_of_a_name(name: str, normal: str) -> None:
    assert normalize_function(name) == normal


@given(st.text(max_size=200))
def test_any_text_has_a_normal_form(name: str) -> None:
    assert isinstance(normalize_function(name), str)
    assert normalize_function(name) or not name.strip()


@given(st.text(alphabet="<>()[]{}:* abc#&-~$.'\"`", max_size=120))
def test_brackets_of_any_kind_end(name: str) -> None:
    normalize_function(name)


@pytest.mark.parametrize(
    ("package", "ours"),
    [
        ("/opt/app/bin/server", True),
        ("C:\\Program Files\\App\\app.exe", True),
        ("/Applications/App.app/Contents/MacOS/App", True),
        ("/data/app/org.example-1/lib/arm64/libapp.so", True),
        ("/home/libc/bin/program", True),
        ("/usr/lib/x86_64-linux-gnu/libc.so.6", False),
        ("/opt/app/lib/libstdc++.so.6.0.30", False),
        ("/snap/core/libc-2.23.so", False),
        ("ld-linux-x86-64.so.2", False),
        ("C:\\Windows\\System32\\ntdll.dll", False),
        ("kernel32.dll", False),
        ("/usr/lib/system/libsystem_kernel.dylib", False),
        ("/System/Library/Frameworks/UIKit.framework/UIKit", False),
        ("/apex/com.android.runtime/lib64/bionic/libc.so", False),
        ("linux-gate.so", False),
    ],
)
def test_whose_code_by_module(package: str, ours: bool) -> None:
    assert in_app(Frame(status="symbolicated", package=package, function="f")) is ours


def test_whose_code_by_function_in_a_static_program() -> None:
    for name in ("_start", "abort", "__libc_start_main"):
        assert in_app(Frame(status="symbolicated", package="/opt/static", function=name)) is False
    assert in_app(Frame(status="unknown_image")) is None
    assert not STARTERS & TERMINATORS


def test_module_name() -> None:
    assert [module_name(p) for p in ("/a/b.so", "C:\\a\\b.dll", "b", "")] == ["b.so", "b.dll", "b", ""]
