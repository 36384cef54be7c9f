"""Check stacks of real ELF cores against eu-stack's and gdb's: programs of this machine, stopped at random moments.

    python benchmarks/cores.py [--json] [--seed N] [--only NAME]... [--keep DIR] [--differences] [CORE...]

Each program is stopped twice: gdb's gcore writes a core while it runs; a little later SIGABRT ends it, and the kernel
writes one where ``core_pattern`` lets it. Programs that are not installed are named and left out.

A frame is its program counter, in a caller the return address; inlined functions have no frame of their own. The judge
of a thread is eu-stack, or gdb where eu-stack reports an error. ``missing`` frames are the judge's alone, ``extra``
ones ours alone, and where both have one, but not the same, it is ``wrong``. Exit status 1: less than 99 % agree.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from deadreckon import Config, Engine
from deadreckon.config import ReportLimits
from deadreckon.inputs import open_input
from deadreckon.reports import elfcore

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

REQUIRED = 0.99
COUNTS = ("agree", "missing", "extra", "wrong")
Stacks = dict[int, list[int]]
"""Program counters of each thread, innermost first, by the thread's number."""

# -- programs ----------------------------------------------------------------------------------------------------------


class Program(NamedTuple):
    """A command that runs for a while; its standard input is a file, or a pipe on which nothing comes."""

    name: str
    arguments: tuple[str, ...] = ()
    stdin: str | None = None


SCRIPTS = {
    "calls.sh": "f() { (( $1 == 0 )) || f $(( $1 - 1 )); }; while :; do f 30; done",
    "waits.sh": "g() { read line; }; f() { g; }; f; echo $line",
    "sums": "define f(n) { if (n < 2) return 1; return f(n - 1) + f(n - 2); }\nf(40)\n2 ^ 9 ^ 9\n",
    "text.awk": 'BEGIN { while (1) { s = s "aa"; gsub(/a+/, "b", s); if (length(s) > 99) s = "" } }',
    "calls.scm": "(define (f n) (if (< n 2) 1 (+ (f (- n 1)) (f (- n 2))))) (let loop () (f 25) (loop))",
    "calls.js": "function f(n) { return n < 2 ? 1 : f(n - 1) + f(n - 2) } for (;;) JSON.stringify([f(20)])",
    "text.lua": "while true do ('a'):rep(999):gsub('a+', function(s) return load('return 1')() end) end",
    "makefile": "all:\n\tsleep 99\n",
    "sorts.pl": "sub f { $_[0] < 2 || f($_[0] - 1) + f($_[0] - 2) } while (1) { f(9); @a = sort map { $_ * 7 } 1..99 }",
    "waits.pl": "sub f { $_[0] ? f($_[0] - 1) : select undef, undef, undef, 99 } f(20)",
    "clock.pl": "use Time::HiRes; 1 while Time::HiRes::time()",
    "encode.py": "import json\nwhile True: sorted(json.loads(json.dumps([str(n) * 9 for n in range(999)])))",
    "threads.py": """
import hashlib, queue, re, threading, time
def count(n): return n and count(n - 1)
def work():
    while True: hashlib.sha256(bytes(1 << 20)), count(50), re.match('(a|b)*c', 'ab' * 99)
for f in work, work, queue.Queue().get, threading.Event().wait, lambda: time.sleep(99):
    threading.Thread(target=f).start()
""",
    "sorts.rb": "2.times { Thread.new { sleep } }; loop { (1..999).map { |n| n.to_s * 9 }.sort_by { |s| s.hash } }",
    "sums.sql": "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT sum(x % 7) FROM c;",
    "calls.tcl": "proc f n { expr {$n < 2 ? 1 : [f [expr {$n - 1}]] + [f [expr {$n - 2}]]} }\nwhile 1 { f 18 }",
}
_LINES, _NOISE = ("lines1", "lines2"), "noise"
PROGRAMS = (
    Program("bash", ("calls.sh",)),
    Program("bash", ("waits.sh",)),
    Program("bc", (), "sums"),
    Program("cmake", ("-E", "sleep", "99")),
    Program("curl", ("--silent", "http://localhost:{port}/")),
    Program("find", ("/", "/", "/", "-name", "*.none")),
    Program("gawk", ("-f", "text.awk")),
    Program("gdb", ("-nx", "-q")),
    Program("gdb", ("-nx", "-batch", "-ex", "python while True: gdb.execute('help all', to_string=True)")),
    Program("git", ("diff", "--no-index", "--minimal", *_LINES)),
    Program("git", ("pack-objects", "--stdout", "--all", "--threads=2", "--window=2000", "--depth=200"), os.devnull),
    Program("guile", ("calls.scm",)),
    Program("gzip", ("-9c", *[_NOISE] * 4)),
    Program("lua5.4", ("text.lua",)),
    Program("make", ("-f", "makefile")),
    Program("mawk", ("-f", "text.awk")),
    Program("node", ("calls.js",)),
    Program("node", ("-e", "setInterval(() => {}, 10000)")),
    Program("openssl", ("speed", "-seconds", "9", "rsa4096")),
    Program("openssl", ("speed", "-seconds", "9", "-evp", "aes-256-gcm")),
    Program("perl", ("sorts.pl",)),
    Program("perl", ("waits.pl",)),
    Program("perl", ("clock.pl",)),
    Program("python3", ("encode.py",)),
    Program("python3", ("threads.py",)),
    Program("ruby", ("sorts.rb",)),
    Program("sort", ("--parallel=2", "--buffer-size=9M", *_LINES * 16)),
    Program("sqlite3", (":memory:",), "sums.sql"),
    Program("sqlite3", (":memory:",)),
    Program("ssh-keygen", ("-q", "-t", "rsa", "-b", "16384", "-N", "", "-f", "key")),
    Program("tclsh", ("calls.tcl",)),
    Program("tmux", ("-S", "tmux", "-f", os.devnull, "-D")),
    Program("vim", ("-es", "-u", "NONE", "-c", "while 1 | call sort(range(999)) | endwhile")),
    Program("xz", ("-T2", "-9c", "--block-size=4MiB"), _NOISE),
    Program("zstd", ("-T2", "-19", "-c"), _NOISE),
)
# Nobody can tell what is right in code that is generated without unwind information and without frame pointers.
_ENVIRONMENT = {"TERM": "dumb", "LC_ALL": "C", "GUILE_JIT_THRESHOLD": "-1"}


def make_material(directory: Path, rng: random.Random) -> None:
    """Write the files that the programs read."""
    for name, text in SCRIPTS.items():
        (directory / name).write_text(text)
    for name in _LINES:
        (directory / name).write_text("".join(f"{rng.randrange(5000)}\n" for _ in range(200_000)))
    if shutil.which("git"):
        lines = [f"{rng.random()}\n" for _ in range(2000)]
        for number in range(900):
            lines[rng.randrange(2000)] = f"{number}\n"
            (directory / f"file{number}").write_text("".join(lines))
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        for command in (("init", "-q"), ("add", "."), (*identity, "commit", "-q", "-m", "a")):
            subprocess.run(["git", *command], cwd=directory, check=True, capture_output=True)
    (directory / _NOISE).write_bytes(rng.randbytes(48 << 20))


def make_cores(program: Program, directory: Path, port: int, rng: random.Random) -> Iterator[tuple[str, Path]]:
    """Run a program, stop it at two random moments and yield how, and the core; nothing where it ends by itself."""
    path = shutil.which(program.name, path=os.defpath)
    if path is None:
        return
    arguments = [argument.replace("{port}", str(port)) for argument in program.arguments]
    with ExitStack() as stack:
        stdin = subprocess.PIPE if program.stdin is None else stack.enter_context((directory / program.stdin).open())
        process = subprocess.Popen(
            [path, *arguments], cwd=directory, stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, **_ENVIRONMENT}, start_new_session=True,
        )  # fmt: skip
        try:
            time.sleep(rng.uniform(0.5, 1.5))
            prefix = directory / "gcore"
            subprocess.run(["gcore", "-o", prefix, str(process.pid)], capture_output=True, check=False)
            if (core := Path(f"{prefix}.{process.pid}")).exists():
                yield "gcore", core
            time.sleep(rng.uniform(0.0, 0.5))
            if process.poll() is None:
                process.send_signal(signal.SIGABRT)
                process.wait(30)
                for core in directory.glob("core*"):
                    yield "kernel", core
        except subprocess.TimeoutExpired:
            print(f"{program.name}: SIGABRT does not end it", file=sys.stderr)
        finally:
            process.kill()
            process.communicate()


# -- stacks ------------------------------------------------------------------------------------------------------------


def images(core: Path) -> list[str]:
    """Return the files that a core's process had mapped, as far as they are here; its program comes first."""
    crash = elfcore.read(open_input(core), ReportLimits())
    entry = int(crash.attributes.get("entry_point", "0"), 16)
    modules = sorted(crash.modules, key=lambda m: not m.image_addr <= entry < m.end)
    return [m.code_file for m in modules if os.path.isfile(m.code_file)]


def eu_stack(core: Path, program: str, *options: str) -> tuple[Stacks, set[int]]:
    """Return eu-stack's stacks, and the threads of whose stacks it says that an error ended them."""
    command = ["eu-stack", "-n", "0", *options, f"--core={core}", f"--executable={program}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    stacks: Stacks = {}
    for line in done.stdout.splitlines():
        if thread := re.match(r"TID (\d+):", line):
            stacks[int(thread[1])] = []
        elif frame := re.match(r"#\d+ +0x([0-9a-f]+)", line):
            stacks[next(reversed(stacks))].append(int(frame[1], 16))
    return stacks, {int(number) for number in re.findall(r"tid (\d+)", done.stderr)}


_GDB = """
import gdb, json
stacks = {}
for thread in gdb.selected_inferior().threads():
    thread.switch()
    frame, found = gdb.newest_frame(), []
    while frame is not None and len(found) < 100000:
        if frame.type() not in (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME):
            found.append(frame.pc())
        try:
            frame = frame.older()
        except gdb.error:
            break
    stacks[thread.ptid[1] or thread.ptid[0]] = found
print("STACKS", json.dumps(stacks))
"""


def gdb(core: Path, program: str) -> Stacks:
    """Return gdb's stacks."""
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(_GDB)
        script.flush()
        settings = ("debuginfod enabled off", "backtrace past-main on", "backtrace past-entry on")
        commands = [part for setting in settings for part in ("-iex", f"set {setting}")]
        command = ["gdb", "-nx", "-batch", *commands, "-x", script.name, program, str(core)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    answer = re.search(r"^STACKS (.*)$", done.stdout, re.MULTILINE)
    return {int(number): stack for number, stack in json.loads(answer[1]).items()} if answer else {}


def deadreckon(engine: Engine, core: Path, symbols: list[str]) -> Stacks:
    """Return our stacks."""
    event = engine.process(core, symbols=symbols)
    return {
        thread.id or 0: [int(f.instruction_addr or "0", 16) for f in thread.frames or () if not f.inline]
        for thread in event.threads or ()
    }


# -- comparison --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Row:
    """What came of one core. ``counts`` are to the judge and to each peer alone; times are in seconds."""

    program: str
    core: str
    threads: int = 0
    frames: int = 0
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    differences: list[dict[str, Any]] = field(default_factory=list)

    def line(self) -> str:
        """Return the row of the printed table."""
        numbers = (self.threads, self.frames, *(self.counts["judge"][name] for name in COUNTS))
        return f"{self.program:12}{self.core:8}" + "".join(f"{number:9}" for number in numbers)


def compare(ours: list[int], theirs: list[int]) -> dict[str, int]:
    """Count the frames of one thread that agree, and those that don't; COUNTS."""
    counts = dict.fromkeys(COUNTS, 0)
    for tag, i, j, k, m in SequenceMatcher(None, theirs, ours, autojunk=False).get_opcodes():
        both = min(j - i, m - k)
        counts["agree" if tag == "equal" else "wrong"] += both
        counts["missing"] += j - i - both
        counts["extra"] += m - k - both
    return counts


def added(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Add up what ``compare`` counted."""
    listed = list(counts)
    return {name: sum(found[name] for found in listed) for name in COUNTS}


def examine(engine: Engine, row: Row, core: Path, debug: str) -> Row:
    """Compare the stacks of one core."""
    files = images(core)
    if not files:
        raise SystemExit(f"{core}: none of its files is here")
    symbols = [debug, *files] if os.path.isdir(debug) else files
    last = time.perf_counter()

    def timed(name: str) -> None:
        nonlocal last
        now = time.perf_counter()
        row.seconds[name], last = round(now - last, 4), now

    deadreckon(engine, core, symbols)
    timed("deadreckon_first")  # It makes the tables.
    ours = deadreckon(engine, core, symbols)
    timed("deadreckon")
    by_eu_stack, failed = eu_stack(core, files[0], "-q")
    timed("eu_stack_addresses")
    eu_stack(core, files[0], "-i", "-s")
    timed("eu_stack")  # Functions, files and lines, as ours.
    by_gdb = gdb(core, files[0])
    timed("gdb")
    judge = {**by_gdb, **{thread: stack for thread, stack in by_eu_stack.items() if thread not in failed}}
    for name, theirs in (("judge", judge), ("eu_stack", by_eu_stack), ("gdb", by_gdb)):
        threads = {*ours, *theirs}
        row.counts[name] = added(compare(ours.get(n, []), theirs.get(n, [])) for n in threads)
    row.threads, row.frames = len(judge), sum(map(len, judge.values()))
    for thread in sorted(n for n in {*ours, *judge} if ours.get(n) != judge.get(n)):
        stacks = {"ours": ours, "eu_stack": by_eu_stack, "gdb": by_gdb}
        shown = {name: [hex(pc) for pc in found.get(thread, [])] for name, found in stacks.items()}
        row.differences.append({"thread": thread, "eu_stack_failed": thread in failed, **shown})
    return row


def cores(options: argparse.Namespace, scratch: Path) -> Iterator[tuple[Row, Path]]:
    """Yield the cores that are named, else those of every program, one at a time: it is deleted afterwards."""
    for core in options.cores:
        yield Row(core.name, "given"), core
    if options.cores:
        return
    rng = random.Random(options.seed)  # noqa: S311
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    make_material(scratch, rng)
    with socket.create_server(("localhost", 0)) as server:
        for number, program in enumerate(PROGRAMS):
            if options.only and program.name not in options.only:
                continue
            made = 0
            for how, core in make_cores(program, scratch, server.getsockname()[1], rng):
                made += 1
                yield Row(program.name, how), core
                if options.keep is not None:
                    shutil.copy(core, options.keep / f"{number:02}-{program.name}.{how}")
                core.unlink()
            if made < 2:
                why = f"{made} of 2 cores" if shutil.which(program.name, path=os.defpath) else "not installed"
                print(f"{program.name}: {why}", file=sys.stderr)
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


def summary(rows: list[Row], seed: int) -> dict[str, Any]:
    """Add up all cores; an agreement is the share of both sides' frames that are the same."""
    counts = {name: added(row.counts[name] for row in rows) for name in rows[0].counts}
    times = {name: [row.seconds[name] for row in rows] for name in rows[0].seconds}
    return {
        "question": "frames of real cores that are those of eu-stack (of gdb where it fails), and seconds a core",
        "seed": seed,
        "cores": len(rows),
        "programs": len({row.program for row in rows}),
        "threads": sum(row.threads for row in rows),
        "frames": sum(row.frames for row in rows),
        **counts["judge"],
        "agreement": {name: round(found["agree"] / max(sum(found.values()), 1), 5) for name, found in counts.items()},
        "seconds_median": {name: round(statistics.median(found), 4) for name, found in times.items()},
        "seconds_mean": {name: round(statistics.mean(found), 4) for name, found in times.items()},
        "ours_to": {
            name: round(statistics.median(t / o for t, o in zip(found, times["deadreckon"], strict=True)), 1)
            for name, found in times.items()
            if not name.startswith("deadreckon")
        },
        "machine": {"python": platform.python_version(), "cpu": platform.machine(), "cores": os.cpu_count()},
    }


def main() -> int:
    """Make the cores, compare, print. Exit status 1 where too few frames agree."""
    parser = argparse.ArgumentParser(description="Stacks of real cores against eu-stack's and gdb's.")
    parser.add_argument("cores", nargs="*", type=Path, metavar="CORE", help="compare these, make none")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="chooses the moments; the time by default")
    parser.add_argument("--only", action="append", metavar="NAME", help="this program")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="copy the cores there")
    parser.add_argument("--differences", action="store_true", help="show stacks that are not the judge's")
    parser.add_argument("--debug", default="/usr/lib/debug", metavar="DIR", help="where separate debug files are")
    options = parser.parse_args()
    if lacking := [tool for tool in ("eu-stack", "gdb", "gcore") if shutil.which(tool) is None]:
        print(f"skipped: {', '.join(lacking)} not installed")
        return 0
    os.environ.pop("DEBUGINFOD_URLS", None)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch, Engine(Config(store=f"{scratch}/store")) as engine:
        if not options.json:
            print(f"{'program':12}{'core':8}" + "".join(f"{name:>9}" for name in ("threads", "frames", *COUNTS)))
        for row, core in cores(options, Path(scratch)):
            rows.append(examine(engine, row, core, options.debug))
            if not options.json:
                print(row.line(), flush=True)
                if options.differences and row.differences:
                    print(json.dumps(row.differences, indent=1))
    if not rows:
        print("skipped: no core could be made")
        return 0
    total = summary(rows, options.seed)
    print(json.dumps({**total, "rows": [asdict(row) for row in rows]} if options.json else total, indent=2))
    return int(total["agreement"]["judge"] < REQUIRED)


if __name__ == "__main__":
    sys.exit(main())
