"""Sentry's grouping: its own cases, and what each strategy and platform makes of events written here."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadreckon.errors import Malformed
from deadreckon.grouping.families.sentry import CONFIGURATIONS, Grouping, convert, decode
from deadreckon.grouping.families.sentry.explain import components
from deadreckon.grouping.families.sentry.functions import split_tokens, trim_function
from deadreckon.grouping.families.sentry.message import normalize_message
from deadreckon.grouping.rules import RuleSet, load_rules, parse_rules

if TYPE_CHECKING:
    from pathlib import Path

NEWSTYLE, MOBILE = "newstyle:2023-01-11", "mobile:2021-02-12"
ACCESSOR, CONSTRUCTOR = "reflect.GeneratedMethodAccessor", "reflect.GeneratedConstructorAccessor"
RULES = {NEWSTYLE: "newstyle@2023-01-11", MOBILE: "mobile@2021-04-02"}


def md5(*values: str) -> str:
    return hashlib.md5("".join(values).encode()).hexdigest()


def frame(function: str | None = None, **told: Any) -> dict[str, Any]:
    return {"function": function, "in_app": True, **told}


def event(*frames: dict[str, Any], platform: str = "other", **told: Any) -> dict[str, Any]:
    return {"platform": platform, "stacktrace": {"frames": list(frames)}, **told}


def crash(*frames: dict[str, Any], platform: str = "other", **told: Any) -> dict[str, Any]:
    return {"platform": platform, "exception": {"values": [{"stacktrace": {"frames": list(frames)}, **told}]}}


def hashes(told: dict[str, Any], rules: str = "", configuration: str = NEWSTYLE) -> dict[str, str | None]:
    """Group an event, with and without explanations."""
    grouping = Grouping(configuration, parse_rules(rules))
    found = {name: v.hash for name, v in grouping.variants(decode(json.dumps(told))).items()}
    assert found == {name: v.hash for name, v in grouping.variants(decode(json.dumps(told)), explain=True).items()}
    return found


# -- Sentry's own cases -----------------------------------------------------------------------------------------------


@pytest.mark.corpus
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("way", ["decode", "convert"])
def test_sentrys_events(corpus: Path, configuration: str, way: str) -> None:
    home = corpus / "grouping/sentry-2023-02"
    inputs = json.loads((home / "normalized_inputs.json").read_text())
    expected = json.loads((home / "expected_variants.json").read_text())[configuration]
    grouping = Grouping(configuration, load_rules(home / f"enhancement-configs/{RULES[configuration]}.txt"))
    wrong = {}
    for name, told in inputs.items():
        variants = grouping.variants(decode(json.dumps(told)) if way == "decode" else convert(told))
        found = {kind: v.hash for kind, v in variants.items()}
        if found != {kind: v["hash"] for kind, v in expected[name].items()}:
            wrong[name] = found
    assert len(expected) == len(inputs) > 80
    assert wrong == {}


@pytest.mark.corpus
def test_sentrys_fingerprint_rules(corpus: Path) -> None:
    home = corpus / "grouping/sentry-2023-02"
    grouping = Grouping(NEWSTYLE, load_rules(home / f"enhancement-configs/{RULES[NEWSTYLE]}.txt"))
    expected = json.loads((home / "expected_fingerprint_rules.json").read_text())
    for name, wanted in expected.items():
        told = convert(json.loads((home / "fingerprint_inputs" / name).read_text()))
        assert grouping.prepare(told) == wanted["title"], name
        assert (told.fingerprint or ["{{ default }}"]) == wanted["fingerprint"], name
        found = {kind: (v.hash, v.kind) for kind, v in grouping.variants(told).items()}
        assert found == {kind: (v["hash"], v["type"]) for kind, v in wanted["variants"].items()}, name


@pytest.mark.corpus
def test_sentrys_function_names(corpus: Path) -> None:
    told = json.loads((corpus / "grouping/sentry-2023-02/function_and_glob_vectors.json").read_text())
    for platform in ("native", "csharp", "cocoa"):
        for name, wanted in told[f"test_functions.py:test_trim_{platform}_function_name"]["rows"]:
            assert trim_function(name, platform) == wanted
    for name, wanted in told["test_functions.py:test_split_func_tokens"]["rows"]:
        assert split_tokens(name) == wanted


# -- functions and messages -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "platform", "wanted"),
    [
        ("void ns::Vec<int>::push(int const&) const", "native", "ns::Vec<T>::push"),
        ("<Foo as B<C>>::run::h0123456789abcdef", "native", "Foo::run"),
        ("<F as B<C>>::run", "native", "B<T>::run"),
        ("a::{lambda(int)#3}::operator()(int) const", "native", "a::lambda::operator()"),
        ("?A0xdeadbeef::f", "native", "`anonymous namespace'::f"),
        ("f(int) [clone .part.1]", "native", "f"),
        ("f<a>>g lost", "native", "f<T>"),
        ("f(unclosed", "native", "f"),
        ("<" * 5000 + "x", "native", "<" * 5000 + "x"),
        ("closure #1 (A) in B.c(d: E) -> F", "swift", "B.c"),
        ("@objc -> ()", "cocoa", "closure"),
        ("A.B (C c)", "csharp", "A.B"),
        ("A.B (C c)", "java", "A.B (C c)"),
        ("", "native", ""),
    ],
)
def test_function_names(name: str, platform: str, wanted: str) -> None:
    assert trim_function(name, platform) == wanted


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ("user 17 of 10.0.0.1", "user <int> of <ip>"),
        ("mail a.b@c.example.org now", "mail <email> now"),
        ("get https://x.example/y?z=1 failed", "get <url> failed"),
        ("id 123e4567-e89b-12d3-a456-426614174000", "id <uuid>"),
        ("commit 2fd4e1c67a2d28fced849ee1bb76e7391b93eb12", "commit <sha1>"),
        ("etag 5d41402abc4b2a76b9719d911017c592", "etag <md5>"),
        ("at 0xdeadBEEF", "at <hex>"),
        ("took -3.50 s of 4", "took <float> s of <int>"),
        ("on 2023-01-11T10:20:30.5+01:00", "on <date>"),
        ("on 2023-01-11T10:20Z", "on <date>"),
        ("Tue Nov  3 10:20:30 2026 x", "<date> x"),
        ("Tue, 03 Nov 2026 10:20:30 GMT", "<date>"),
        ("::1 and 1:2:3:4:5:6:7:8 and ::ffff:1.2.3.4", "<ip> and <ip> and <ip>.<float>.<int>"),
        ("v2x 7th", "v2x 7th"),
        (" a \n\n b \n c", "a \n b..."),
        ("one\n", "one..."),
        ("", ""),
    ],
)
def test_messages(message: str, wanted: str) -> None:
    assert normalize_message(message) == wanted


# -- frames -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("platform", "told", "counted"),
    [
        ("other", {"function": "f", "filename": "A/b\\C.x"}, ["c.x", "f"]),
        ("other", {"function": "f", "filename": "c.x", "module": "M"}, ["M", "f"]),
        ("other", {"filename": "<anonymous>", "function": "f"}, ["f"]),
        ("other", {"filename": "[native code]", "function": "f"}, ["f"]),
        ("python", {"function": "f", "context_line": "  a\t= 1  "}, ["f", "a = 1"]),
        ("python", {"function": "f", "context_line": "x" * 121}, ["f"]),
        ("go", {"function": "f", "context_line": "a = 1"}, ["f"]),
        ("ruby", {"function": "block in f"}, ["block"]),
        ("ruby", {"function": "_x_erb__123456_7890"}, ["_x_erb"]),
        ("php", {"function": "[Anonymous function]", "filename": "a.php"}, ["a.php"]),
        ("php", {"function": "class@anonymous\0/a.php:3$0::run"}, ["run"]),
        ("java", {"function": "lambda$f$0", "module": "a.B"}, ["a.B"]),
        ("java", {"function": "f", "module": "a.B$$Lambda$17/0x01"}, ["f"]),
        ("java", {"function": "f", "module": "a.B$$Lambda$1", "filename": "B.java"}, ["b.java", "f"]),
        ("java", {"function": "f", "module": "B$$EnhancerByCGLIB$$1f2e_3"}, ["B$$EnhancerByCGLIB$$<auto>", "f"]),
        ("java", {"function": "f", "module": "a.B_$$_javassist_seam_7"}, ["a.B_$$_javassist<auto>", "f"]),
        ("java", {"function": "f", "filename": "B_$$_javassist_7.java"}, ["b_$$_javassist<auto>.java", "f"]),
        ("java", {"module": "sun.reflect.GeneratedMethodAccessor17"}, ["sun.reflect.GeneratedMethodAccessor"]),
        ("java", {"module": f"jdk.internal.{ACCESSOR}1"}, [f"jdk.internal.{ACCESSOR}"]),
        ("java", {"module": f"sun.{CONSTRUCTOR}3"}, [f"sun.{CONSTRUCTOR}<auto>"]),
        ("java", {"function": "f", "module": "my.ns$fn__1234"}, ["my.ns$fn__<auto>", "f"]),
        ("native", {"function": "<redacted>", "package": "/a/B.so"}, []),
        ("native", {"function": "ns::f(int)", "filename": "a.cpp"}, ["a.cpp", "ns::f"]),
        ("native", {"function": "f", "raw_function": "f(int)"}, ["f"]),
        ("csharp", {"function": "A.B (C c)"}, ["A.B (C c)"]),
        ("csharp", {"function": "A.B", "raw_function": "A.B (C c)"}, ["A.B (C c)"]),
        ("javascript", {"function": "Object.f", "filename": "a.js", "abs_path": "/x/a.js"}, ["a.js", "f"]),
        ("javascript", {"function": "f", "filename": "a.js", "abs_path": "https://h/a.js"}, ["f"]),
        ("javascript", {"function": "f", "filename": "a.js", "abs_path": "file:///a.js"}, ["a.js", "f"]),
        ("javascript", {"function": "f", "module": "x/a", "filename": "a.js", "abs_path": "https://h/x/a"}, ["f"]),
        ("javascript", {"function": "f", "module": "x/a", "abs_path": "/h/b"}, ["x/a", "f"]),
        ("javascript", {"function": "?", "filename": "a.js"}, ["a.js"]),
        ("javascript", {"function": "f/<", "filename": "a.js"}, ["a.js"]),
        ("javascript", {"function": "f", "context_line": "g()", "data": {"sourcemap": "a.map"}}, ["g()"]),
        ("node", {"function": None, "context_line": "g()", "abs_path": "https://h/a.js", "filename": "a.js"}, []),
        ("node", {"function": "f", "context_line": "g()", "abs_path": "https://h/a.js"}, ["f", "g()"]),
    ],
)  # fmt: skip
def test_what_counts_of_a_frame(platform: str, told: dict[str, Any], counted: list[str]) -> None:
    found = hashes(event({"in_app": True, **told}, frame("last"), platform=platform))
    assert found["system"] == md5(*counted, "last")


def test_a_frame_of_another_platform() -> None:
    told = event(frame("a.b", platform="javascript"), frame("c.d"))
    assert hashes(told)["system"] == md5("b", "c.d")


def test_evaluated_code_and_engines_do_not_count() -> None:
    told = [frame("eval", filename="a"), frame("f", abs_path="native code"), frame("g", filename="a.js")]
    assert hashes(event(*told, platform="javascript"))["system"] == md5("a.js", "g")


def test_a_lonely_script_says_nothing() -> None:
    told = {"abs_path": "https://h/a.js", "context_line": "x", "data": {"sourcemap": "m"}, "module": "m"}
    assert hashes(event(frame(None, **told), platform="javascript")) == {
        "app": None,
        "system": None,
        "fallback": md5(""),
    }


def test_recursion_counts_once_and_only_where_all_is_the_same() -> None:
    same = frame("f", lineno=1)
    found = hashes(event(same, same, same, frame("f", lineno=2), frame("g")))
    assert found["system"] == md5("f", "f", "g")


def test_the_applications_frames_and_all() -> None:
    found = hashes(event(frame("a"), frame("b", in_app=False), frame("c", in_app=None)))
    assert found == {"app": md5("a"), "system": md5("a", "b", "c")}


def test_an_application_variant_that_adds_nothing_is_left_out() -> None:
    assert hashes(event(frame("a"))) == {"app": None, "system": md5("a")}


def test_without_in_app_frames_there_is_only_the_system_variant() -> None:
    assert hashes(event(frame("a", in_app=False))) == {"app": None, "system": md5("a")}


# -- rules ------------------------------------------------------------------------------------------------------------

STACK = (frame("main"), frame("run"), frame("abort", in_app=None), frame("raise", in_app=None))


@pytest.mark.parametrize(
    ("rules", "app", "system"),
    [
        ("function:run -group", ["main"], ["main", "abort", "raise"]),
        ("function:run ^-group", ["main", "run"], ["main", "run"]),
        ("function:run v-group -group", [], ["abort", "raise"]),
        ("function:abort +app", ["main", "run", "abort"], ["main", "run", "abort", "raise"]),
        ("function:main -app", ["run"], ["main", "run", "abort", "raise"]),
        # What is put back counts even where it is not the application's own.
        ("function:raise +group", ["main", "run", "raise"], ["main", "run", "abort", "raise"]),
        ("function:main max-frames=1", ["run"], ["raise"]),
        ("function:main max-frames=3", ["main", "run"], ["run", "abort", "raise"]),
        ("function:main min-frames=3", [], ["main", "run", "abort", "raise"]),
        ("[ function:run ] | function:* -group", ["main", "run"], ["main", "run", "raise"]),
        ("function:abort category=x\n[ function:run ] | category:x -group", ["main", "run"], ["main", "run", "raise"]),
        ("type:E* function:raise -group", ["main", "run"], ["main", "run", "abort"]),
        ("type:F* function:raise -group", ["main", "run"], ["main", "run", "abort", "raise"]),
        ("mechanism:<unknown> function:raise -group", ["main", "run"], ["main", "run", "abort"]),
        ("app:no -group", ["main", "run"], ["main", "run"]),
    ],
)
def test_rules(rules: str, app: list[str], system: list[str]) -> None:
    found = hashes(crash(*STACK, type="Err"), rules)
    assert found["system"] == md5(*system, "Err")
    # Without frames, and where they are all, there is no variant of the application's.
    assert found["app"] == (md5(*app, "Err") if app not in ([], system) else None)


def test_rules_were_applied_before() -> None:
    told = frame("b", in_app=True, data={"orig_in_app": 0})
    assert hashes(event(frame("a"), told))["app"] == md5("a")
    assert hashes(event(frame("a"), frame("b", in_app=True, data={"orig_in_app": -1})))["app"] == md5("a")


def test_an_events_own_rules_come_last() -> None:
    told = event(frame("a"), frame("b"), _grouping={"enhancements": "function:b +group -app"})
    # What is put back counts in both variants, so that they are the same.
    assert hashes(told, "function:b -group") == {"app": None, "system": md5("a", "b")}
    assert hashes({**told, "_grouping": {"enhancements": "no rule"}}, "function:b -group")["system"] == md5("a")


# -- strategies -------------------------------------------------------------------------------------------------------


def test_exceptions() -> None:
    assert hashes(crash(frame("f"), type="T", value="v"))["system"] == md5("f", "T")
    only = {"platform": "other", "exception": {"values": [{"type": "T", "value": "v 1"}]}}
    assert hashes(only) == {"app": md5("T", "v <int>")}
    assert hashes(crash(frame(None), type="T", value="v 1"))["system"] == md5("T", "v <int>")


def test_exceptions_without_value_or_type() -> None:
    assert hashes({"platform": "other", "exception": {"values": [{"value": "v"}]}}) == {"app": md5("v")}
    assert hashes({"platform": "other", "exception": {"values": [{"type": "T"}]}}) == {"app": md5("T")}
    assert hashes({"platform": "other", "exception": {"values": []}}) == {"fallback": md5("")}


def test_synthetic_exceptions_and_errors_of_apple() -> None:
    assert hashes(crash(frame("f"), type="T", mechanism={"type": "x", "synthetic": True}))["system"] == md5("f")
    meta = {"ns_error": {"domain": "D", "code": 7}}
    assert hashes(crash(frame("f"), type="T", value="v", mechanism={"type": "x", "meta": meta}))["system"] == md5(
        "fTD7"
    )
    told = {"platform": "cocoa", "exception": {"values": [{"type": "T", "value": "v", "mechanism": {"meta": meta}}]}}
    assert hashes(told) == {"app": md5("T", "D7")}


def test_chains_of_exceptions() -> None:
    first = {"type": "A", "value": "x", "stacktrace": {"frames": [frame("f", in_app=False)]}}
    second = {"type": "B", "stacktrace": {"frames": [frame("g")]}}
    found = hashes({"platform": "other", "exception": {"values": [first, second, None]}})
    assert found["system"] == md5("fAgB")
    assert found["app"] == md5("AxgB")  # What has no stack in a variant has its value instead.


def test_of_a_chain_only_variants_with_a_stack_count() -> None:
    chain = [{"type": "A", "value": "x"}, {"type": "B", "stacktrace": {"frames": [frame("g", in_app=False)]}}]
    found = hashes({"platform": "other", "exception": {"values": chain}})
    assert found == {"app": None, "system": md5("gB")}


@pytest.mark.parametrize(
    ("threads", "counted"),
    [
        ([{"crashed": True}, {"current": True}], 0),
        ([{}, {"current": True}], 1),
        ([{}], 0),
        ([{}, {}], None),
        ([{"crashed": True}, {"crashed": True}], None),
    ],
)
def test_threads(threads: list[dict[str, Any]], counted: int | None) -> None:
    told = [{**t, "stacktrace": {"frames": [frame(f"f{i}")]}} for i, t in enumerate(threads)]
    found = hashes({"platform": "other", "threads": {"values": told}})
    wanted = {"app": None, "fallback": md5("")} if counted is None else {"app": None, "system": md5(f"f{counted}")}
    assert found == wanted


def test_a_thread_without_a_stack() -> None:
    assert hashes({"platform": "other", "threads": {"values": [{"crashed": True}]}}) == {
        "app": None,
        "fallback": md5(""),
    }


def test_the_first_strategy_that_says_something_wins() -> None:
    told = {**crash(frame("f"), type="T"), **event(frame("g")), "logentry": {"formatted": "m"}}
    assert hashes(told) == {"app": None, "system": md5("fT"), "default": None}
    told["exception"] = {"values": [{}]}
    assert hashes(told) == {"app": None, "system": md5("g"), "default": None}
    del told["stacktrace"]
    assert hashes(told) == {"app": None, "default": md5("m")}


def test_messages_and_templates() -> None:
    both = {"platform": "other", "logentry": {"message": "a %s", "formatted": "a 1"}}
    assert hashes(both) == {"default": md5("a %s")}
    assert hashes({"platform": "other", "logentry": {"formatted": "a 1"}}) == {"default": md5("a <int>")}
    assert hashes({"platform": "other", "logentry": {}}) == {"default": md5("")}
    assert hashes({"platform": "other", "template": {"filename": "A.html", "context_line": "{% x %}"}}) == {
        "default": md5("A.html", "{% x %}")
    }
    assert hashes({"platform": "other", "template": {}}) == {"default": None, "fallback": md5("")}


@pytest.mark.parametrize(
    ("report", "values"),
    [
        ({"csp": {"effective_directive": "img-src", "blocked_uri": "https://h.example/a"}}, ["img-src", "h.example"]),
        (
            {"csp": {"effective_directive": "img-src", "blocked_uri": "ftp://h.example/a"}},
            ["img-src", "ftp://h.example"],
        ),
        ({"csp": {"effective_directive": "img-src", "blocked_uri": "data:x"}}, ["img-src", "data:"]),
        ({"csp": {"effective_directive": "img-src", "blocked_uri": "blob"}}, ["img-src", "blob:"]),
        ({"csp": {"effective_directive": "img-src", "blocked_uri": ""}}, ["img-src", "'self'"]),
        (
            {
                "csp": {
                    "effective_directive": "script-src",
                    "blocked_uri": "self",
                    "violated_directive": "x 'unsafe-inline'",
                }
            },
            ["script-src", "'unsafe-inline'"],
        ),
        (
            {"csp": {"effective_directive": "script-src", "blocked_uri": "", "violated_directive": "x 'unsafe-eval'"}},
            ["script-src", "'unsafe-eval'"],
        ),
        (
            {"csp": {"effective_directive": "style-src", "blocked_uri": "", "violated_directive": "x 'unsafe-eval'"}},
            ["style-src", "'self'"],
        ),
        ({"hpkp": {"hostname": "h"}}, ["hpkp", "h"]),
        ({"expectct": {"hostname": "h"}}, ["expect-ct", "h"]),
        ({"expectstaple": {"hostname": "h"}}, ["expect-staple", "h"]),
    ],
)
def test_reports_of_browsers(report: dict[str, Any], values: list[str]) -> None:
    assert hashes({"platform": "other", **report}) == {"default": md5(*values)}


# -- fingerprints -----------------------------------------------------------------------------------------------------


def test_checksums() -> None:
    digest = "0123456789abcdef" * 2
    assert hashes({"checksum": digest, **event(frame("f"))}) == {"checksum": digest}
    assert hashes({"checksum": "short"}) == {"hashed-checksum": md5("short"), "checksum": "short"}
    assert hashes({"checksum": "x" * 33}) == {"hashed-checksum": md5("x" * 33)}


def test_client_fingerprints() -> None:
    base = {**crash(frame("f"), type="T"), "transaction": "GET /", "tags": [["k", "v"]]}
    assert hashes({**base, "fingerprint": ["{{ default }}"]}) == {"app": None, "system": md5("fT")}
    custom = hashes({**base, "fingerprint": ["a", "{{ transaction }}", "{{ tags.k }}", "{{ nothing }}"]})
    assert custom == {"app": None, "system": None, "custom-fingerprint": md5("a", "GET /", "v", "{{ nothing }}")}
    assert hashes({**base, "fingerprint": ["a", "{{default}}"]}) == {"app": None, "system": md5("a", "fT")}
    assert hashes({**base, "fingerprint": ["{{ default }}", "{{ default }}"]})["system"] == md5("fTfT")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("transaction", "<no-transaction>"),
        ("message", "boom"),
        ("type", "B"),
        ("error.value", "boom"),
        ("function", "ours"),
        ("stack.abs_path", "/x/a.c"),
        ("stack.filename", "a.c"),
        ("module", "<no-module>"),
        ("package", "libx.so"),
        ("level", "error"),
        ("logger", "<no-logger>"),
        ("tags.k", "v"),
        ("tags.none", "<no-value-for-tag-none>"),
    ],
)
def test_variables(variable: str, value: str) -> None:
    ours = frame("ours", abs_path="/x/a.c", filename="a.c", package="/lib\\libx.so")
    told = {
        **crash(frame("deeper"), ours, frame("abort", in_app=False), type="B", value="boom"),
        "level": "error",
        "tags": {"k": "v"},
        "fingerprint": [f"{{{{ {variable} }}}}"],
    }
    grouping = Grouping(NEWSTYLE, RuleSet())
    assert grouping.variants(decode(json.dumps(told)))["custom-fingerprint"].values == [value]


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ("type:Err* function:f", True),
        ("type:Err* function:nothing", False),
        ("message:*WENT* ", True),
        ("value:*went*", True),
        ("function:f app:yes", True),
        ("function:f app:no", False),
        ("function:sys app:no", True),
        ("path:**/A.c", True),
        ("package:**/libx.so", True),
        ("package:/USR/lib/*", True),
        ("!logger:x level:ERR*", True),
        ("logger:x", False),
        ("tags.k:v*", True),
        ("tags.none:*", False),
        ("family:native,other", True),
        ("family:javascript", False),
        ("sdk:sentry.x", True),
        ("release:app@1.*", True),
        ("release:app@2.*", False),
        ("module:*", False),
        ("!type:Other", True),
    ],
)
def test_fingerprint_rules(rule: str, holds: bool) -> None:
    told = {
        **crash(
            frame("sys", in_app=None),
            frame("f", in_app=None, abs_path="/x/a.c", package="/usr/lib/libx.so"),
            platform="native",
            type="Error",
            value="it went wrong",
        ),
        "level": "error",
        "tags": [["k", "value"]],
        "sdk": {"name": "sentry.x"},
        "release": "app@1.2",
    }
    rules = (
        f'function:f +app\n{rule} -> "got {{{{ function }}}}" {{{{ function }}}} title="T {{{{ type }}}} {{{{ x }}}}"'
    )
    grouping = Grouping(NEWSTYLE, parse_rules(rules))
    found = decode(json.dumps(told))
    title = grouping.prepare(found)
    assert title == ("T Error {{ x }}" if holds else None)
    # The rules made f the application's own, so it is the crash's frame though both came without in_app.
    values = grouping.variants(found)
    assert ("custom-fingerprint" in values) is holds
    if holds:
        assert values["custom-fingerprint"].values == ["got {{ function }}", "f"]
    else:
        assert values["system"].hash == md5("sys", "f", "Error")


def test_frames_keep_what_in_app_was_before_rules() -> None:
    grouping = Grouping(NEWSTYLE, parse_rules("function:f +app\ntype:nothing -> x"))
    told = decode(json.dumps(crash(frame("f", in_app=False), frame("g"), type="T")))
    before = grouping.hashes(decode(json.dumps(crash(frame("f", in_app=False), frame("g"), type="T"))))
    grouping.prepare(told)
    assert grouping.hashes(told) == before == [md5("fgT")]


# -- the hierarchical configuration -----------------------------------------------------------------------------------


def depths(told: dict[str, Any], rules: str = "") -> list[str | None]:
    found = hashes(told, rules, MOBILE)
    return [h for name, h in found.items() if name.startswith("app-depth")]


def test_depths_begin_at_the_applications_last_frame() -> None:
    told = event(frame("a"), frame("b"), frame("sys", in_app=False), frame("c"), frame("sys2", in_app=False))
    assert depths(told) == [md5("c"), md5("b", "c"), md5("a", "b", "c"), md5("a", "b", "c")]
    assert hashes(told, "", MOBILE)["system"] == md5("a", "b", "sys", "c", "sys2")


def test_depths_without_the_applications_own_code() -> None:
    told = event(*[frame(n, in_app=False) for n in "abc"])
    assert depths(told) == [md5("c"), md5("bc"), md5("abc"), md5("abc")]
    # A mere prefix is not to blame where something else is.
    assert depths(told, "function:c +prefix") == [md5("b"), md5("abc"), md5("abc")]
    assert depths(told, "function:* +prefix") == [md5("abc"), md5("abc")]


def test_sentinels_come_first() -> None:
    told = event(frame("ours"), *[frame(n, in_app=False) for n in ("lock", "wait", "sys")])
    assert depths(told, "function:wait +sentinel +prefix")[:2] == [
        md5("lock", "wait"),
        md5("ours", "lock", "wait", "sys"),
    ]
    assert depths(told, "function:ours +sentinel\nfunction:wait +app")[0] == md5("wait")


def test_inverted_stacks_begin_at_the_other_end() -> None:
    told = event(frame("a"), frame("b"))
    assert depths(told)[0] == md5("b")
    assert depths(told, "function:a invert-stacktrace=1")[0] == md5("a")
    told["stacktrace"]["snapshot"] = True
    assert depths(told)[0] == md5("a")
    assert depths(told, "function:a invert-stacktrace=0")[0] == md5("b")


def test_an_empty_stack() -> None:
    assert hashes(event(), "", MOBILE) == {"app-depth-max": None, "system": None, "fallback": md5("")}


def test_what_is_the_systems_own_is_left_out() -> None:
    native = crash(
        frame("(anonymous namespace)::f", filename="a.cpp"),
        frame("<unknown>", package="C:\\W\\NTDLL.dll"),
        platform="native",
        type="EXC_BAD_ACCESS / 0x1",
        mechanism={"type": "mach"},
    )
    found = hashes(native, "", MOBILE)
    assert found["app-depth-max"] == md5("`anonymous namespace'::f", "ntdll.dll")
    assert found["system"] == md5("`anonymous namespace'::f", "ntdll.dll", "EXC_BAD_ACCESS / 0x1")


# -- explanations -----------------------------------------------------------------------------------------------------


def test_explanations_name_the_rule() -> None:
    told = crash(
        frame("main"),
        frame("main"),
        frame("run", module="m", filename="f"),
        frame("log"),
        frame("sys", in_app=False),
        type="T",
    )
    rules = "function:log -group\nfunction:run -app\nfunction:sys +group"
    variants = Grouping(NEWSTYLE, parse_rules(rules)).variants(decode(json.dumps(told)), explain=True)
    found = {c.text: (c.contributes, c.why) for c in components("app", variants["app"])}
    assert found["m | run"] == (False, "by the rule function:run -app")
    assert found["log"] == (False, "by the rule function:log -group")
    assert found["sys"] == (True, "by the rule function:sys +group")
    assert found["T"] == (True, "the exception's type")
    assert [c.contributes for c in components("app", variants["app"])][:2] == [True, False]
    system = components("system", variants["system"])
    assert md5(*(c.text.replace(" | ", "") for c in system if c.contributes)) == variants["system"].hash


@pytest.mark.corpus
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_what_is_said_to_count_is_what_was_hashed(corpus: Path, configuration: str) -> None:
    home = corpus / "grouping/sentry-2023-02"
    grouping = Grouping(configuration, load_rules(home / f"enhancement-configs/{RULES[configuration]}.txt"))
    for name, told in json.loads((home / "normalized_inputs.json").read_text()).items():
        for kind, variant in grouping.variants(convert(told), explain=True).items():
            found = components(kind, variant)
            assert all(c.why for c in found)
            if variant.kind == "component" and variant.hash is not None:
                data = b"".join(n.data for n in variant.nodes if n.contributes).decode()
                told_texts = "".join(c.text.replace(" | ", "") for c in found if c.contributes)
                # Frames that count with nothing to show are told by what is known of them.
                assert told_texts == data or any(c.text for c in found if c.contributes), name


# -- hostile input ----------------------------------------------------------------------------------------------------

trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
members = st.sampled_from(
    "platform exception threads stacktrace logentry template csp hpkp checksum fingerprint tags sdk _grouping "
    "_fingerprinting_rules values frames function in_app data mechanism meta ns_error message level".split()
)
events = st.recursive(
    trees, lambda inner: st.dictionaries(members, inner, max_size=5) | st.lists(inner, max_size=3), max_leaves=12
)


@settings(max_examples=80, deadline=None)
@given(events)
def test_any_json_has_hashes_or_is_malformed(told: Any) -> None:
    grouping = Grouping(NEWSTYLE, parse_rules("function:a -app\ntype:b -> {{ type }}"))
    data = json.dumps(told, allow_nan=False) if _finite(told) else json.dumps(str(told))
    try:
        found = decode(data)
    except Malformed:
        assert type(json.loads(data)) is not dict
        return
    grouping.prepare(found)
    assert all(type(h) is str for h in grouping.hashes(found))


def _finite(told: Any) -> bool:
    try:
        json.dumps(told, allow_nan=False)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("data", [b"", b"[", b"[]", b"1", b'"x"', b"\xff", b"[" * 100_000])
def test_what_is_no_event(data: bytes) -> None:
    with pytest.raises(Malformed):
        decode(data)


def test_events_as_clients_send_them() -> None:
    told = {
        "message": "m",
        "exception": {
            "value": "T: it failed",
            "stacktrace": {"frames": [{"filename": "https://h/x/a.js", "function": "?", "lineno": "7", "in_app": 1}]},
        },
        "tags": {"a": 1},
        "platform": 7,
    }
    found = convert(told)
    assert found.exception is not None
    (exception,) = found.exception.values or []
    assert exception is not None
    assert exception.stacktrace is not None
    assert (exception.type, exception.value) == ("T", "it failed")
    (kept,) = exception.stacktrace.frames or []
    assert kept is not None
    assert (kept.abs_path, kept.filename, kept.function) == ("https://h/x/a.js", "/x/a.js", None)
    assert (kept.lineno, kept.in_app) == (7, None)
    assert found.logentry is not None
    assert found.logentry.formatted == "m"
    assert convert({"exception": [{"type": "T"}], "threads": [1, None]}).threads is not None


def test_what_is_kept_of_frames_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from deadreckon.grouping.families.sentry import frames

    monkeypatch.setattr(frames, "MAX_FRAMES", 4)
    monkeypatch.setattr(frames, "MAX_PLATFORMS", 2)
    grouping = Grouping(NEWSTYLE, RuleSet())
    for number in range(20):
        told = event(frame(f"f{number}"), frame("g"), platform=f"p{number % 5}")
        assert grouping.hashes(decode(json.dumps(told))) == [md5(f"f{number}", "g")]
    assert sum(map(len, grouping._frames._known.values())) <= 8
