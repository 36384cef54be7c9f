#!/usr/bin/env python3
"""Build the native fixtures: compile, crash, take the core, convert, ask gdb.

For each variant of each architecture this compiles the programs in ``src``,
splits off their debug information, crashes them once per mode, takes the
kernel's core of the crash, lets gdb tell the true stacks, and writes a minidump
from the core. ``MANIFEST.toml`` lists everything made and how.

The crashing programs run from ``/deadreckon/bin`` (so as root) with an empty
environment, and debug information names sources under ``/deadreckon/fixtures``:
nothing committed tells where it was built.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import lzma
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import core_to_minidump
from core_to_minidump import Core

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "src"
MANIFEST = HERE / "MANIFEST.toml"
DEMO = HERE / "demo" / "crash-demo.tar.xz"
TRUTH_SCRIPT = HERE / "gdb_truth.py"

RUN_ROOT = Path("/deadreckon")
SOURCE_NAME = "/deadreckon/fixtures"
CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")

COREDUMP_FILTER = "0x11"
"""Anonymous private memory and the first page of ELF files, see core(5)."""

RUN_TIMEOUT = 60
LARGE_FILE = 700_000


class BuildError(Exception):
    """A fixture could not be made, or is not what it should be."""


# --- what to build -------------------------------------------------------------------


@dataclass(frozen=True)
class Architecture:
    """A machine to build for, and the tools to do it with."""

    name: str
    compiler_prefix: str = ""
    runner: tuple[str, ...] = ()
    """Emulator and its arguments, to be put before the program."""
    gdb: str = "gdb"
    gdb_architecture: str = ""
    sysroot: Path = Path("/")
    flags: tuple[str, ...] = ()
    skip_modes: frozenset[str] = frozenset()
    """Modes that do not crash here, such as ``divide`` on ARM."""

    def tool(self, name: str) -> str:
        """The name of a compiler or binary utility for this machine."""
        return self.compiler_prefix + name


ARCHITECTURES = {
    architecture.name: architecture for architecture in (Architecture("x86_64", gdb_architecture="i386:x86-64"),)
}
"""A further architecture is a further row, and one in ``core_to_minidump.MACHINES``."""


@dataclass(frozen=True)
class Mode:
    """One way to crash."""

    name: str
    expect: tuple[str, ...]
    """Functions the crashed thread's stack must show in this order, innermost first."""
    handled: tuple[str, ...] = ()
    """Signals the program handles itself before the fatal one."""


SIGNAL_FRAME = "<signal handler called>"

CRASHY_MODES = (
    Mode("abort", ("give_up", "mode_abort", "main")),
    Mode(
        "altstack",
        (
            "abandon_ship",
            "on_fault",
            SIGNAL_FRAME,
            "read_gauge",
            "inspect_hull",
            "mode_altstack",
            "main",
        ),
        handled=("SIGSEGV",),
    ),
    Mode("assert", ("check_bearing", "mode_assert", "main")),
    Mode("bus", ("read_past_end", "mode_bus", "main")),
    Mode("cold", ("man_overboard", "steer", "mode_cold", "main")),
    Mode("divide", ("average", "mode_divide", "main")),
    Mode(
        "inlines",
        (
            "read_log",
            "distance_run",
            "advance",
            "next_fix",
            "plot_course",
            "mode_inlines",
            "main",
        ),
    ),
    Mode(
        "interrupt",
        ("read_gauge", "on_alarm", SIGNAL_FRAME, "keep_watch", "mode_interrupt", "main"),
        handled=("SIGALRM",),
    ),
    Mode("lambda", ("operator()", "operator()", "mode_lambda", "main")),
    Mode("library", ("weigh", "lift", "cargo_unload", "mode_library", "main")),
    Mode("noreturn", ("hull_breach", "run_aground", "mode_noreturn", "main")),
    Mode("null_call", ("give_order", "mode_null_call", "main")),
    Mode("operators", ("operator==", "mode_operators", "main")),
    Mode("overflow", (*("dive",) * 40, "diver")),
    Mode("recursion", (*("descend",) * 61, "mode_recursion", "main")),
    Mode(
        "signal",
        ("read_gauge", "on_hail", SIGNAL_FRAME, "hail", "mode_signal", "main"),
        handled=("SIGUSR1",),
    ),
    Mode("static_chain", ("sound", "sound_chain", "survey", "mode_static_chain", "main")),
    Mode("tail_call", ("deliver", "mode_tail_call", "main")),
    Mode("templates", ("operator*", "operator()", "fold", "longest_leg", "mode_templates", "main")),
    Mode(
        "threads",
        ("read_log", "distance_run", "advance", "operator()", "fold", "reckon", "navigator"),
    ),
    Mode("trap", ("scuttle", "mode_trap", "main")),
    Mode("virtual", ("draught", "guide", "mode_virtual", "main")),
    Mode("vla", ("plot_points", "plot_chart", "mode_vla", "main")),
    Mode("waiters", ("mode_waiters", "main")),
    Mode("wild_call", ("give_order", "mode_wild_call", "main")),
    Mode("wild_read", ("read_chart", "mode_wild_read", "main")),
)

CRASHY_SOURCES = (
    "crashy.c",
    "modes_stack.c",
    "modes_signal.c",
    "modes_cpp.cpp",
    "modes_threads.cpp",
)


@dataclass(frozen=True)
class Variant:
    """A way to build one program."""

    name: str
    program: str
    sources: tuple[str, ...]
    modes: tuple[Mode, ...]
    compile_flags: tuple[str, ...]
    link_flags: tuple[str, ...] = ("-pie",)
    libraries: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Shared libraries of our own, each with its sources."""
    split: bool = True
    """Separate the debug information, and strip the program."""
    compress_debug: bool = False
    pack_program: bool = False
    """Commit the program xz-compressed, for its size."""
    breakpad: bool = False
    cores: tuple[str, ...] = ()
    """Modes whose core is committed too."""


CARGO: Mapping[str, tuple[str, ...]] = {"libcargo.so": ("cargo.c",)}
OPTIMIZED = ("-O2", "-fomit-frame-pointer")

THROUGH_LIBC = frozenset({"abort", "altstack", "assert", "interrupt", "lambda", "signal", "waiters"})
"""Modes whose stack passes through the C library before it is back in our code; only with glibc linked in can it be
unwound from what is committed."""

OWN_MODES = tuple(mode for mode in CRASHY_MODES if mode.name not in THROUGH_LIBC)

VARIANTS = (
    Variant(
        "pie-O2",
        "crashy",
        CRASHY_SOURCES,
        OWN_MODES,
        (*OPTIMIZED, "-gdwarf-5"),
        libraries=CARGO,
        breakpad=True,
        cores=("threads",),
    ),
    Variant(
        "pie-O0",
        "crashy",
        CRASHY_SOURCES,
        OWN_MODES,
        ("-O0", "-fno-omit-frame-pointer", "-gdwarf-4"),
        libraries=CARGO,
    ),
    Variant(
        "static-O2",
        "crashy",
        (*CRASHY_SOURCES, "cargo.c"),
        CRASHY_MODES,
        (*OPTIMIZED, "-gdwarf-5"),
        link_flags=("-static-pie",),
        compress_debug=True,
        pack_program=True,
        cores=("altstack", "threads"),
    ),
    Variant(
        "plain-O1",
        "plain",
        ("plain.c",),
        (Mode("plain", ("tack", "sail", "main")),),
        ("-O1", "-gdwarf-4"),
        split=False,
    ),
)

COMMON_FLAGS = (
    "-fPIC",
    "-fasynchronous-unwind-tables",
    "-Wall",
    "-Wextra",
    "-Werror",
    f"-ffile-prefix-map={SOURCES}={SOURCE_NAME}",
)
LANGUAGE_FLAGS = {
    ".c": ("gcc", "-std=gnu17"),
    ".cpp": ("g++", "-std=c++17", "-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics"),
}
LINK_FLAGS = ("-Wl,--build-id=sha1", "-Wl,-z,relro,-z,now")

DEMO_VARIANT = "pie-O2"
DEMO_FILES = ("crashy", "crashy.debug", "dumps/templates.dmp", "dumps/threads.dmp")


# --- compiling -----------------------------------------------------------------------


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a tool, and return its standard output."""
    finished = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise BuildError(f"{' '.join(map(str, command))}\n{finished.stdout}{finished.stderr}")
    return finished.stdout


@cache
def tool_version(tool: str) -> str:
    """The first line of a tool's ``--version``."""
    return run(tool, "--version").splitlines()[0]


@dataclass
class Builder:
    """Builds the fixtures of one architecture."""

    architecture: Architecture
    scratch: Path
    core_source: str
    dump_syms: Path | None
    entries: list[dict[str, str | int]] = field(default_factory=list)

    @property
    def output(self) -> Path:
        """Where this architecture's fixtures go."""
        return HERE / "linux" / self.architecture.name

    def build_all(self) -> None:
        """Make every variant afresh."""
        for variant in VARIANTS:
            self.build_variant(variant)

    def build_variant(self, variant: Variant) -> None:
        """Make one variant: its binaries, then its dumps."""
        print(f"{self.architecture.name}/{variant.name}", flush=True)
        target = self.output / variant.name
        symbols = self.saved_symbols(variant, target)
        shutil.rmtree(target, ignore_errors=True)
        (target / "dumps").mkdir(parents=True)
        run_directory = RUN_ROOT / "bin" / self.architecture.name / variant.name
        run_directory.mkdir(parents=True)
        binaries = self.compile(variant, run_directory)
        for binary in binaries:
            self.install(variant, binary, target)
            if variant.breakpad:
                self.write_breakpad_symbols(variant, binary, target, symbols)
        for mode in variant.modes:
            if mode.name not in self.architecture.skip_modes:
                self.crash(variant, mode, binaries[0], target / "dumps")

    def compile(self, variant: Variant, directory: Path) -> list[Path]:
        """Compile and link: the program first, then its libraries."""
        program = directory / variant.program
        libraries = [
            self.link(variant, directory / name, sources, ("-shared", f"-Wl,-soname,{name}"))
            for name, sources in variant.libraries.items()
        ]
        flags = variant.link_flags
        if libraries:
            flags += (*map(str, libraries), "-Wl,-rpath,$ORIGIN")
        return [self.link(variant, program, variant.sources, flags), *libraries]

    def link(self, variant: Variant, binary: Path, sources: Sequence[str], flags: Sequence[str]) -> Path:
        """Compile `sources` and link them into `binary`."""
        objects = []
        for source in sources:
            compiler, *language = LANGUAGE_FLAGS[Path(source).suffix]
            made = self.scratch / f"{variant.name}-{source}.o"
            run(
                self.architecture.tool(compiler),
                *self.architecture.flags,
                *COMMON_FLAGS,
                *language,
                *variant.compile_flags,
                "-c",
                SOURCES / source,
                "-o",
                made,
                cwd=SOURCES,
            )
            objects.append(made)
        run(
            self.architecture.tool("gcc"),
            *self.architecture.flags,
            "-o",
            binary,
            *objects,
            *flags,
            *LINK_FLAGS,
        )
        return binary

    def install(self, variant: Variant, binary: Path, target: Path) -> None:
        """Put a binary into the tree: split, compressed or as it is."""
        built = " ".join((*variant.compile_flags, *variant.link_flags))
        placed = target / binary.name
        shutil.copy2(binary, placed)
        check_neutral(placed.name, binary.read_bytes())
        if not variant.split:
            self.enter(placed, variant, "executable with debug information", built=built)
            return
        objcopy = self.architecture.tool("objcopy")
        debug = target / f"{binary.name}.debug"
        compress = ("--compress-debug-sections=zlib",) if variant.compress_debug else ()
        run(objcopy, "--only-keep-debug", *compress, binary, debug)
        debug.chmod(0o644)
        run(self.architecture.tool("strip"), "--strip-all", placed)
        run(objcopy, f"--add-gnu-debuglink={debug}", placed)
        kind = "executable, stripped" if binary.name == variant.program else "library, stripped"
        if variant.pack_program:
            packed = target / f"{binary.name}.xz"
            packed.write_bytes(lzma.compress(placed.read_bytes(), preset=9 | lzma.PRESET_EXTREME))
            placed.unlink()
            placed = packed
        self.enter(placed, variant, kind, built=built)
        self.enter(debug, variant, "debug information", built=built)

    # Breakpad symbols

    def saved_symbols(self, variant: Variant, target: Path) -> dict[str, str]:
        """Symbol files of the last build, by module: kept when ``dump_syms`` is not at hand."""
        if self.dump_syms or not variant.breakpad:
            return {}
        return {path.stem: path.read_text() for path in target.glob("breakpad/*/*/*.sym")}

    def write_breakpad_symbols(self, variant: Variant, binary: Path, target: Path, saved: Mapping[str, str]) -> None:
        """Write a binary's Breakpad symbols in the layout of a symbol store."""
        remade = run(self.dump_syms, "-d", binary) if self.dump_syms else None
        text = remade or saved.get(binary.name, "")
        fields = text.partition("\n")[0].split()
        expected = breakpad_id(build_id(self.architecture, binary))
        if len(fields) != 5 or fields[3] != expected:
            print(f"  no Breakpad symbols for {binary.name}: run with --dump-syms")
            return
        path = target / "breakpad" / binary.name / expected / f"{binary.name}.sym"
        path.parent.mkdir(parents=True)
        path.write_text(text)
        self.enter(path, variant, "Breakpad symbols", built="dump_syms -d")

    # Crashing

    def crash(self, variant: Variant, mode: Mode, program: Path, dumps: Path) -> None:
        """Crash the program, and write dump and truth."""
        core_path, thread_names, source = self.take_core(mode, program)
        data = core_path.read_bytes()
        core = Core.parse(data, self.architecture.sysroot)
        truth = self.ask_gdb(core, core_path, program, thread_names)
        check_truth(variant, mode, truth)
        dump = core_to_minidump.convert(
            core, thread_names, stacks_left_behind(core, truth), int(core_path.stat().st_mtime)
        )
        made = {"mode": mode.name, "core": source}
        dump_path = dumps / f"{mode.name}.dmp"
        dump_path.write_bytes(dump)
        self.enter(dump_path, variant, "minidump", **made)
        truth_path = dumps / f"{mode.name}.truth.json"
        truth_path.write_text(format_truth(truth), encoding="utf-8")
        self.enter(truth_path, variant, "truth", **made)
        if mode.name in variant.cores:
            kept = dumps / f"{mode.name}.core.xz"
            neutral = without_vdso_paths(core)
            check_neutral(kept.name, neutral)
            kept.write_bytes(lzma.compress(neutral, preset=9 | lzma.PRESET_EXTREME))
            self.enter(kept, variant, "core", **made)
        core_path.unlink()

    def take_core(self, mode: Mode, program: Path) -> tuple[Path, dict[int, str], str]:
        """Crash the program in `mode`: its core, its threads' names, who wrote the core."""
        directory = program.parent
        arguments = [mode.name] if mode.name != program.name else []
        if self.core_source == "kernel":
            command = [*self.architecture.runner, str(program), *arguments]
            finished = subprocess.run(
                command,
                cwd=directory,
                env={},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                timeout=RUN_TIMEOUT,
                check=False,
                preexec_fn=allow_core,
            )
            output = finished.stdout
        else:
            output = run(
                *(self.architecture.gdb, "-nx", "-batch"),
                *("-ex", "set startup-with-shell off", "-ex", "unset environment"),
                *(f"-ex=handle {name} nostop noprint pass" for name in mode.handled),
                *("-ex", "run", "-ex", "generate-core-file core"),
                *("--args", str(program), *arguments),
                cwd=directory,
            )
        cores = list(directory.glob("*core*"))
        if len(cores) != 1:
            raise BuildError(f"{program} {mode.name}: {len(cores)} cores instead of one")
        names = re.findall(r"^thread (\d+) (\w+)$", output, re.MULTILINE)
        return cores[0], {int(tid): name for tid, name in names}, self.core_source

    def ask_gdb(self, core: Core, core_path: Path, program: Path, thread_names: Mapping[int, str]) -> dict[str, Any]:
        """The true stacks, from gdb and the unstripped program."""
        answer = self.scratch / "truth.json"
        answer.unlink(missing_ok=True)
        architecture = self.architecture
        setup = [f"-iex=set sysroot {architecture.sysroot}", "-iex=set debuginfod enabled off"]
        if architecture.gdb_architecture:
            setup.append(f"-iex=set architecture {architecture.gdb_architecture}")
        command = [architecture.gdb, "-nx", "-batch", *setup]
        finished = subprocess.run(
            [*command, "-x", str(TRUTH_SCRIPT), str(program), str(core_path)],
            env=dict(os.environ, DEADRECKON_TRUTH=str(answer), LC_ALL="C.UTF-8"),
            capture_output=True,
            text=True,
            check=False,
        )
        if not answer.is_file():
            raise BuildError(f"gdb wrote no truth: {finished.stderr}")
        said = json.loads(answer.read_text(encoding="utf-8"))
        modules = core.modules()
        for frame in (frame for thread in said["threads"] for frame in thread["frames"]):
            pc = int(frame["pc"], 16)
            module = next((m for m in modules if m.base <= pc < m.base + m.size), None)
            frame["module"] = Path(module.path).name if module else None
            frame["module_offset"] = hex(pc - module.base) if module else None
        has_address = core.fault_address is not None
        if has_address and int(said["fault_address"], 16) != core.fault_address:
            raise BuildError("gdb and the core disagree about the fault address")
        return {
            "arch": architecture.name,
            "crashed_thread": said["crashed_thread"],
            "signal": said["signal"],
            "signal_name": signal.Signals(said["signal"]).name,
            "signal_code": said["signal_code"],
            "fault_address": said["fault_address"] if has_address else None,
            "threads": [
                {
                    "tid": thread["tid"],
                    "name": thread_names.get(thread["tid"]),
                    "unwind_stop": thread["unwind_stop"],
                    "frames": thread["frames"],
                }
                for thread in said["threads"]
            ],
        }

    # Manifest

    def enter(self, path: Path, variant: Variant, kind: str, **details: str) -> None:
        """Check a file made, and enter it in the manifest."""
        data = path.read_bytes()
        check_neutral(path.name, data)
        if len(data) > LARGE_FILE:
            raise BuildError(f"{path.name}: {len(data)} bytes are too many to commit")
        self.entries.append(manifest_entry(path, kind, variant.name, self.architecture.name, details))


def build_id(architecture: Architecture, binary: Path) -> bytes:
    """A binary's GNU build id."""
    text = run(architecture.tool("readelf"), "-n", binary)
    found = re.search(r"Build ID: ([0-9a-f]+)", text)
    if not found:
        raise BuildError(f"{binary.name} has no build id")
    return bytes.fromhex(found[1])


def breakpad_id(build: bytes) -> str:
    """Breakpad's module id: the build id's first 16 bytes as a GUID, and age 0.

    The GUID's first three members are little-endian numbers, see Breakpad's
    ``FileID::ConvertIdentifierToUUIDString``.
    """
    head = build[:16].ljust(16, b"\0")
    swapped = head[3::-1] + head[5:3:-1] + head[7:5:-1] + head[8:]
    return swapped.hex().upper() + "0"


# --- crashing ------------------------------------------------------------------------


def allow_core() -> None:
    """In the child, before it becomes the program: let the kernel write its core."""
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    Path("/proc/self/coredump_filter").write_text(COREDUMP_FILTER)


@contextlib.contextmanager
def plain_core_pattern() -> Iterator[str]:
    """Have cores written to the working directory; tells who is to write them.

    Where the pattern may not be changed and is not plain already, gdb has to.
    """
    saved = CORE_PATTERN.read_text().strip()
    if re.fullmatch(r"core[\w.%]*", saved):
        yield "kernel"
        return
    try:
        CORE_PATTERN.write_text("core\n")
    except OSError:
        yield "gdb"
        return
    try:
        yield "kernel"
    finally:
        CORE_PATTERN.write_text(saved + "\n")


@contextlib.contextmanager
def run_root() -> Iterator[None]:
    """Make the neutral directory the programs run from, and remove it after."""
    try:
        RUN_ROOT.mkdir()
    except OSError as error:
        raise BuildError(f"cannot make {RUN_ROOT}: {error.strerror}") from error
    try:
        yield
    finally:
        shutil.rmtree(RUN_ROOT)


def without_vdso_paths(core: Core) -> bytes:
    """The core, with what the kernel's own build left in the vdso blanked.

    A kernel may be linked with a run path, and its vdso with it.
    """
    vdso = core.auxiliary(core_to_minidump.AT_SYSINFO_EHDR)
    area = core.area_at(vdso) if vdso else None
    if area is None:
        return core.data
    start, end = area.core_offset, area.core_offset + area.core_size
    image = re.sub(rb"(?<=\0)/[\w./+-]{4,}(?=\0)", lambda found: bytes(len(found[0])), core.data[start:end])
    return core.data[:start] + image + core.data[end:]


# --- truth ---------------------------------------------------------------------------


def crashed_frames(truth: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The frames of the crashed thread."""
    for thread in truth["threads"]:
        if thread["tid"] == truth["crashed_thread"]:
            return list(thread["frames"])
    raise BuildError("gdb does not show the crashed thread")


def check_truth(variant: Variant, mode: Mode, truth: Mapping[str, Any]) -> None:
    """Check that gdb's stack shows what the mode was written to show."""
    frames = crashed_frames(truth)
    remaining = iter(frames)
    for wanted in mode.expect:
        pattern = re.compile(rf"(?<![\w~]){re.escape(wanted)}(?!\w)")
        if not any(pattern.search(frame["function"] or "") for frame in remaining):
            shown = ", ".join(str(frame["function"]) for frame in frames)
            raise BuildError(f"{variant.name} {mode.name}: no {wanted} in {shown}")
    bottom = frames[-1]["function"]
    if bottom not in {"_start", "clone3", "clone", "__clone"}:
        raise BuildError(f"{variant.name} {mode.name}: the stack ends at {bottom}")
    if mode.handled and not any(frame["signal_frame"] for frame in frames):
        raise BuildError(f"{variant.name} {mode.name}: no signal frame")


def stacks_left_behind(core: Core, truth: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Stack memory outside the area of a thread's stack pointer.

    A handler on an alternate stack leaves the interrupted stack elsewhere.
    """
    ranges = []
    for thread in truth["threads"]:
        seen = {core.area_at(int(thread["frames"][0]["sp"], 16))}
        for frame in thread["frames"]:
            stack_pointer = int(frame["sp"], 16)
            area = core.area_at(stack_pointer)
            if area not in seen:
                seen.add(area)
                bounds = core.stack_range(stack_pointer)
                if bounds:
                    ranges.append(bounds)
    return ranges


def format_truth(truth: Mapping[str, Any]) -> str:
    """The truth as JSON, a frame to a line."""
    head = {key: value for key, value in truth.items() if key != "threads"}
    threads = []
    for thread in truth["threads"]:
        about = {key: value for key, value in thread.items() if key != "frames"}
        frames = ",\n".join(f"   {json.dumps(frame)}" for frame in thread["frames"])
        threads.append(f'  {json.dumps(about)[:-1]}, "frames": [\n{frames}\n  ]}}')
    lines = [f" {json.dumps(key)}: {json.dumps(value)},\n" for key, value in head.items()]
    return "{\n" + "".join(lines) + ' "threads": [\n' + ",\n".join(threads) + "\n ]\n}\n"


# --- manifest, demonstration, checks ----------------------------------------------------


@cache
def private_paths() -> tuple[bytes, ...]:
    """Paths of this machine that must not be found in anything committed.

    The trailing slash spares the C library's own ``/var/tmp``.
    """
    paths = {f"{path}/" for path in (HERE, HERE.parent, Path.home(), tempfile.gettempdir())}
    return tuple(
        path.encode(encoding) for path in sorted(paths) if len(path) > 1 for encoding in ("utf-8", "utf-16-le")
    )


def check_neutral(name: str, data: bytes) -> None:
    """Check that `data` tells nothing about the machine it was made on."""
    for path in private_paths():
        if path in data:
            raise BuildError(f"{name} contains {path.replace(bytes(1), b'').decode()}")


def manifest_entry(
    path: Path, kind: str, variant: str, architecture: str, details: Mapping[str, str]
) -> dict[str, str | int]:
    """A manifest entry for a file just made."""
    data = path.read_bytes()
    return {
        "path": path.relative_to(HERE).as_posix(),
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
        "kind": kind,
        "architecture": architecture,
        "variant": variant,
        **details,
    }


def toolchain(architecture: Architecture) -> dict[str, str]:
    """What an architecture's fixtures were made with."""
    libc = run(architecture.tool("gcc"), *architecture.flags, "-print-file-name=libc.so.6").strip()
    banner = re.search(rb"GNU C Library [^\n]*", Path(libc).resolve().read_bytes())
    return {
        "compiler": tool_version(architecture.tool("gcc")),
        "linker": tool_version(architecture.tool("ld")),
        "debugger": tool_version(architecture.gdb),
        "libc": banner[0].decode() if banner else "unknown",
    }


def write_manifest(builder: Builder, demo: Sequence[dict[str, str | int]]) -> None:
    """Write the manifest, keeping the entries of architectures not built now."""
    name = builder.architecture.name
    old = tomllib.loads(MANIFEST.read_text()) if MANIFEST.is_file() else {}
    toolchains = {**old.get("toolchain", {}), name: toolchain(builder.architecture)}
    kept = [entry for entry in old.get("file", []) if entry["architecture"] != name]
    lines = ["# Written by build.py. Do not edit."]
    for key in sorted(toolchains):
        lines += ["", f"[toolchain.{key}]", *toml_pairs(toolchains[key])]
    entries = [*kept, *builder.entries, *demo]
    for entry in sorted(entries, key=lambda entry: str(entry["path"])):
        lines += ["", "[[file]]", *toml_pairs(entry)]
    MANIFEST.write_text("\n".join(lines) + "\n")


def toml_pairs(table: Mapping[str, str | int]) -> list[str]:
    """``key = value`` lines. JSON's strings and integers are TOML's too."""
    return [f"{key} = {json.dumps(value)}" for key, value in table.items()]


def write_demo(builder: Builder) -> list[dict[str, str | int]]:
    """Pack the demonstration: two crashes of one program, with what explains them.

    The archive depends on its files' contents only, not on dates or owners.
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(DEMO_FILES, key=lambda name: Path(name).name):
            path = builder.output / DEMO_VARIANT / name
            data = path.read_bytes()
            member = tarfile.TarInfo(f"crash-demo/{path.name}")
            member.size = len(data)
            member.mode = 0o755 if path.name == "crashy" else 0o644
            archive.addfile(member, io.BytesIO(data))
    DEMO.parent.mkdir(exist_ok=True)
    DEMO.write_bytes(lzma.compress(packed.getvalue(), preset=9 | lzma.PRESET_EXTREME))
    name = builder.architecture.name
    return [manifest_entry(DEMO, "demonstration", DEMO_VARIANT, name, {})]


# --- command line ----------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description="Build the native crash fixtures.")
    parser.add_argument("--arch", choices=sorted(ARCHITECTURES), default="x86_64")
    parser.add_argument(
        "--core-source",
        choices=("auto", "kernel", "gdb"),
        default="auto",
        help="who writes the cores (default: the kernel, where it can)",
    )
    parser.add_argument("--dump-syms", type=Path, help="Breakpad's dump_syms, to remake the Breakpad symbols")
    options = parser.parse_args(arguments)
    try:
        with (
            tempfile.TemporaryDirectory() as scratch,
            plain_core_pattern() as detected,
            run_root(),
        ):
            core_source = detected if options.core_source == "auto" else options.core_source
            builder = Builder(ARCHITECTURES[options.arch], Path(scratch), core_source, options.dump_syms)
            builder.build_all()
            demo = write_demo(builder) if options.arch == "x86_64" else []
            write_manifest(builder, demo)
    except BuildError as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
