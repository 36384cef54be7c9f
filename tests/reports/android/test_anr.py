"""Thread dumps of an ANR: processes, threads, Java and native frames, locks and waiting channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from deadreckon import Engine, process
from deadreckon.config import ReportLimits
from deadreckon.errors import LimitExceeded, Malformed
from deadreckon.reports import Probe, detect
from deadreckon.reports.android import anr

if TYPE_CHECKING:
    from pathlib import Path

    from deadreckon.model.crash import RawCrash
    from deadreckon.model.event import Frame

LIMITS = ReportLimits()
DUMP = """Subject: Input dispatching timed out (server is not responding)

----- pid 500 at 2024-02-03 04:05:06.789012345+0100 -----
Cmd line: com.acme.app
Build fingerprint: 'acme/phone/phone:14/UQ1A.240105.004/11206848:user/release-keys'
ABI: 'arm64'
suspend all histogram:	Sum: 1.2ms

DALVIK THREADS (3):
"main" prio=5 tid=1 Blocked
  | group="main" sCount=1 ucsCount=0 flags=1 obj=0x72a985e0 self=0xb400007cabc57380
  | sysTid=500 nice=-10 cgrp=top-app sched=0/0 handle=0x7deceb74f8
  | held mutexes=
  at com.acme.Main$2.run(Main.java:177)
  - waiting to lock <0x0d3a2f0a> (a java.lang.Object) held by thread 9
  - locked <0x0d3a2f0b> (a java.lang.Object)
  at android.os.Handler.handleCallback(Handler.java:942)
  at java.lang.reflect.Method.invoke(Native method)

"Signal Catcher" daemon prio=10 tid=6 Runnable
  | sysTid=510 nice=-20 cgrp=top-app sched=0/0 handle=0x7b2021bcb0
  native: #00 pc 000000000053a6e0  /apex/com.android.art/lib64/libart.so (art::Dump(int)+8) (BuildId: e24a1818231cfb16)
  native: #01 pc 00000000000530b8  /apex/com.android.runtime/lib64/bionic/libc.so (__start_thread+64) (BuildId: 0133)
  (no managed stack frames)

"named "oddly" (a thread)" prio=5 tid=9 Native (still starting up)
  | held mutexes=

----- end 500 -----

----- Waiting Channels: pid 500 at 2024-02-03 04:05:06.000000000+0100 -----
Cmd line: com.acme.app

sysTid=500       futex_wait_queue_me
sysTid=510     state=R    0
sysTid=777       do_epoll_wait

----- end 500 -----

----- pid 600 at 2024-02-03 04:05:07.000000000+0100 -----
Cmd line: /system/bin/mediaserver
ABI: 'arm64'

"mediaserver" sysTid=600
    #00 pc 000000000004c35c  /apex/com.android.runtime/lib64/bionic/libc.so (syscall+28) (BuildId: 0133)

----- end 600 -----
"""


def read(text: str) -> list[RawCrash]:
    data = text.encode()
    form = detect(Probe(data))
    assert form is not None
    assert form.name == "anr"
    return anr.read(memoryview(data), LIMITS)


def short(frames: list[Frame] | None) -> list[tuple[object, ...]]:
    return [(f.module or f.package, f.function, f.lineno or f.rva, f.in_app) for f in frames or ()]


def test_what_a_dump_becomes() -> None:
    with Engine() as engine:
        app, media = engine.process_all(DUMP.encode())
    assert (app.status, app.level, app.platform, app.arch) == ("ok", "error", "java", "arm64")
    assert (app.timestamp, app.message) == (
        "2024-02-03T03:05:06Z",
        "Input dispatching timed out (server is not responding)",
    )
    assert app.os is not None
    assert (app.os.name, app.os.version, app.os.build) == ("Android", "14", "UQ1A.240105.004")
    assert app.process is not None
    assert (app.process.name, app.process.pid) == ("com.acme.app", 500)
    assert [(e.type, e.mechanism, e.thread_id) for e in app.exceptions or ()] == [("ANR", "anr", 500)]
    threads = [(t.id, t.name, t.crashed) for t in app.threads or ()]
    assert threads == [(500, "main", True), (510, "Signal Catcher", False), (0, 'named "oddly" (a thread)', False)]
    stacks = [short(t.frames) for t in app.threads or ()]
    assert stacks[0] == [
        ("com.acme.Main$2", "run", 177, True),
        ("android.os.Handler", "handleCallback", 942, False),
        ("java.lang.reflect.Method", "invoke", None, False),
    ]
    libc = "/apex/com.android.runtime/lib64/bionic/libc.so"
    assert stacks[1] == [
        ("/apex/com.android.art/lib64/libart.so", "art::Dump(int)", "0x53a6e0", False),
        (libc, "__start_thread", "0x530b8", False),
    ]
    assert app.attributes is not None
    assert app.attributes["locks"] == {"500": "waiting to lock <0x0d3a2f0a> (a java.lang.Object) held by thread 9"}
    assert app.attributes["thread_states"] == {"500": "Blocked", "510": "Runnable", "0": "Native"}
    assert app.attributes["waiting_channels"] == {"500": "futex_wait_queue_me", "510": "0"}
    assert [(m.code_id, m.image_addr) for m in app.modules or ()] == [("e24a1818231cfb16", None), ("0133", None)]
    assert (media.platform, [short(t.frames) for t in media.threads or ()]) == (
        "native",
        [[(libc, "syscall", "0x4c35c", False)]],
    )


def test_the_main_thread_may_have_the_processs_name() -> None:
    crash = read(DUMP.replace('"main"', '"com.acme.app"'))[0]
    assert next((t.name, t.crashed) for t in crash.threads) == ("com.acme.app", True)


def test_waiting_channels_alone() -> None:
    (crash,) = read(DUMP[DUMP.index("----- Waiting") : DUMP.index("----- pid 600")])
    assert [(t.id, t.crashed, t.frames) for t in crash.threads] == [(500, True, []), (510, False, []), (777, False, [])]
    assert crash.attributes["waiting_channels"]["777"] == "do_epoll_wait"


def test_in_logcat() -> None:
    log = "".join(f"02-03 04:05:06.999   500   510 I art     : {line}\n" for line in DUMP.splitlines())
    assert read(log)[0].threads == read(DUMP)[0].threads


def test_limits() -> None:
    (app, _) = anr.read(memoryview(DUMP.encode()), ReportLimits(max_threads=2, max_modules=1))
    assert len(app.threads) == 2
    assert "limit_exceeded" in {d.code for d in app.diagnostics}
    assert len(app.modules) == 1
    with pytest.raises(LimitExceeded):
        anr.read(memoryview(DUMP.encode()), ReportLimits(max_bytes=10))


def test_no_threads() -> None:
    with pytest.raises(Malformed):
        anr.read(memoryview(b"----- pid 500 at now -----\nCmd line: x\n----- end 500 -----\n"), LIMITS)


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("name", "threads", "modules", "top"),
    [
        ("thread_dump.txt", 29, 9, "io.sentry.samples.android.MainActivity$2.run"),
        ("thread_dump_native_only.txt", 57, 28, "syscall"),
        ("thread_dump_no_stacktrace.txt", 2, 0, "io.sentry.samples.android.MainActivity.onCreate"),
        ("thread_dump_process_name_main.txt", 2, 0, "io.sentry.samples.android.MainActivity.onCreate"),
        ("thread_dump_bad_data.txt", 498, 0, None),
    ],
)
def test_real_dumps(corpus: Path, name: str, threads: int, modules: int, top: str | None) -> None:
    event = process(corpus / "other/anr" / name)
    assert (event.status, event.source.format) == ("ok", "anr")
    assert (len(event.threads or ()), len(event.modules or ())) == (threads, modules)
    (main,) = (t for t in event.threads or () if t.crashed)
    frame = next(iter(main.frames or ()), None)
    assert (frame and f"{frame.module}.{frame.function}".removeprefix("None.")) == top
