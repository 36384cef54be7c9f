#!/usr/bin/env python3
"""Build the native fixtures: compile, crash, take the core, convert, ask gdb.

For each variant of an architecture (``variants.py``) this compiles the programs
in ``src``, splits off their debug information, crashes them once per mode, takes
the kernel's or qemu's core of the crash, lets gdb tell the true stacks, and writes
a minidump from the core. ``MANIFEST.toml`` lists everything made and how.

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
import qemu_core
from core_to_minidump import Area, Core
from variants import ARCHITECTURES, VARIANTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from variants import Architecture, Mode, Variant

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
TRAMPOLINE_SIZE = 32

FRAME_LIMIT_REACHED = "frame limit"
"""How ``gdb_truth.py`` says that it has stopped at a stack's outer end."""

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


class BuildError(Exception):
    """A fixture could not be made, or is not what it should be."""


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
        for variant in VARIANTS[self.architecture.name]:
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
                *self.compiler(variant, compiler),
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
            "-o",
            binary,
            *objects,
            *flags,
            *LINK_FLAGS,
        )
        return binary

    def compiler(self, variant: Variant, gcc: str) -> tuple[str, ...]:
        """The command for what ``gcc`` or ``g++`` would do."""
        if not variant.compiler:
            return (self.architecture.tool(gcc),)
        return (variant.compiler, f"--target={self.architecture.compiler_prefix.rstrip('-')}")

    def install(self, variant: Variant, binary: Path, target: Path) -> None:
        """Put a binary into the tree: split, compressed or as it is."""
        built = " ".join((variant.compiler, *variant.compile_flags, *variant.link_flags)).strip()
        placed = target / binary.name
        shutil.copy2(binary, placed)
        check_neutral(placed.name, binary.read_bytes())
        if not variant.split:
            self.place(placed, variant, "executable with debug information", "program", built)
            return
        objcopy = self.architecture.tool("objcopy")
        debug = target / f"{binary.name}.debug"
        compress = ("--compress-debug-sections=zlib",) if variant.compress_debug else ()
        without = [f"--remove-section={name}" for name in variant.drop]
        run(objcopy, "--only-keep-debug", *compress, *without, binary, debug)
        debug.chmod(0o644)
        run(self.architecture.tool("strip"), "--strip-all", placed)
        run(objcopy, f"--add-gnu-debuglink={debug}", placed)
        kind = "executable, stripped" if binary.name == variant.program else "library, stripped"
        self.place(placed, variant, kind, "program", built)
        self.place(debug, variant, "debug information", "debug", built)

    def place(self, path: Path, variant: Variant, kind: str, part: str, built: str) -> None:
        """Enter a binary in the manifest, packed if the variant's are."""
        if part in variant.pack:
            packed = path.with_name(f"{path.name}.xz")
            packed.write_bytes(compressed(path.read_bytes()))
            path.unlink()
            path = packed
        self.enter(path, variant, kind, built=built)

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
        taken = self.take_core(mode, program)
        core = Core.parse(taken.path.read_bytes(), self.architecture.sysroot)
        if variant.old_context:
            core.machine = core_to_minidump.ARM64_OLD
        truth = self.ask_gdb(core, taken.path, program, taken.thread_names)
        check_truth(self.architecture, variant, mode, truth)
        if variant.beyond_stack is not None:
            core.stack_tops = stack_tops(core, truth, variant.beyond_stack)
        extra = [*stacks_left_behind(core, truth), *code_left_out(core, truth)]
        core.data = without_vdso_paths(core)
        dump = core_to_minidump.convert(core, taken.thread_names, extra, int(taken.path.stat().st_mtime))
        made = {"mode": mode.name, "core": taken.writer}
        dump_path = dumps / f"{mode.name}.dmp"
        dump_path.write_bytes(dump)
        self.enter(dump_path, variant, "minidump", **made)
        truth_path = dumps / f"{mode.name}.truth.json"
        truth_path.write_text(format_truth(truth), encoding="utf-8")
        self.enter(truth_path, variant, "truth", **made)
        if mode.name in variant.cores:
            kept = dumps / f"{mode.name}.core.xz"
            neutral = taken.original or core.data
            check_neutral(kept.name, neutral)
            kept.write_bytes(compressed(neutral))
            self.enter(kept, variant, "core", **made)
        taken.path.unlink()

    def take_core(self, mode: Mode, program: Path) -> TakenCore:
        """Crash the program in `mode`."""
        directory = program.parent
        arguments = [mode.name] if mode.name != program.name else []
        emulator = self.architecture.emulator
        trace = ""
        if emulator or self.core_source == "kernel":
            finished = subprocess.run(
                [*emulator, str(program), *arguments],
                cwd=directory,
                env={},
                capture_output=True,
                text=True,
                timeout=RUN_TIMEOUT,
                check=False,
                preexec_fn=allow_emulated_core if emulator else allow_core,
            )
            output, trace = finished.stdout, finished.stderr
        else:
            output = run(
                *(self.architecture.gdb, "-nx", "-batch"),
                *("-ex", "set startup-with-shell off", "-ex", "unset environment"),
                *(f"-ex=handle {name} nostop noprint pass" for name in mode.handled),
                *("-ex", "run", "-ex", "generate-core-file core"),
                *("--args", str(program), *arguments),
                cwd=directory,
            )
        cores = list(directory.glob("qemu_*.core" if emulator else "*core*"))
        if len(cores) != 1:
            raise BuildError(f"{program} {mode.name}: {len(cores)} cores instead of one")
        names = {int(tid): name for tid, name in re.findall(r"^thread (\d+) (\w+)$", output, re.MULTILINE)}
        if not emulator:
            return TakenCore(cores[0], names, self.core_source)
        original = cores[0].read_bytes()
        for path in (cores[0], *directory.glob("core*")):
            path.unlink()
        path = directory / "core"
        signal_info = qemu_core.fatal_signal(trace)
        path.write_bytes(qemu_core.complete(original, program, self.architecture.sysroot, signal_info))
        return TakenCore(path, names, "qemu", original)

    def ask_gdb(self, core: Core, core_path: Path, program: Path, thread_names: Mapping[int, str]) -> dict[str, Any]:
        """The true stacks, from gdb and the unstripped program."""
        answer = self.scratch / "truth.json"
        answer.unlink(missing_ok=True)
        architecture = self.architecture
        setup = [
            f"-iex=set sysroot {architecture.sysroot}",
            f"-iex=set solib-search-path {program.parent}",
            "-iex=set debuginfod enabled off",
        ]
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


def compressed(data: bytes) -> bytes:
    """`data` as an xz file, as small as it gets."""
    return lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)


# --- crashing ------------------------------------------------------------------------


@dataclass(frozen=True)
class TakenCore:
    """A core, for the converter and gdb."""

    path: Path
    thread_names: Mapping[int, str]
    writer: str
    """``kernel``, ``gdb`` or ``qemu``."""
    original: bytes | None = None
    """What qemu has written, before it was completed."""


def allow_core() -> None:
    """In the child, before it becomes the program: let the kernel write its core."""
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    Path("/proc/self/coredump_filter").write_text(COREDUMP_FILTER)


def allow_emulated_core() -> None:
    """In the child, before it becomes qemu: let it write a core, of the program but not of itself.

    qemu looks at the limit, and then dies of the signal in its turn.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    Path("/proc/self/coredump_filter").write_text("0")


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


def crashed_thread(truth: Mapping[str, Any]) -> Mapping[str, Any]:
    """The thread that crashed."""
    for thread in truth["threads"]:
        if thread["tid"] == truth["crashed_thread"]:
            return dict(thread)
    raise BuildError("gdb does not show the crashed thread")


def check_truth(architecture: Architecture, variant: Variant, mode: Mode, truth: Mapping[str, Any]) -> None:
    """Check that gdb's stack shows what the mode was written to show, and that no thread's stack breaks off."""
    crashed = crashed_thread(truth)
    frames = crashed["frames"]
    remaining = iter(frames)
    for wanted in mode.expect:
        pattern = re.compile(rf"(?<![\w~]){re.escape(wanted)}(?!\w)")
        if not any(pattern.search(frame["function"] or "") for frame in remaining):
            if crashed["unwind_stop"] == FRAME_LIMIT_REACHED:
                break
            shown = ", ".join(str(frame["function"]) for frame in frames)
            raise BuildError(f"{variant.name} {mode.name}: no {wanted} in {shown}")
    for thread in truth["threads"]:
        last = thread["frames"][-1]
        known = last["function"] is not None or last["module"] in {variant.program, *variant.libraries}
        if known and last["function"] not in architecture.outermost and thread["unwind_stop"] != FRAME_LIMIT_REACHED:
            raise BuildError(f"{variant.name} {mode.name}: the stack of {thread['name']} ends at {last['function']}")
    if mode.handled and not any(frame["signal_frame"] for frame in frames):
        raise BuildError(f"{variant.name} {mode.name}: no signal frame")


def stack_tops(core: Core, truth: Mapping[str, Any], beyond: int) -> list[int]:
    """Where to end each stack that a thread's frames lie on: `beyond` its outermost frame there."""
    tops: dict[tuple[int, Area | None], int] = {}
    for thread in truth["threads"]:
        for stack_pointer in (int(frame["sp"], 16) for frame in thread["frames"]):
            bounds = core.stack_range(stack_pointer)
            if bounds:
                key = thread["tid"], core.area_at(bounds[0])
                tops[key] = max(stack_pointer + beyond, tops.get(key, 0))
    return list(tops.values())


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


def code_left_out(core: Core, truth: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Code on a stack that is in no file: the vdso, and the page of signal trampolines that qemu has in its place."""
    ranges = set()
    for frame in (frame for thread in truth["threads"] for frame in thread["frames"]):
        pc = int(frame["pc"], 16)
        area = core.area_at(pc)
        if area is None or area.path or not area.flags & core_to_minidump.PF_X:
            continue
        if frame["module"] == core_to_minidump.VDSO_NAME:
            ranges.add((area.start, area.end))
        else:
            ranges.add((max(area.start, pc - TRAMPOLINE_SIZE), min(area.end, pc + TRAMPOLINE_SIZE)))
    return sorted(ranges)


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
    libc = run(architecture.tool("gcc"), "-print-file-name=libc.so.6").strip()
    banner = re.search(rb"GNU C Library [^\n]*", Path(libc).resolve().read_bytes())
    tools = {"compiler": architecture.tool("gcc"), "linker": architecture.tool("ld"), "debugger": architecture.gdb}
    tools |= {variant.compiler: variant.compiler for variant in VARIANTS[architecture.name] if variant.compiler}
    if architecture.emulator:
        tools["emulator"] = architecture.emulator[0]
    versions = {role: tool_version(tool) for role, tool in tools.items()}
    return {**versions, "libc": banner[0].decode() if banner else "unknown"}


def check_tools(architecture: Architecture) -> None:
    """Check that all it takes to build for a machine is installed."""
    wanted = {*architecture.tools(), *(variant.compiler for variant in VARIANTS[architecture.name])} - {""}
    missing = sorted(tool for tool in wanted if shutil.which(tool) is None)
    if architecture.loader and not Path(architecture.loader).exists():
        missing.append(architecture.loader)
    if missing:
        packages = " ".join(architecture.packages)
        raise BuildError(f"{architecture.name} needs {', '.join(missing)} (Debian: apt-get install {packages})")


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
    DEMO.write_bytes(compressed(packed.getvalue()))
    name = builder.architecture.name
    return [manifest_entry(DEMO, "demonstration", DEMO_VARIANT, name, {})]


# --- command line ----------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description="Build the native crash fixtures.")
    parser.add_argument("--arch", choices=(*ARCHITECTURES, "all"), default="x86_64")
    parser.add_argument(
        "--core-source",
        choices=("auto", "kernel", "gdb"),
        default="auto",
        help="who writes the cores (default: the kernel, where it can)",
    )
    parser.add_argument("--dump-syms", type=Path, help="Breakpad's dump_syms, to remake the Breakpad symbols")
    options = parser.parse_args(arguments)
    names = list(ARCHITECTURES) if options.arch == "all" else [options.arch]
    try:
        for name in names:
            check_tools(ARCHITECTURES[name])
        for name in names:
            with (
                tempfile.TemporaryDirectory() as scratch,
                plain_core_pattern() as detected,
                run_root(),
            ):
                core_source = detected if options.core_source == "auto" else options.core_source
                builder = Builder(ARCHITECTURES[name], Path(scratch), core_source, options.dump_syms)
                builder.build_all()
                demo = write_demo(builder) if name == "x86_64" else []
                write_manifest(builder, demo)
    except BuildError as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
