from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from deadreckon.grouping import judge
from deadreckon.grouping.fingerprint import ALGORITHM, fingerprint, group
from deadreckon.grouping.judge import default_rules, judge_of
from deadreckon.grouping.normalize import STARTERS, TERMINATORS, in_app
from deadreckon.grouping.rules import StackRules, Symbol, parse_rules
from deadreckon.model.event import Event, ExceptionInfo, Frame, Source

NATIVE = [
    ("/opt/app/bin/server", True),
    ("/opt/app/lib/libcargo.so", True),
    ("/home/libc/bin/program", True),
    ("C:\\Program Files\\App\\app.exe", True),
    ("/data/app/org.example-1/lib/arm64/libapp.so", True),
    ("/usr/lib/x86_64-linux-gnu/libc.so.6", False),
    ("/opt/app/lib/libstdc++.so.6.0.30", False),
    ("/snap/core/libc-2.23.so", False),
    ("/snap/core/ld-2.23.so", False),
    ("ld-linux-x86-64.so.2", False),
    ("C:\\Windows\\System32\\ntdll.dll", False),
    ("kernel32.dll", False),
    ("MSVCP140.dll", False),
    ("/usr/lib/system/libsystem_kernel.dylib", False),
    ("/System/Library/Frameworks/UIKit.framework/UIKit", False),
    ("/Applications/Xcode.app/Contents/iPhoneSimulator.sdk/System/Library/UIKit", False),
    ("/apex/com.android.runtime/lib64/bionic/libc.so", False),
    ("linux-gate.so", False),
    ("[vdso]", False),
]


def own(**names: str) -> bool:
    """Tell what the default rules leave of a frame that its report takes for the application's own."""
    told = {"family": "other", "function": None, "module": None, "package": None, "path": None, **names}
    rules = StackRules(default_rules().stack)
    return bool(rules.apply([rules.tests(Symbol(**told))], 1).app)  # type: ignore[arg-type]


@pytest.mark.parametrize(("package", "ours"), NATIVE)
def test_rules_and_the_short_way_agree_on_modules(package: str, ours: bool) -> None:
    assert own(family="native", package=package) is ours
    assert in_app(Frame(status="symbolicated", package=package, function="f")) is ours


def test_rules_and_the_short_way_agree_on_functions() -> None:
    rules = judge_of().rules
    for name in STARTERS | TERMINATORS:
        assert rules.apply([rules.tests(Symbol("native", name, None, "/opt/app", None))], 1).off, name


@pytest.mark.parametrize(
    ("names", "ours"),
    [
        ({"family": "native", "function": "std::vector<int>::at"}, False),
        ({"family": "native", "function": "app::std::f"}, True),
        ({"family": "native", "function": "core::option::expect_failed"}, False),
        ({"module": "java.util.HashMap"}, False),
        ({"module": "javax2.Foo"}, True),
        ({"module": "com.example.App"}, True),
        ({"module": "org.springframework.web.Servlet"}, False),
        ({"module": "kotlinx.coroutines.Job"}, False),
        ({"module": "System.Linq.Enumerable"}, False),
        ({"module": "SystemInfo.Reader"}, True),
        ({"path": "/srv/app/views.py"}, True),
        ({"path": "/srv/venv/lib/python3.11/site-packages/django/http.py"}, False),
        ({"path": "/usr/lib/python3.11/json/decoder.py"}, False),
        ({"path": "<frozen importlib._bootstrap>"}, False),
        ({"family": "javascript", "path": "https://x.org/static/app.js"}, True),
        ({"family": "javascript", "path": "webpack:///./node_modules/react/index.js"}, False),
        ({"family": "javascript", "path": "node:internal/process/task_queues"}, False),
        ({"family": "javascript", "path": "chrome-extension://abcdef/content.js"}, False),
        ({"path": "/usr/local/go/src/net/http/server.go"}, False),
        ({"path": "/home/me/go/src/example.org/app/main.go"}, True),
        ({"path": "/app/vendor/symfony/http/Kernel.php"}, False),
        ({"path": "/usr/lib/ruby/3.0.0/json.rb"}, False),
    ],
)  # fmt: skip
def test_whose_code(names: dict[str, str], ours: bool) -> None:
    assert own(**names) is ours


def test_every_default_rule_has_a_reason() -> None:
    assert all(rule.reason for rule in default_rules().stack)


def test_a_change_of_the_default_rules_is_a_new_version() -> None:
    """Groups change with the rules, so the family's name does: change both of these, and ALGORITHM."""
    text = Path(judge.__file__).with_name("default_rules.toml").read_text(encoding="utf-8")
    assert (ALGORITHM, hashlib.sha256(text.encode()).hexdigest()[:16]) == ("native128/2", "dc05abc7b1351e81")


def event(*frames: Frame, platform: str = "native") -> Event:
    exception = ExceptionInfo(type="SIGABRT", frames=list(frames))
    return Event(
        schema="", event_id="", status="ok", source=Source(format="x"), platform=platform, exceptions=[exception]
    )


def frame(function: str, package: str = "/opt/app") -> Frame:
    return Frame(status="symbolicated", function=function, package=package, in_app=True)


def counted(told: Event) -> list[str]:
    return [c.text for c in fingerprint(told).components or () if c.contributes][1:]


def test_what_runs_after_an_exception_was_thrown_does_not_count() -> None:
    names = ("abort", "app::on_terminate", "std::terminate", "__cxa_throw", "app::parse", "main")
    assert counted(event(*map(frame, names))) == ["app::parse", "main"]
    panics = (
        "app::hook",
        "rust_begin_unwind",
        "core::panicking::panic_fmt",
        "core::option::unwrap_failed",
        "app::main",
    )
    assert counted(event(*map(frame, panics))) == ["app::main"]
    go = ("main.report", "runtime.gopanic", "runtime.panicIndex", "main.index", "main.main", "runtime.main")
    frames = [Frame(status="symbolicated", function=name, in_app=True) for name in go]
    assert counted(event(*frames, platform="go")) == ["main.index", "main.main"]


def test_the_reason_of_a_rule_is_shown() -> None:
    (told,) = [c for c in fingerprint(event(frame("abort"), frame("f"))).components or () if c.text == "abort"]
    assert not told.contributes
    assert told.why == "it is how programs end, not why"


def test_rules_of_a_user() -> None:
    rules = parse_rules("function:helper* -group\nfunction:memcpy +group")
    told = event(frame("memcpy", "/lib/libc.so.6"), frame("helper_1"), frame("f"))
    found = group(told, rules).fingerprint
    assert [c.text for c in found.components or () if c.contributes] == ["SIGABRT", "memcpy", "f"]
    assert found.algorithm.startswith("native128/2+")
    assert found.algorithm != group(told, parse_rules("function:other -group")).fingerprint.algorithm
    assert "function:helper* -group" in str([c.why for c in found.components or ()])


def test_scripts_are_told_apart_by_their_files() -> None:
    def told(path: str) -> str:
        script = Frame(status="symbolicated", function="Object.render", abs_path=path, in_app=True)
        return fingerprint(event(script, platform="javascript")).id

    assert told("https://a.org/js/main.3f2a9b1c.js") == told("http://b.org/main.99aa88bb.js?v=2")
    assert told("https://a.org/js/main.js") != told("https://a.org/js/other.js")
