from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadreckon.symbols import demangle as names
from deadreckon.symbols.swift import PREFIXES, demangle

READABLE = {
    "$S3foo3barC3bas3zimyAaEC_tFTo": "@objc bar.bas(zim:)",
    "$SSC9SomeErrorLeVD": "related decl 'e' for SomeError",
    "$e4main3FooV1xyyF": "Foo.x()",
    "$s10Foundation4DataV4main6SecretCIegng_D": (
        "@escaping @callee_guaranteed (@in_guaranteed Data, @guaranteed Secret) -> ()"
    ),
    "$s12typed_throws15rethrowConcreteyyAA7MyErrorOYKF": "rethrowConcrete()",
    "$s17distributed_thunk2DAC1fyyFTE": "DA.f()",
    "$s17property_wrappers10WithTuplesV9fractionsSd_S2dtvpfP": (
        "property wrapper backing initializer of WithTuples.fractions"
    ),
    "$s18keypaths_inlinable13KeypathStructV8computedSSvpACTKq": (
        "key path getter for KeypathStruct.computed : KeypathStruct, serialized"
    ),
    "$s18opaque_return_type3fooQryFQOHo": "opaque type descriptor runtime record for <<opaque return type of foo()>>",
    "$s1A1gyyxlFx_qd__t_Ti5": "specialized g<A>(_:)",
    "$s21back_deploy_attribute0A12DeployedFuncyyFTwB": "back deployment fallback for backDeployedFunc()",
    "$s3red3use2fnySiyYAXE_tF": "use(fn:)",
    "$s4main1PP3fooyyFTj": "dispatch thunk of P.foo()",
    "$s4main1PP3fooyyFTq": "method descriptor for P.foo()",
    "$s4main1SVAA1PA2aDP3fooyyFTW": "protocol witness for P.foo() in conformance S",
    "$s4main1f1a1bySi_SStFfA0_": "default argument 1 of f(a:b:)",
    "$s4main1f_1yyx_q_tr0_lF": "f<A, B>(_:y:)",
    "$s4main1fyyxRi_zlF": "f<A>(_:)",
    "$s4main1fyyxlF": "f<A>(_:)",
    "$s4main1fyyxxQp_tRvzlF": "f<each A>(_:)",
    "$s4main3FooC1x33_0123456789ABCDEF0123456789ABCDEFLLyyF": "Foo.x()",
    "$s4main3FooC1xSivM": "Foo.x.modify",
    "$s4main3FooC1xSivg": "Foo.x.getter",
    "$s4main3FooC1xSivgZ": "static Foo.x.getter",
    "$s4main3FooC1xSivgyyXEfU_": "closure #1 in Foo.x.getter",
    "$s4main3FooC1xSivpWvd": "direct field offset for Foo.x",
    "$s4main3FooC1xSivpfi": "variable initialization expression of Foo.x",
    "$s4main3FooC1xSivs": "Foo.x.setter",
    "$s4main3FooC1xyyF1gL_yyF": "g #1 () in Foo.x()",
    "$s4main3FooC3bar33_0123456789ABCDEF0123456789ABCDEFLLSivg": "Foo.bar.getter",
    "$s4main3FooCACycfc": "Foo.init()",
    "$s4main3FooCMm": "metaclass for Foo",
    "$s4main3FooCN": "type metadata for Foo",
    "$s4main3FooCfD": "Foo.__deallocating_deinit",
    "$s4main3FooCfd": "Foo.deinit",
    "$s4main3FooCyACSicfC": "Foo.__allocating_init(_:)",
    "$s4main3FooCyACSicfc": "Foo.init(_:)",
    "$s4main3FooCySiSScig": "Foo.subscript.getter",
    "$s4main3FooOSHAAWP": "protocol witness table for Foo",
    "$s4main3FooV1aSivy": "Foo.a.yielding_borrow",
    "$s4main3FooV2eeoiySbAC_ACtFZ": "static Foo.== infix(_:_:)",
    "$s4main3FooV3bar1x1yySi_SStYaKFTQ1_.resume.0": "Foo.bar(x:y:)",
    "$s4main3FooV3bar1x1yySi_SStYaKFTY0_": "Foo.bar(x:y:)",
    "$s4main3FooV3baryySi_SStYaKF": "Foo.bar(_:_:)",
    "$s4main3FooVACSHAAWl": "lazy protocol witness table accessor for type Foo and conformance Foo",
    "$s4main3FooVMa": "type metadata accessor for Foo",
    "$s4main3FooVSgWOe": "outlined consume of Foo?",
    "$s4main3FooVWOh": "outlined destroy of Foo",
    "$s4main3FooVwcp": "initializeWithCopy for Foo",
    "$s4main3FooVyACSicfC": "Foo.init(_:)",
    "$s4main3FooVySiGMa": "type metadata accessor for Foo<Int>",
    "$s4main3fooyySiFyyXEfU_TA.1": "partial apply for closure #1 in foo(_:)",
    "$s4main4BaseC1xyyFAA7DerivedCADyyFTV": "vtable thunk for Derived.x() dispatching to Base.x()",
    "$s4main6globalSivau": "global.unsafeMutableAddressor",
    "$s4main6global_WZ": "one-time initialization function for global",
    "$s4test3fooV4blahyAA1SV1fQryFQOy_Qo_AHF": "foo.blah(_:)",
    "$s4test3fooyyAA1P_px1TRts_XPlF": "foo<A>(_:)",
    "$s4testA2A5KlassCyYTF": "test()",
    "$s5MyApp0B8DelegateC11application_29didFinishLaunchingWithOp"
    "tionsSbSo13UIApplicationC_SDySo0j6LaunchI3KeyaypGSgtF": (
        "AppDelegate.application(_:didFinishLaunchingWithOptions:)"
    ),
    "$s5MyApp0B8DelegateC11application_29didFinishLaunchingWithOp"
    "tionsSbSo13UIApplicationC_SDySo0j6LaunchI3KeyaypGSgtFTo": (
        "@objc AppDelegate.application(_:didFinishLaunchingWithOptions:)"
    ),
    "$s5MyApp14ViewControllerC11viewDidLoadyyF": "ViewController.viewDidLoad()",
    "$s5MyApp14ViewControllerC11viewDidLoadyyFyyYaYbcfU0_TA": (
        "partial apply for closure #2 in ViewController.viewDidLoad()"
    ),
    "$s5MyApp14ViewControllerC11viewDidLoadyyFyycfU_": "closure #1 in ViewController.viewDidLoad()",
    "$s7Library3fooyyFTwS": "#_hasSymbol query for foo()",
    "$s7example1fyyYaKFTu": "async function pointer to f()",
    "$s8mangling0012vergenza_JFayyF": "vergüenza()",
    "$s8mangling007p_qcaDcoiyS2i_SitF": "«+» infix(_:_:)",
    "$s9MacroUser13testStringify1a1bySi_SitF9stringifyfMf1_": (
        "freestanding macro expansion #3 of stringify in testStringify(a:b:)"
    ),
    "$sIeg_IyB_TR": "thunk for @escaping @callee_guaranteed () -> ()",
    "$sSDySSSaySiGGMa": "type metadata accessor for [String : [Int]]",
    "$sSSIegg_So8NSStringCIeyBy_TR": "thunk for @escaping @callee_guaranteed (@guaranteed String) -> ()",
    "$sSa16_createNewBuffer14bufferIsUnique15minimumCapacity13growForAppendySb_SiSbtFs5UInt8V_Tg5": (
        "specialized Array._createNewBuffer(bufferIsUnique:minimumCapacity:growForAppend:)"
    ),
    "$sSa4mainSiRszlE1xyyF": "Array<A>.x()",
    "$sSa6appendyyxnF4main3FooV_Tgm5Tf4nn_n": "specialized Array.append(_:)",
    "$sSa6appendyyxnFSi_Tg5": "specialized Array.append(_:)",
    "$sSayxGSTsWP": "protocol witness table for [A]",
    "$sScGySiG": "TaskGroup<Int>",
    "$sSi4mainE1xyyF": "Int.x()",
    "$sSo5GizmoC11doSomethingyypSgSaySSGSgFToTembgnn_": (
        "outlined bridged method (mbgnn) of @objc Gizmo.doSomething(_:)"
    ),
    "$ss5Error_pMa": "type metadata accessor for Error",
    "$sypXpMa": "type metadata accessor for Any.Type",
    "@__swiftmacro_18macro_expand_peers1SV1f20addCompletionHandlerfMp_": (
        "peer macro @addCompletionHandler expansion #1 of f in S"
    ),
    "_$s4main3FooV3bar1x1yySi_SStKF": "Foo.bar(x:y:)",
    "_T03foo3barC3basyAA3zimCAE_tFTo": "@objc bar.bas(zim:)",
    "_T08mangling14varargsVsArrayySi3arrd_SS1ntF": "varargsVsArray(arr:n:)",
}

# What Objective-C sees, in the mangling before Swift 4.
OLD = {
    "_TtC4Main3Foo": "Foo",
    "_TtVCC4main3Foo4Ding3Str": "Foo.Ding.Str",
    "_TtO6Monads6Either": "Either",
    "_TtC4testP33_83378C430F65473055F1BD53F3ADCDB71C": "C",
    "_TtGC4main3FooSi_": "Foo<Int>",
    "_TtGCC4main5Outer5InnerSi_SS_": "Outer<Int>.Inner<String>",
    "_TtGSqGSaC5sugar7MyClass__": "[MyClass]?",
    "_TtGVs10DictionarySSSi_": "[String : Int]",
    "_TtGC7SwiftUI19UIHostingControllerGVS_15ModifiedContentVS_7AnyViewVS_12RootModifier__": (
        "UIHostingController<ModifiedContent<AnyView, RootModifier>>"
    ),
    "_TtTP3foo3barS_3bas_PS1__PS1_S_3zimS0___": "(bar & bas, bas, bas & zim & bar)",
    "_TtP_": "Any",
    "_TtPMP_": "Any.Type",
    "_TtMSi": "Int.Type",
    "-[_TtC4Main3Foo bar:baz:]": "-[Foo bar:baz:]",
    "+[_TtC4Main3Foo(Category) bar]": "+[Foo(Category) bar]",
}

UNREADABLE = [
    *("", "$", "$s", "_$s", "_T0", "@__swiftmacro_", "$s4main", "$s4mai", "$s4main3Foo", "$s4main3fooyyFx", "$state"),
    *("$s4main3fooyyF\xe9", "$s4main3fooyyF\n", "$s99main3fooyyF", "$s4main3foo\0yF", "$syQo", "$sSD5IndexVy__GD"),
    *("$s0059xxxxxxxxxxxxxxx_ttttttttBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBee", "_$S3BBBBf0602365061_", "_T0s3SetVyxGs"),
    *("_T0lxxxmmmTk", "$s__TJO", "$sxxxIxzCXxxxesy", "$SSD1BySSSBsg_G", "$sA_", "$sSg", "$s4main3fooyyFTz", "_T0A8"),
    *("_Tt", "_TtC", "_TtZZ", "_TtTSi", "_TtC4Main3FooX", "_TtGC4main3FooSi", "_TtCS_3Foo", "_TtCSi3Foo3Bar", "-[_Tt]"),
    *("-[_TtC4Main3Foo]", "-[_TtC4Main bar]", "_TF3foo3barFT_T_", "4main3fooyyF", "_Z3foov", "$s4main00b_a\x7fyyF"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "readable"), [*READABLE.items(), *OLD.items()])
def test_readable(name: str, readable: str) -> None:
    assert demangle(name) == readable
    assert names.demangle(name) == readable
    assert names.demangle(name, arguments=False) == readable


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable(name: str) -> None:
    assert demangle(name) is None


@pytest.mark.parametrize("name", [name for name in READABLE if name.startswith("$s")])
def test_prefixes(name: str) -> None:
    for prefix in ("_$s", "$S", "_$S", "$e", "_$e", "@__swiftmacro_"):
        assert demangle(prefix + name[2:]) == READABLE[name]


def test_what_is_left_on_the_stack_is_no_name() -> None:
    assert demangle("$s4main3FooV") == "Foo"
    assert demangle("$s4main3FooVSi") is None
    assert demangle("$s4main3FooVAC1xyyF") is None


def doubled(levels: int) -> str:
    """Return a dictionary's type whose key and value are the same dictionary's type, so many levels deep."""
    bound = "".join(f"A{chr(65 + level)}G" for level in range(levels))
    return "$s" + "SDy" * (levels + 1) + "SiSiG" + bound + "Ma"


def test_shared_parts() -> None:
    assert demangle(doubled(0)) == "type metadata accessor for [Int : Int]"
    assert demangle(doubled(1)) == "type metadata accessor for [[Int : Int] : [Int : Int]]"
    readable = demangle(doubled(10))
    assert readable is not None
    assert readable.count("Int") == 2**11


@pytest.mark.parametrize(
    "name",
    [
        doubled(25),
        "$sSi" + "Sg" * 2000 + "Ma",
        "$s1a" + "A2047a" * 600,
        "$s1a1bCy" + "_" * 3000 + "G",
        "$s1a" + "1bV" * 1300 + "Ma",
        "$s1a1byyF" + "1cL_yyF" * 580,
        "$s1a1byy" + "yyc" * 1300 + "F",
        "$s" + "3000" + "a" * 3000 + ("0" + "a" * 30 + "0") * 30,
        "$sSDy" * 1000,
        "$s1aTv99999999999999999999_",
        "$s1a1byyr4000000000_l" + "F",
        "_Tt" + "GC1a1b" * 600,
        "_TtC" + "C" * 4000,
        "_TtT" + "T" * 4000,
    ],
)
def test_bounds(name: str) -> None:
    assert demangle(name) is None


def test_many_generic_parameters_are_cut() -> None:
    readable = demangle("$s1a1byyx_tr999999_lF")
    assert readable is not None
    assert readable.startswith("b<A, B, C, ")
    assert readable.endswith(", ...>(_:)")
    assert len(readable) < 1000


def test_mutated_names_never_raise() -> None:
    random = Random(20_240_917)
    pool = [*READABLE, *OLD]
    letters = "ABCDEFGHIKLMNOPQRSTUVWXYZabcdefghilmnopqrstuvwxyz_0123456789"
    readable = 0
    for _ in range(6_000):
        text = list(random.choice(pool))
        for _ in range(random.randint(1, 3)):
            at = random.randrange(2, len(text)) if len(text) > 3 else 2
            choice = random.randrange(5)
            if choice == 0 and len(text) > 4:
                del text[at]
            elif choice == 1:
                text.insert(at, random.choice(letters))
            elif choice == 2 and at < len(text):
                text[at] = random.choice(letters)
            elif choice == 3:
                other = random.choice(pool)
                text[at:at] = other[random.randrange(len(other)) :][:30]
            else:
                text[at:] = text[2:at] * random.randint(1, 40)
        found = demangle("".join(text))
        assert found is None or (0 < len(found) <= 65_536 and found.replace("\u200d", "").isprintable())
        readable += found is not None
    assert 0 < readable < 3_000


@given(st.sampled_from(PREFIXES), st.text("ACDEFGHIKLMNOQRSTVWXYabcdfgilmnopqrstuvwxyz_0123456789", max_size=60))
def test_any_text(prefix: str, text: str) -> None:
    found = demangle(prefix + text)
    assert found is None or found
