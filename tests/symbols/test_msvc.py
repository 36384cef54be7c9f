from __future__ import annotations

import re
import shutil
import subprocess
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadreckon.symbols.demangle import demangle as demangle_any
from deadreckon.symbols.msvc import demangle

READABLE = {
    "?f@@YAXXZ": "f()",
    "?f@@YAHHD@Z": "f(int, char)",
    "?f@a@@YAXZZ": "a::f(...)",
    "?f@a@@YAXHZZ": "a::f(int, ...)",
    "?f@A@b@@QEBAHPEBD0@Z": "b::A::f(char const*, char const*) const",
    "?f@A@@UEAAXAEBV1@@Z": "A::f(A const&)",
    "?f@A@@SAX$$QEAV1@@Z": "A::f(A&&)",
    "?f@A@@QEGAAHXZ": "A::f() &",
    "?f@A@@QEHAAHXZ": "A::f() &&",
    "?f@A@@QEDAXXZ": "A::f() const volatile",
    "??0A@b@@QEAA@XZ": "b::A::A()",
    "??1A@b@@UEAA@XZ": "b::A::~A()",
    "??4A@@QEAAAEAV0@AEBV0@@Z": "A::operator=(A const&)",
    "??BA@@QEBA_NXZ": "A::operator bool() const",
    "??BA@@QEBAPEBDXZ": "A::operator char const*() const",
    "??RA@@QEAAHH@Z": "A::operator()(int)",
    "??6std@@YAAEAV?$basic_ostream@DU?$char_traits@D@std@@@0@AEAV10@PEBD@Z": (
        "std::operator<<(std::basic_ostream<char, std::char_traits<char>>&, char const*)"
    ),
    "??2@YAPEAX_K@Z": "operator new(unsigned __int64)",
    "??_V@YAXPEAX@Z": "operator delete[](void*)",
    "??__K_km@@YAOO@Z": 'operator ""_km(long double)',
    "??__MA@@QEBA?AU0@AEBV0@@Z": "A::operator<=>(A const&) const",
    "??$f@H@@YAXH@Z": "f<int>(int)",
    "??$f@V?$b@H@@@a@@YA?AV?$b@H@@V1@@Z": "a::f<b<int>>(b<int>)",
    "??$f@$0A@$0?0$00$0BAA@@@YAXXZ": "f<0, -1, 1, 256>()",
    "??$f@$1?g@@YAXXZ@@YAXXZ": "f<&g()>()",
    "??$f@$1?x@@3HA@@YAXXZ": "f<&x>()",
    "??$f@$$V@@YAXXZ": "f<>()",
    "??$f@$$T@@YAX$$T@Z": "f<std::nullptr_t>(std::nullptr_t)",
    "??$f@$$A6AHD@Z@@YAXXZ": "f<int (char)>()",
    "??$f@$$BY02H@@YAXXZ": "f<int [3]>()",
    "??$f@$$CBH@@YAXXZ": "f<int const>()",
    "??0?$A@H@@QEAA@XZ": "A<int>::A<int>()",
    "?f@?A0x1234abcd@@YAXXZ": "`anonymous namespace'::f()",
    "?f@?A@@YAXXZ": "`anonymous namespace'::f()",
    "?x@?1??f@@YAXH@Z@4HA": "`f(int)'::`2'::x",
    "??R<lambda_1>@?0??f@@YAXXZ@QEBA@XZ": "`f()'::`1'::<lambda_1>::operator()() const",
    "??R<lambda_0123456789abcdef>@@QEBA@H@Z": "<lambda_0123456789abcdef>::operator()(int) const",
    "?x@a@@3HA": "a::x",
    "?x@A@@2PEBDEB": "A::x",
    "?x@A@@2_NB": "A::x",
    "?p@@3P6AHD@ZEA": "p",
    "?p@@3PEQA@@HEQ1@": "p",
    "?p@@3P8A@@EAAHD@ZEQ1@": "p",
    "?f@@YAXP6AXH@Z@Z": "f(void (*)(int))",
    "?f@@YAXP6AP6AXD@ZH@Z@Z": "f(void (*(*)(int))(char))",
    "?f@@YAXPEAY02H@Z": "f(int (*)[3])",
    "?f@@YAXPEAY12BA@$$CBH@Z": "f(int const (*)[3][16])",
    "?f@@YAXP8A@@EBAHD@Z@Z": "f(int (A::*)(char) const)",
    "?f@@YAXPEQA@@H@Z": "f(int A::*)",
    "?f@@YAXQEBD@Z": "f(char const* const)",
    "?f@@YAXW4e@a@@TU@2@USt@2@@Z": "f(a::e, a::U, a::St)",
    "?f@@YAX_J_K_W_S_U_Q@Z": "f(__int64, unsigned __int64, wchar_t, char16_t, char32_t, char8_t)",
    "?f@@YAXX_E": "f() noexcept",
    "??_7A@b@@6B@": "b::A::`vftable'",
    "??_7A@@6BB@@@": "A::`vftable'{for `B'}",
    "??_8A@@7B@": "A::`vbtable'",
    "??_GA@@UEAAPEAXI@Z": "A::`scalar deleting dtor'(unsigned int)",
    "??_EA@@W7EAAPEAXI@Z": "A::`vector deleting dtor'`adjustor{8}'(unsigned int)",
    "?f@A@@WBA@EAAXXZ": "A::f`adjustor{16}'()",
    "?f@A@@$4PPPPPPPM@A@EAAXXZ": "A::f`vtordisp{-4, 0}'()",
    "??_R0?AVA@b@@@8": "b::A::`RTTI Type Descriptor'",
    "??_R1A@?0A@EA@A@b@@8": "b::A::`RTTI Base Class Descriptor at (0, -1, 0, 64)'",
    "??_R4A@@6B@": "A::`RTTI Complete Object Locator'",
    "??__Ex@a@@YAXXZ": "`dynamic initializer for 'a::x''()",
    "??__Fx@a@@YAXXZ": "`dynamic atexit destructor for 'a::x''()",
    "??__E?x@A@@2HA@@YAXXZ": "`dynamic initializer for 'A::x''()",
    "??_C@_05CJBACGMB@hello?$AA@": "`string'",
    "??_B?1??f@@YAXXZ@51": "`f()'::`2'::`local static guard'",
    "?f@@9": "f",
    "?catch$0@?0??f@@YAXXZ@4HA": "`f()'::`1'::catch$0",
    "?filter@A@@CGJPAU_EXCEPTION_POINTERS@@@Z$0": "A::filter(_EXCEPTION_POINTERS*)",
    "??$emplace_back@PAVB@a@@@?$vector@PAVB@a@@V?$allocator@PAVB@a@@@std@@@std@@QAEX$$QAPAVB@a@@@Z": (
        "std::vector<a::B*, std::allocator<a::B*>>::emplace_back<a::B*>(a::B*&&)"
    ),
    "?f@@YAXABV?$basic_string@_WU?$char_traits@_W@std@@V?$allocator@_W@2@@std@@PB_W1@Z": (
        "f(std::basic_string<wchar_t, std::char_traits<wchar_t>, std::allocator<wchar_t>> const&, wchar_t const*,"
        " wchar_t const*)"
    ),
}

UNREADABLE = [
    *(
        "",
        "?",
        "??",
        "???",
        "f",
        "?f",
        "?f@",
        "?f@@",
        "?f@@Y",
        "?f@@YA",
        "?f@@YAX",
        "?f@@YAXX",
        "?f@@YAXXZ_E",
        "?f@@YAX_E",
    ),
    *("?f@@YAXXZX", "?f@@YAX0@Z", "?f@@YAXV1@@Z", "?9@@YAXXZ", "?f@1@YAXXZ", "??0@YAXXZ", "??1@@YAXXZ", "??$f@@@@"),
    *("?f@@YAXPEAY@H@Z", "?f@@YAX\0@Z", "?x@@3H", "?x@@3ZA", "??_7A@@6", "??_R0", "??_R1A@", "?f@A@@$6A@A@EAAXXZ"),
    *(
        "??@0123456789abcdef0123456789abcdef@",
        "??$?0H@A@@QEAA@H@Z",
        "?f@@QE$AAAHXZ",
        "??__Ef",
        "?f@?",
        "?f@?1",
        "?f@?1?",
    ),
]

BOMBS = [
    "?f@@YAX" + "PEA" * 2000 + "H@Z",
    "?f@@YAX" + "P6AX" * 2000 + "H" + "@Z" * 2001,
    "?f@@YAXV" + "?$a@V" * 1000 + "b@@" + "@@" * 1000 + "@Z",
    "?f@@YAXPEAY" + "A" * 17 + "@H@Z",
    "?f@@YAXPEAYBAAAA@H@Z",
    "?f@" + "?1?" * 1000,
    "??$" * 1300,
    "?f@@YAX" + "V?$a@V1@V1@V1@V1@@@" * 200 + "@Z",
    # Ten types, each a function of forty of the one before.
    "?f@@YAXPEAH" + "".join(f"P6AX{n}" + f"{n}" * 39 + "@Z" for n in range(9)) + "@Z",
]


@pytest.mark.parametrize("name", READABLE)
def test_readable(name: str) -> None:
    assert demangle(name) == READABLE[name]
    assert demangle_any(name) == READABLE[name]


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable(name: str) -> None:
    assert demangle(name) is None
    assert demangle_any(name) == name


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("?f@A@b@@QEBAHPEBD0@Z", "b::A::f"),
        ("??BA@@QEBAPEBDXZ", "A::operator char const*"),
        ("??R<lambda_1>@?0??f@@YAXXZ@QEBA@XZ", "`f()'::`1'::<lambda_1>::operator()"),
        ("?f@?A0x1234abcd@@YAXXZ", "`anonymous namespace'::f"),
        ("??__Ex@a@@YAXXZ", "`dynamic initializer for 'a::x''"),
        ("??_GA@@UEAAPEAXI@Z", "A::`scalar deleting dtor'"),
        ("??_R0?AVA@b@@@8", "b::A::`RTTI Type Descriptor'"),
        ("??$f@H@@YAXH@Z", "f<int>"),
    ],
)
def test_without_arguments(name: str, short: str) -> None:
    assert demangle_any(name, arguments=False) == short


@pytest.mark.parametrize("name", BOMBS, ids=range(len(BOMBS)))
def test_bombs(name: str) -> None:
    assert demangle(name) is None


def test_a_megabyte() -> None:
    for unit in ("a@", "?$a@", "PEA", "H", "@", "?", "A", "0", "?1?"):
        for head in ("?f@", "?f@@YAX", "??$f@", "?f@@3"):
            text = demangle(head + unit * (1_000_000 // len(unit)))
            assert text is None or len(text) <= 1 << 16


@given(st.text("?@$ABCDEFGHIPQRSTUVWXYZ_0123456789ab", max_size=60))
def test_any_text(text: str) -> None:
    for head in ("?", "?f@", "?f@@YAX", "??$f@", "??_R1", "?f@A@@$4"):
        found = demangle(head + text)
        assert found is None or 0 < len(found) <= 1 << 16


@pytest.mark.parametrize("seed", range(4))
def test_mutated_names(seed: int) -> None:
    random = Random(seed)
    names = list(READABLE)
    accepted = 0
    for _ in range(2000):
        name = random.choice(names)
        for _ in range(random.randint(1, 4)):
            at = random.randint(1, len(name))
            other = random.choice(names)
            start = random.randint(1, len(other))
            name = name[:at] + other[start : start + random.choice((1, 3, 9))] + name[at + random.choice((0, 1, 4)) :]
        text = demangle(name)
        accepted += text is not None
        assert text is None or 0 < len(text) <= 1 << 16
    assert 20 < accepted < 1900


def _plain(text: str) -> str:
    """Return a text without what one of the two printers leaves out or spaces otherwise."""
    text = re.sub(r"\b(?:class|struct|union|enum) |__cdecl ?|__thiscall ?|\[thunk\]: |^const ", "", text)
    return re.sub(r" ?([*&()\[\]]) ?", r"\1", text.replace("(void)", "()")).strip()


def test_names_agree_with_the_tool() -> None:
    tool = shutil.which("llvm-undname")
    if tool is None:
        pytest.skip("no llvm-undname here")
    leave_out = ("access-specifier", "calling-convention", "return-type", "member-type", "variable-type")
    # These the tool prints otherwise on purpose: whole inner functions, string contents, results inside of arguments.
    names = [n for n in READABLE if not re.search(r"@\?|\?\?_[CRB]|\$1|__[EF]|\$\$A6|P6AP6|\$0$|9$", n)]
    command = [tool, *(f"--no-{part}" for part in leave_out), *names]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = [line for line in output.splitlines() if line]
    theirs = dict(zip(lines[::2], lines[1::2], strict=True))
    assert {n: _plain(theirs[n]) for n in names} == {n: _plain(READABLE[n]) for n in names}
    assert len(names) > 40
