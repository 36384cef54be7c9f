"""Real logs against what ClusterFuzz's tests expect of them: type, address and the frames of a crash."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from deadreckon.config import ReportLimits
from deadreckon.reports import Probe, detect, read
from deadreckon.symbols.demangle import demangle

if TYPE_CHECKING:
    from deadreckon.model.crash import RawCrash

CORPUS = Path(os.environ.get("DEADRECKON_CORPUS") or Path(__file__).parents[2] / "../shared/corpora").resolve()
FOLDER = CORPUS / "other/sanitizer"
EXPECTED = json.loads((FOLDER / "expected.json").read_text()) if FOLDER.is_dir() else {}
OURS = {"sanitizer", "go", "rust", "python", "kernel", "windbg", "gdb", "terminate"}

NO_CRASH = {"asan_in_drt_string.txt", "v8_javascript_assertion_should_pass.txt"}
"""Tests of ClusterFuzz that nothing is found: a page's text, a caught exception."""

OTHERS = {
    # ClusterFuzz decodes ARM's fault status and takes the pc for the address; the log says 00000004.
    "android_kernel_no_parens.txt": {"type", "address"},
}
ELSEWHERE = {
    # The fuzz target's name, which their bot knows and the log doesn't have.
    "oom4.txt", "v8_generic_segfault.txt", "v8_process_oom_with_asan_abrt.txt", "sanitizer_signal_abrt_unknown.txt",
    # A frame without a name is shown as its module's path there, and as "foo" where their bot replaced it.
    "centipede_stack_limit_exceeded.txt", "centipede_timeout_abrt.txt",
    # The frames of another process's tombstone, whose crash is not the one of this log.
    "unknown_crash_and_timeout.txt",
}  # fmt: skip
"""Logs whose expected frames are not in the crash itself."""


def files() -> list[str]:
    return sorted(p.name for p in FOLDER.glob("*.txt")) if FOLDER.is_dir() else []


def reading(name: str) -> list[RawCrash] | None:
    data = (FOLDER / name).read_bytes()
    form = detect(Probe(data))
    return read(form, data, ReportLimits()) if form is not None and form.name in OURS else None


def stripped(function: str) -> str:
    """Return a function as ClusterFuzz shows it: without arguments, the anonymous namespace and a Go path."""
    function = demangle(function).replace("(anonymous namespace)::", "")
    if re.match(r"[\w.-]+\.\(\*", function):
        return function
    at = function.find("(", 1)
    return (function[:at] if at > 0 else function).removeprefix("void ").strip()


def normal(text: str) -> str:
    return re.sub(r"\d+", "NUMBER", text)


@pytest.mark.corpus
@pytest.mark.parametrize("name", files())
def test_expectations(name: str) -> None:
    crashes = reading(name)
    if name in NO_CRASH:
        assert crashes is None
        return
    if crashes is None:
        pytest.skip("a log of another reader's")
    wanted = next((e for e in EXPECTED.get(name, []) if e.get("type")), None)
    if wanted is None:
        assert crashes[0].exceptions
        return
    crash = crashes[0]
    if "type" not in OTHERS.get(name, ()):
        assert crash.attributes["crash_type"] == wanted["type"]
    if wanted.get("address") and "address" not in OTHERS.get(name, ()):
        assert crash.exceptions[0].address == int(wanted["address"], 16)
    if name not in ELSEWHERE:
        check_frames(crash, wanted["state"])


def check_frames(crash: RawCrash, state: str) -> None:
    """Find the lines of a state one after the other: functions, else the message, else a source file."""
    frames = [f.reported for t in crash.threads for f in t.frames or () if f.reported]
    frames += [f.reported for e in crash.exceptions for f in e.frames or () if f.reported]
    functions = [stripped(name) for f in frames if (name := f.function or f.raw_function)]
    told = normal(" ".join(e.value for e in crash.exceptions))
    paths = {f.filename for f in frames} | {os.path.basename(crash.attributes.get("file", "").replace("\\", "/"))}
    paths |= {(f.package or "")[:80] for f in frames}
    at = 0
    for line in filter(None, state.split("\n")):
        short = line.removeprefix("void ")
        found = next((i for i in range(at, len(functions)) if _same(functions[i], short)), None)
        if found is not None:
            at = found + 1
            continue
        subject = re.fullmatch(r"Bad-cast to (.*?)(?: from (.*))?", line)
        parts = subject.groups() if subject else (line.rsplit(" in ", 1)[0],)
        said = [part for part in parts if part and part != "invalid vptr"]
        assert line == "NULL" or line in paths or all(normal(part) in told for part in said), line


def _same(function: str, line: str) -> bool:
    """ClusterFuzz cuts long names, and templates at their first bracket."""
    return function == line or (len(line) > 60 and function.startswith(line.rstrip()))


@pytest.mark.corpus
def test_enough_is_compared() -> None:
    if not files():
        pytest.skip("no corpus")
    compared = [n for n in files() if any(e.get("type") for e in EXPECTED.get(n, [])) and reading(n)]
    assert len(compared) > 140
