from __future__ import annotations

import re
import shutil
import subprocess
from random import Random

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from deadreckon.config import SymbolLimits
from deadreckon.symbols import demangle as demangler
from deadreckon.symbols.demangle import backend, brackets, demangle, flatten, strip_arguments
from deadreckon.symbols.itanium import expansion
from synth import itanium as synth

LIMITS = SymbolLimits()
STREAM = "std::basic_ostream<char, std::char_traits<char> >"
POINTER = "std::unique_ptr<app::Point, std::default_delete<app::Point> >"
STRING = "std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> >"

CXX = [
    ("_Z1fv", "f()", "f"),
    ("_ZN3app5PointC1Ei", "app::Point::Point(int)", "app::Point::Point"),
    ("_ZN3app5PointC2Ei", "app::Point::Point(int)", "app::Point::Point"),
    ("_ZN3app5PointD0Ev", "app::Point::~Point()", "app::Point::~Point"),
    ("_ZN3app5PointD1Ev", "app::Point::~Point()", "app::Point::~Point"),
    ("_ZN3app12_GLOBAL__N_16Secret3runEv", "app::(anonymous namespace)::Secret::run()",
     "app::(anonymous namespace)::Secret::run"),
    ("_ZN12_GLOBAL__N_11fEv", "(anonymous namespace)::f()", "(anonymous namespace)::f"),
    ("_ZL6hiddeni", "hidden(int)", "hidden"),
    ("_ZN3app2v1li3_kmEe", 'app::v1::operator"" _km(long double)', 'app::v1::operator"" _km'),
    ("_ZNKR3app5PointixEj", "app::Point::operator[](unsigned int) const &", "app::Point::operator[]"),
    ("_ZNO3app5PointclEi", "app::Point::operator()(int) &&", "app::Point::operator()"),
    ("_ZNVK3app5PointngEv", "app::Point::operator-() const volatile", "app::Point::operator-"),
    ("_ZN3app5PointcmEi", "app::Point::operator,(int)", "app::Point::operator,"),
    ("_ZN3app5PointptEv", "app::Point::operator->()", "app::Point::operator->"),
    ("_ZNK3app5PointcvbEv", "app::Point::operator bool() const", "app::Point::operator bool"),
    ("_ZNK3app5PointcvNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEEEv",
     f"app::Point::operator {STRING}() const", f"app::Point::operator {STRING}"),
    ("_ZN3app5PointcvPT_IiEEv", "app::Point::operator int*<int>()", "app::Point::operator int*<int>"),
    ("_ZNK3app5PointssERKS0_", "app::Point::operator<=>(app::Point const&) const", "app::Point::operator<=>"),
    ("_ZN3app5PointdlEPv", "app::Point::operator delete(void*)", "app::Point::operator delete"),
    ("_ZN3app5PointnaEm", "app::Point::operator new[](unsigned long)", "app::Point::operator new[]"),
    ("_Znwm", "operator new(unsigned long)", "operator new"),
    ("_ZdlPvm", "operator delete(void*, unsigned long)", "operator delete"),
    ("_ZStlsISt11char_traitsIcEERSt13basic_ostreamIcT_ES5_PKc",
     f"{STREAM}& std::operator<< <std::char_traits<char> >({STREAM}&, char const*)",
     "std::operator<< <std::char_traits<char> >"),
    ("_ZN3app3bigIiEEvT_", "void app::big<int>(int)", "app::big<int>"),
    ("_ZN3app4makeISt6vectorJiSaIiEEEET_IJDpT0_EEv",
     "std::vector<int, std::allocator<int> > app::make<std::vector, int, std::allocator<int> >()",
     "app::make<std::vector, int, std::allocator<int> >"),
    ("_ZN3app4takeESt8functionIFvRKSt10unique_ptrINS_5PointESt14default_deleteIS2_EEEEPA3_S2_PVKi",
     f"app::take(std::function<void ({POINTER} const&)>, app::Point (*) [3], int const volatile*)",
     "app::take"),
    ("_ZN3app4noexEPDoFvvEDnDuDino",
     "app::noex(void (*)() noexcept, decltype(nullptr), char8_t, char32_t, __int128, unsigned __int128)", "app::noex"),
    ("_ZN3app5Point6taggedB2v2Ev", "app::Point::tagged[abi:v2]()", "app::Point::tagged[abi:v2]"),
    ("_ZN3app6varargEPKcz", "app::vararg(char const*, ...)", "app::vararg"),
    ("_Z3fooILb1ELi3ELj4ELin5EEvv", "void foo<true, 3, 4u, -5>()", "foo<true, 3, 4u, -5>"),
    ("_Z3fooIiEPFvT_ES0_", "void (*foo<int>(int))(int)", "foo<int>"),
    ("_Z1fIiEvDTfp_ET_", "void f<int>(decltype ({parm#1}), int)", "f<int>"),
    ("_ZZ4mainEN5Local1fEv", "main::Local::f()", "main::Local::f"),
    ("_ZZ4mainENKUliE_clEi", "main::{lambda(int)#1}::operator()(int) const", "main::{lambda(int)#1}::operator()"),
    ("_ZZZ4mainENKUliE_clEiENKUlvE_clEv",
     "main::{lambda(int)#1}::operator()(int) const::{lambda()#1}::operator()() const",
     "main::{lambda(int)#1}::operator()(int) const::{lambda()#1}::operator()"),
    ("_ZZN3app12_GLOBAL__N_16Secret3runEvENKUlT_E_clIiEEDaS2_",
     "auto app::(anonymous namespace)::Secret::run()::{lambda(auto:1)#1}::operator()<int>(int) const",
     "app::(anonymous namespace)::Secret::run()::{lambda(auto:1)#1}::operator()<int>"),
    ("_ZZN3app12_GLOBAL__N_16hiddenEiE5calls", "app::(anonymous namespace)::hidden(int)::calls",
     "app::(anonymous namespace)::hidden(int)::calls"),
    ("_ZN3app1aMUlvE_clEv", "app::a::{lambda()#1}::operator()()", "app::a::{lambda()#1}::operator()"),
    ("_ZTVN3app1CE", "vtable for app::C", "vtable for app::C"),
    ("_ZTIPKm", "typeinfo for unsigned long const*", "typeinfo for unsigned long const*"),
    ("_ZGVZ1fvE1x", "guard variable for f()::x", "guard variable for f()::x"),
    ("_ZThn16_N3app1C1gEv", "non-virtual thunk to app::C::g()", "non-virtual thunk to app::C::g"),
    ("_ZTv0_n24_N3app1V1fEv", "virtual thunk to app::V::f()", "virtual thunk to app::V::f"),
    ("_ZTch0_h16_N3app1C4selfEv", "covariant return thunk to app::C::self()", "covariant return thunk to app::C::self"),
    ("_Z1fv.cold", "f() [clone .cold]", "f"),
    ("_Z1fv.isra.0.constprop.1", "f() [clone .isra.0] [clone .constprop.1]", "f"),
    ("_Z1fv.part.0.cold", "f() [clone .part.0] [clone .cold]", "f"),
    ("_Z1fv.llvm.8231", "f() [clone .llvm.8231]", "f"),
    ("_ZNSt9exceptionD1Ev@@GLIBCXX_3.4", "std::exception::~exception()@@GLIBCXX_3.4", "std::exception::~exception"),
    ("__ZN3app1A1fEv", "app::A::f()", "app::A::f"),
    ("___ZN3app1A1fEv_block_invoke", "invocation function for block in app::A::f()",
     "invocation function for block in app::A::f"),
    ("____Z1fi_block_invoke_2", "invocation function for block in f(int)", "invocation function for block in f"),
    ("___Z1fi_block_invoke.7", "invocation function for block in f(int)", "invocation function for block in f"),
]  # fmt: skip

RUST_LEGACY = [
    ("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE", "core::fmt::Formatter::pad"),
    ("_ZN71_$LT$Test$u20$$u2b$$u20$$u27$static$u20$as$u20$foo..Bar$LT$Test$GT$$GT$3bar17h0123456789abcdefE",
     "<Test + 'static as foo::Bar<Test>>::bar"),
    ("_ZN4core3ptr85drop_in_place$LT$std..rt..lang_start$LT$$LP$$RP$$GT$..$u7b$$u7b$closure$u7d$$u7d$$GT$17h0123456789abcdefE",
     "core::ptr::drop_in_place<std::rt::lang_start<()>::{{closure}}>"),
    ("_ZN3foo17h0123456789abcdefE.llvm.9D1C9369", "foo"),
    ("__ZN3foo3bar17h0123456789abcdefE", "foo::bar"),
    ("_ZN10$u20AC$bad17h0123456789abcdefE", "$u20AC$bad"),
]  # fmt: skip

RAW = [
    "", "main", "_start", "_Z", "_Z1", "_Z9f", "_R", "__Z", "_ZN", "_ZN3fooE3", "_Z1f\0v", "_Zé", "_Z\udc80",
    "?f@@YAXXQ", "$s4main1fyy", "_TF4main1fFT_T_", "-[NSObject init]", "_Z1fv_block_invoke_x",
    "_ZN3fo17h0123456789abcdefEx", "a" * 10_000, "_Z" + "1" * 10_000, "_Z1f" + "i" * 5000,
]  # fmt: skip

BOMBS = [
    synth.doubling(20),
    synth.forward_arguments(20),
    "_Z1fIJ" + "i" * 60 + "EEv" + "Dp" * 6 + "T_",
    "_Z1fIiEDT" + "pp" * 60 + "fp_ET_",
    "_ZN1a" + "cv1bI" * 60 + "i" + "E" * 61 + "v",
    "_Z1fDTsr1aC",
    "_Z1f" + "P" * 3000 + "i",
    "_Z1fI" + "1aI" * 600 + "i" + "E" * 601 + "v",
    "_Z1fIXLZ" + "1gIXLZ" * 300 + "1hvE",
    "__" * 40 + "_Z1fv" + "_block_invoke" * 40,
]


@pytest.fixture
def cxx() -> None:
    if backend() != "libstdc++.so.6":
        pytest.skip("the texts are libstdc++'s")


@pytest.mark.usefixtures("cxx")
@pytest.mark.parametrize(("name", "full", "short"), CXX, ids=[name for name, _, _ in CXX])
def test_cxx(name: str, full: str, short: str) -> None:
    assert demangle(name) == full
    assert demangle(name, arguments=False) == short


@pytest.mark.parametrize(("name", "expected"), RUST_LEGACY)
def test_rust_legacy(name: str, expected: str) -> None:
    assert demangle(name) == expected


def test_rust_v0() -> None:
    assert demangle("_RNvCskwGfYPst2Cb_3foo3bar") == "foo::bar"
    assert demangle("__RNvC1a4main") == "a::main"


@pytest.mark.parametrize("name", RAW)
def test_what_is_not_mangled_stays(name: str) -> None:
    assert demangle(name) == name
    assert demangle(name, arguments=False) == name


@pytest.mark.usefixtures("cxx")
def test_constraints_need_a_new_runtime() -> None:
    for name in ("_Z1fIiEvT_Q1CIS0_E", "_Z1fITk1CiEvT_"):
        text = demangle(name)
        assert text == name or text.startswith("void f<")


@pytest.mark.parametrize("name", BOMBS, ids=range(len(BOMBS)))
def test_bombs_never_reach_the_platform(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bytes] = []
    monkeypatch.setattr(demangler, "_runtime", lambda: ("recorder", calls.append))
    demangler._readable.cache_clear()
    assert demangle(name) == name
    assert calls == []
    demangle("_Z1fv")
    demangler._readable.cache_clear()
    assert calls == [b"_Z1fv"]


@pytest.mark.usefixtures("cxx")
def test_output_is_bounded() -> None:
    """The largest of the doubling symbols that prints is within the limit, the next would be less than twice as far."""
    sizes = [len(text) for levels in range(20) if (text := demangle(name := synth.doubling(levels))) != name]
    assert LIMITS.max_demangle_output / 64 < max(sizes) <= LIMITS.max_demangle_output
    # libiberty itself gives up at 1024 bytes.
    assert demangle("_Z900" + "a" * 900 + "v") == "a" * 900 + "()"


def test_without_a_runtime_rust_is_still_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demangler, "_runtime", lambda: None)
    demangler._readable.cache_clear()
    assert backend() is None
    assert demangle("_Z1fv") == "_Z1fv"
    assert demangle("_RNvC1a4main") == "a::main"
    assert demangle("_ZN3foo17h0123456789abcdefE") == "foo"
    demangler._readable.cache_clear()


def test_helpers_are_at_hand() -> None:
    assert (strip_arguments("f(int)"), flatten("f()"), brackets("f()")) == ("f", "f\1\1", [(1, 3, "(")])


def within_limits(name: str) -> None:
    text = demangle(name)
    assert text == name or len(text) <= LIMITS.max_demangle_output + 2 * LIMITS.max_demangle_input
    assert len(demangle(name, arguments=False)) <= len(text)


@given(st.text())
def test_any_text(text: str) -> None:
    for prefix in ("", "_Z", "_ZN", "_R", "__Z", "_ZZ1fvE", "_ZN1a17h0123456789abcdefE"):
        within_limits(prefix + text)


@pytest.mark.parametrize("seed", range(6))
def test_mutated_names(seed: int) -> None:
    random = Random(seed)
    names = [name for name, *_ in (*CXX, *RUST_LEGACY)] + [synth.doubling(12), synth.forward_arguments(12)]
    for _ in range(1000):
        within_limits(synth.mutated(random, random.choice(names)))


@pytest.mark.parametrize("prefix", ["_Z", "_ZN", "_R", "_RNvC", "_ZN1a", "_Z1fI", "_ZZ", "__Z", "?", "$s"])
def test_a_megabyte(prefix: str) -> None:
    name = prefix + "1a" * 500_000
    assert demangle(name) is name


@pytest.mark.usefixtures("cxx")
def test_whole_libraries_agree_with_the_tool() -> None:
    """What c++filt prints, but for the few names that its version and the platform's see differently."""
    tool = shutil.which("c++filt")
    if tool is None:
        pytest.skip("no c++filt here")
    with open("/proc/self/maps") as maps:
        libraries = sorted(set(re.findall(r"/\S+/\S+\.so\b\S*", maps.read())))
    names: set[str] = set()
    for library in libraries:
        with open(library, "rb") as file:
            strings = ELFFile(file).get_section_by_name(".dynstr")
            found = strings.data().decode().split("\0") if strings else []
            names.update(name for name in found if name.startswith("_Z"))
    assert len(names) > 3000
    ordered = sorted(names)[:20_000]
    output = subprocess.run([tool, "-i"], input="\n".join(ordered), capture_output=True, text=True, check=True).stdout
    ours = [demangle(name) for name in ordered]
    differing = [
        (name, text, expected)
        for name, text, expected in zip(ordered, ours, output.splitlines(), strict=True)
        if text != expected
    ]
    assert len(differing) <= len(ordered) / 500, differing[:5]
    assert [name for name in ordered if expansion(name.encode(), 1 << 19) is None] == []
