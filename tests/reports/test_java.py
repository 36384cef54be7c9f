"""Java stack traces as text: exceptions, causes, frames, and what is none."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from deadreckon import process
from deadreckon.config import ReportLimits
from deadreckon.errors import DeadreckonError, Malformed
from deadreckon.reports import Probe, detect, java

if TYPE_CHECKING:
    from deadreckon.model.crash import RawCrash

LIMITS = ReportLimits()
TRACE = """Exception in thread "main" com.acme.Failure: it broke
in two lines
\tat com.acme.Main.<init>(Main.java:12)
\tat com.acme.Main$Inner.lambda$run$0(Main.kt)
\tat java.base/java.lang.Thread.run(Thread.java:829)
\tat app//com.acme.Native.call(Native Method)
\tat com.acme.Gen$$Lambda$12/0x0000000800066840.apply(Unknown Source)
\tSuppressed: java.io.IOException: closing
\t\tat com.acme.Res.close(Res.java:5)
\t\t... 3 more
\tCaused by: java.lang.Error
\t\tat com.acme.Res.flush(Res.java:9)
Caused by: java.lang.IllegalStateException: why: because
\tat com.acme.Deep.down(Deep.java:1) ~[classes.jar:1.2.3]
\t... 12 more
"""


def read(text: str) -> list[RawCrash]:
    data = text.encode()
    form = detect(Probe(data))
    assert form is not None
    assert form.name == "java"
    return java.read(memoryview(data), LIMITS)


def frames(crash: RawCrash, number: int) -> list[tuple[object, ...]]:
    reported = [f.reported for f in crash.exceptions[number].frames or ()]
    return [(f.module, f.function, f.filename, f.lineno) for f in reported if f]


def test_a_trace() -> None:
    (crash,) = read(TRACE)
    assert (crash.platform, crash.level, crash.attributes) == ("java", "fatal", {"thread": "main"})
    assert [(e.type, e.value, e.mechanism) for e in crash.exceptions] == [
        ("java.io.IOException", "closing", "suppressed"),
        ("java.lang.Error", "", "suppressed"),
        ("com.acme.Failure", "it broke\nin two lines", "uncaught"),
        ("java.lang.IllegalStateException", "why: because", "cause"),
    ]
    assert frames(crash, 2) == [
        ("com.acme.Main", "<init>", "Main.java", 12),
        ("com.acme.Main$Inner", "lambda$run$0", "Main.kt", None),
        ("java.lang.Thread", "run", "Thread.java", 829),
        ("com.acme.Native", "call", None, None),
        ("com.acme.Gen$$Lambda$12/0x0000000800066840", "apply", None, None),
    ]
    assert frames(crash, 3) == [("com.acme.Deep", "down", "Deep.java", 1)]


def test_as_an_event() -> None:
    event = process(TRACE.encode())
    assert (event.status, event.platform, event.level) == ("ok", "java", "fatal")
    assert (event.exceptions or [])[-1].type == "java.lang.IllegalStateException"
    found = (event.exceptions or [])[2].frames or []
    assert [f.in_app for f in found] == [True, True, False, True, True]
    assert all(f.lang == "java" for f in found)
    # What was suppressed neither names nor groups a crash.
    assert (event.title or "").startswith("com.acme.Failure")


def test_several_in_a_log() -> None:
    log = f"12:00 INFO com.acme.Server starting\n{TRACE}12:01 INFO going on\njava.lang.Error: x\n\tat a.b.c(D.java:3)\n"
    assert [(c.exceptions[-1].type, c.level) for c in read(log)] == [
        ("java.lang.IllegalStateException", "fatal"),
        ("java.lang.Error", "error"),
    ]


def test_android() -> None:
    trace = (
        "FATAL EXCEPTION: OkHttp Dispatcher\nProcess: com.acme.app, PID: 77\njava.lang.Error: x\n\tat a.b.c(D.java:3)"
    )
    for prefix in ("02-03 04:05:06.999    77    79 E AndroidRuntime: ", "E/AndroidRuntime(   77): ", ""):
        (crash,) = read("".join(f"{prefix}{line}\n" for line in trace.splitlines()))
        assert (crash.process_name, crash.pid, crash.os_name, crash.level) == ("com.acme.app", 77, "Android", "fatal")
        assert crash.attributes["thread"] == "OkHttp Dispatcher"
        assert (crash.exceptions[0].type, crash.exceptions[0].value) == ("java.lang.Error", "x")


def test_lines_of_others_between_frames() -> None:
    (crash,) = read("java.lang.Error: x\n\tat a.b.c(D.java:3)\nGC freed 12 objects\n\tat a.b.d(D.java:4)\n")
    assert [f[1] for f in frames(crash, 0)] == ["c", "d"]


@pytest.mark.parametrize(
    ("above", "kind", "value"),
    [
        ("== Java Exception: java.lang.IllegalStateException: no", "java.lang.IllegalStateException", "no"),
        ("12:00:01 ERROR [main] Server - failed: java.io.IOException: gone", "java.io.IOException", "gone"),
        ("a.b.c: Problem when compiling", "a.b.c", "Problem when compiling"),
        ("UnknownException: fake", "UnknownException", "fake"),
        ("my.logger: hello\njava.lang.Error: no\nmore.of: it", "java.lang.Error", "no\nmore.of: it"),
        ("nothing of the kind", None, ""),
        ("", None, ""),
    ],
)
def test_what_stands_above(above: str, kind: str | None, value: str) -> None:
    (crash,) = read(f"{above}\n\tat a.b.c(D.java:3)\n")
    assert (crash.exceptions[0].type, crash.exceptions[0].value) == (kind, value)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("  at a.s(:foo::bar:1)", ("a", "s", ":foo::bar", 1)),
        ("  at a.t(:foo::bar:)", ("a", "t", ":foo::bar", None)),
        ("at a.b.c(Unknown Source:7)", ("a.b", "c", None, 7)),
        ("at a.b.c(SourceFile:0)", ("a.b", "c", "SourceFile", None)),
        ("at com.Test.does a thing(Test.kt:3)", ("com.Test", "does a thing", "Test.kt", 3)),
        ("at a.Blåbær.jàvà(B.java:1)", ("a.Blåbær", "jàvà", "B.java", 1)),
        ("    at Object.<anonymous> (/app/index.js:1:7)", None),
        ("    at /app/index.js:1:7", None),
        ("   at System.IO.File.Open(String path, FileMode mode)", None),
        ("   at System.Environment.get_StackTrace()", None),
        ("   at Program.Main(String args) in C:\\p.cs:line 3", None),
        ("at nowhere(Main.java:1)", None),
        ("look at a.b.c(D.java:1)", None),
        ("at a.b.c(D.java:1", None),
    ],
)
def test_frame_lines(line: str, expected: tuple[object, ...] | None) -> None:
    frame = java.parse_frame(line)
    assert (frame and (frame.module, frame.function, frame.filename, frame.lineno)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Error: x\n    at Object.<anonymous> (/app/index.js:1:7)\n    at Module._compile (node:internal:2:3)\n",
        "System.Exception: x\n   at Foo.Bar(String s) in C:\\p.cs:line 3\n   at Foo.Main()\n",
        '{"stack": "java.lang.Error\\n\\tat a.b.c(D.java:1)"}',
        'Traceback (most recent call last):\n  File "x.py", line 1\nlook at com.acme.Main(Main.java:1)\n',
    ],
)
def test_other_languages(text: str) -> None:
    form = detect(Probe(text.encode()))
    assert form is None or form.name != "java"


def test_no_frame() -> None:
    with pytest.raises(Malformed):
        java.read(memoryview(b"java.lang.Error: no frames\n"), LIMITS)


JSTACK = """2023-01-01 10:00:00
Full thread dump OpenJDK 64-Bit Server VM (17.0.2+8 mixed mode):

"main" #1 prio=5 os_prio=0 tid=0x00007f8c08012800 nid=0x1c03 waiting on condition  [0x00007f8c0f0fe000]
   java.lang.Thread.State: TIMED_WAITING (sleeping)
\tat java.lang.Thread.sleep(java.base@17.0.2/Native Method)
\tat com.acme.Main.main(Main.java:5)
\t- locked <0x00000000d6> (a com.acme.Main)
\tat com.acme.Main.run(Main.java:9)
"worker" #2 prio=5 os_prio=0 tid=0x00007f8c08012900 nid=0x1c04 runnable  [0x00007f8c0f0fe100]
   java.lang.Thread.State: RUNNABLE
\tat com.acme.Pool.take(Pool.java:7)
"""


def test_a_thread_dump_is_no_crash() -> None:
    event = process(JSTACK.encode())
    assert (event.status, event.source.format) == ("unsupported", "java")
    assert [d.message and d.message.partition(":")[0] for d in event.diagnostics or ()] == ["thread dump of HotSpot"]


def test_a_thread_dump_beside_a_crash() -> None:
    (crash,) = read(f"{JSTACK}\n{TRACE}")
    assert [e.type for e in crash.exceptions][-2:] == ["com.acme.Failure", "java.lang.IllegalStateException"]
    (crash,) = read(f"{TRACE}\n{JSTACK}")
    assert [len(e.frames or ()) for e in crash.exceptions][-2:] == [5, 1]


def test_a_long_chain_is_cut() -> None:
    text = "java.lang.Error\n" + "Caused by: java.lang.Error\n\tat a.b.c(D.java:3)\n" * 3000
    (crash,) = java.read(memoryview(text.encode()), LIMITS)
    assert len(crash.exceptions) == 1000
    assert [d.code for d in crash.diagnostics] == ["frame_limit"]


def test_mutants() -> None:
    good = TRACE.encode()
    rng = random.Random(5)
    for number in range(400):
        case = bytearray(good[: rng.randrange(len(good))] if number % 3 == 0 else good)
        for _ in range(rng.choice((1, 3, 20))):
            at = rng.randrange(len(case) + 1)
            case[at : at + rng.randrange(4)] = rng.choice(
                (b"", b"\tat ", b"(", b"\n", b"Caused by: ", rng.randbytes(2))
            )
        try:
            assert java.read(memoryview(bytes(case)), LIMITS)
        except DeadreckonError:
            pass
