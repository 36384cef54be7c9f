"""Write down every thread's stack as gdb sees it.

Runs inside gdb, on a core and the executable with its debug information::

    DEADRECKON_TRUTH=truth.json gdb -nx -batch -x gdb_truth.py crashy core

Frames are listed innermost first. Inlined calls, tail calls known from call site
entries, and signal frames are frames of their own. Lines of callers are those of
the call, as gdb's ``find_sal`` gives them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import gdb  # type: ignore[import-untyped]

FRAME_LIMIT = 128
SIGNAL_FRAME_NAME = "<signal handler called>"
SETTINGS = ("backtrace past-main on", "pagination off", "width 0", "debuginfod enabled off")


def linkage_name(frame: Any) -> str | None:
    """The symbol a linker knows the frame's function by.

    A physical frame's is looked up in the symbol table. An inlined function has
    none there, so its debug information is asked, which keeps silent about
    functions without external linkage.
    """
    if frame.type() in (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME):
        function = frame.function()
        name = function.linkage_name if function is not None else None
        return name if name and name.replace(".", "_").isidentifier() else None
    at = frame.pc() - 1 if is_caller(frame) else frame.pc()
    gdb.execute("set print demangle off")
    try:
        answer = gdb.execute(f"info symbol {at:#x}", to_string=True)
    finally:
        gdb.execute("set print demangle on")
    return None if answer.startswith("No symbol") else answer.split()[0]


def is_caller(frame: Any) -> bool:
    """Whether the frame's program counter is a return address.

    It is not in the innermost frame, nor where a signal has interrupted it. A
    signal frame's is the restorer's first instruction.
    """
    newer = frame.newer()
    while newer is not None and newer.type() == gdb.INLINE_FRAME:
        newer = newer.newer()
    if newer is None or frame.type() == gdb.SIGTRAMP_FRAME:
        return False
    return bool(newer.type() != gdb.SIGTRAMP_FRAME)


def describe_frame(frame: Any) -> dict[str, Any]:
    """One frame, as the truth files hold it."""
    kind = frame.type()
    function = frame.function()
    name = function.print_name if function is not None else frame.name()
    if kind == gdb.SIGTRAMP_FRAME:
        name = SIGNAL_FRAME_NAME
    sal = frame.find_sal()
    path = sal.symtab.filename if sal.symtab else None
    return {
        "function": name,
        "symbol": linkage_name(frame),
        "file": Path(path).name if path else None,
        "path": path,
        "line": sal.line or None,
        "pc": hex(frame.pc()),
        "sp": hex(int(frame.read_register("sp")) & (1 << 64) - 1),
        "inline": kind == gdb.INLINE_FRAME,
        "tail_call": kind == gdb.TAILCALL_FRAME,
        "signal_frame": kind == gdb.SIGTRAMP_FRAME,
    }


def describe_thread(thread: Any) -> dict[str, Any]:
    """A thread's frames, and why gdb went no further."""
    thread.switch()
    frames: list[dict[str, Any]] = []
    frame = gdb.newest_frame()
    stop = "frame limit"
    while frame is not None and len(frames) < FRAME_LIMIT:
        frames.append(describe_frame(frame))
        older = frame.older()
        if older is None:
            stop = gdb.frame_stop_reason_string(frame.unwind_stop_reason())
        frame = older
    return {"tid": thread_id(thread), "frames": frames, "unwind_stop": stop}


def thread_id(thread: Any) -> int:
    """The kernel's id of a thread."""
    process, light_weight, _ = thread.ptid
    return int(light_weight or process)


def main() -> None:
    """Describe the inferior and write the result to $DEADRECKON_TRUTH."""
    for setting in SETTINGS:
        gdb.execute("set " + setting)
    crashed = thread_id(gdb.selected_thread())
    threads = sorted(gdb.selected_inferior().threads(), key=thread_id)
    fault = "(unsigned long)$_siginfo._sifields._sigfault.si_addr"
    result = {
        "crashed_thread": crashed,
        "signal": int(gdb.parse_and_eval("$_siginfo.si_signo")),
        "signal_code": int(gdb.parse_and_eval("$_siginfo.si_code")),
        "fault_address": hex(int(gdb.parse_and_eval(fault))),
        "threads": [describe_thread(thread) for thread in threads],
    }
    Path(os.environ["DEADRECKON_TRUTH"]).write_text(json.dumps(result), encoding="utf-8")


main()
