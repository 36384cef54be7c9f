#!/usr/bin/env python3
"""Build the Windows fixtures: programs with PDBs, the minidumps that they write of their own crashes, and the truth.

Needs clang, lld-link, llvm-dlltool, llvm-readobj and llvm-symbolizer, of any LLVM from 14 on, and wine; neither Windows
nor an SDK. On Debian::

    apt-get install clang lld llvm wine wine64 wine32:i386

Where wine32 can't be installed, unpack i386's libwine, wine32, libunwind8 and liblzma5 into one directory, put i386's
zlib1.dll (libz-mingw-w64) beside wine's other libraries for Windows there, and name it with ``--wine32``.

What is made lies beside the sources in ``windows``, all of it compressed: for each architecture and variant
``ferry.exe``, ``winch.dll`` and their PDBs, and in ``dumps`` a minidump and its truth for each mode. A truth has the
exception and the crashed thread's frames, innermost first, as the program itself noted them, with llvm-symbolizer's
functions, files and lines. For ARM64, which nothing here can run, it is ``unwind.json``: each function's unwind
information as llvm-readobj reads it. Programs are the same in every build; addresses in dumps are not.

The programs are built and run in ``/deadreckon``, which is made and removed: this needs root.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import lzma
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HERE = Path(__file__).resolve().parent / "windows"
SOURCES = HERE / "src"
BUILD_ROOT = Path("/deadreckon")
WINDOWS_ROOT = r"C:\deadreckon\ferry"
TOOLS = ("clang", "lld-link", "llvm-dlltool", "llvm-readobj", "llvm-symbolizer")
PROGRAMS = {"ferry.exe": ("ferry", "modes", "tide"), "winch.dll": ("winch",)}
FLAGS = (
    "-std=gnu11",
    "-g",
    "-gcodeview",
    "-nostdinc",
    "-ffreestanding",
    "-fno-stack-protector",
    f"-fdebug-compilation-dir={WINDOWS_ROOT}",
    "-Wall",
    "-Wextra",
    "-Werror",
)
TRIES = 3
WROTE_DUMP = 99
"""The program's exit code after it has written its dump."""


class BuildError(Exception):
    """A tool failed, or what was made is not what it should be."""


@dataclass(frozen=True)
class Architecture:
    """A machine to build for."""

    target: str
    machine: str
    dlltool: str
    flags: tuple[str, ...] = ()
    link_flags: tuple[str, ...] = ()
    decorated: bool = False
    """Names of the system's functions end in the size of their arguments."""


ARCHITECTURES = {
    "x86_64": Architecture("x86_64-pc-windows-msvc", "x64", "i386:x86-64", ("-funwind-tables",)),
    "x86": Architecture("i686-pc-windows-msvc", "x86", "i386", link_flags=("/safeseh:no",), decorated=True),
    "arm64": Architecture("aarch64-pc-windows-msvc", "arm64", "arm64", ("-funwind-tables",)),
}

MODES: Mapping[str, tuple[str, ...]] = {
    "aligned": ("read_gauge", "trim", "trim_tanks", "mode_aligned", "main", "start"),
    "chain": ("read_gauge", "sound", "survey", "chart", "mode_chain", "main", "start"),
    "conventions": ("read_gauge", "load_hold", "load_deck", "load_all", "mode_conventions", "main", "start"),
    "doubles": ("read_gauge", "drift", "mode_doubles", "main", "start"),
    "hold": ("read_gauge", "plot", "stow", "mode_hold", "main", "start"),
    "inlines": ("voyage", "mode_inlines", "main", "start"),
    "library": ("read_gauge", "load", "turn", "winch_lift", "mode_library", "main", "start"),
    "noreturn": ("read_gauge", "run_aground", "full_ahead", "mode_noreturn", "main", "start"),
    "null_call": ("", "give_order", "mode_null_call", "main", "start"),
    "overflow": (*("dive",) * 40,),
    "recursion": ("read_gauge", *("descend",) * 61, "mode_recursion", "main", "start"),
    "sink": ("__chkstk", *("sink",) * 40),
    "stub": ("read_gauge", "load", "turn", "winch_lower", "mode_stub", "main", "start"),
    "tail_call": ("read_gauge", "deliver", "mode_tail_call", "main", "start"),
    "thread": ("read_gauge", "sound", "survey", "chart", "navigator"),
    "vla": ("read_gauge", "plot", "plot_chart", "mode_vla", "main", "start"),
}
"""Ways to crash, and the functions that the stack begins with, innermost first."""
STEPPED = ("haul", "mode_step", "main", "start")


@dataclass(frozen=True)
class Variant:
    """A way to build the programs, and what to run then; ``steps``: how many instructions of ``haul``."""

    architecture: str
    name: str
    flags: tuple[str, ...]
    modes: tuple[str, ...] = ()
    steps: tuple[int, ...] = ()


FEW = ("aligned", "chain", "conventions", "hold", "inlines", "library", "noreturn", "recursion", "tail_call", "vla")
# Wine ends an x86_64 program that has overflowed its stack in small steps: there is no room for the exception.
ON_X86_64 = tuple(mode for mode in MODES if mode != "overflow")
FEWER = ("aligned", "inlines", "library", "recursion", "tail_call", "vla")
VARIANTS = (
    Variant("x86_64", "O2", ("-O2", "-fomit-frame-pointer"), ON_X86_64, (1, 3, 5, 26, 27, 29)),
    Variant("x86_64", "frames-O1", ("-O1", "-fno-omit-frame-pointer"), FEWER),
    Variant("x86", "O2", ("-O2", "-fomit-frame-pointer"), tuple(MODES), (1, 3, 5, 18, 31, 33)),
    Variant("x86", "frames-O1", ("-O1", "-fno-omit-frame-pointer"), FEW),
    Variant("x86", "plain-O1", ("-O1", "-fno-omit-frame-pointer", "-gline-tables-only"), ("chain", "vla")),
    Variant("arm64", "O2", ("-O2",)),
)

# --- tools ------------------------------------------------------------------------------


def tool(name: str) -> str | None:
    """Return a tool's path, with Debian's version suffix where it has one; None where there is none."""
    return shutil.which(name) or next(filter(None, (shutil.which(f"{name}-{v}") for v in range(21, 13, -1))), None)


def run(name: str, *arguments: object, directory: Path) -> str:
    """Run a tool; returns what it prints. Raises BuildError."""
    command = [str(tool(name)), *map(str, arguments)]
    done = subprocess.run(command, cwd=directory, check=False, capture_output=True, text=True)
    if done.returncode:
        raise BuildError(f"{' '.join(command)}:\n{done.stderr}")
    return done.stdout


class Wine:
    """A wine of 64 or 32 bits, with a prefix of its own; ``root`` is where an unpacked one lies."""

    def __init__(self, architecture: str, directory: Path, root: Path | None) -> None:
        self.program = str(root / "usr/lib/wine/wine") if root else "wine"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "WINEPREFIX": str(directory / architecture),
            "WINEARCH": "win64" if architecture == "x86_64" else "win32",
            "WINEDEBUG": "-all",
            "WINEDLLOVERRIDES": "mscoree=;mshtml=",
        }
        self.server = "wineserver"
        if root:
            self.server = str(root / "usr/lib/wine/wineserver32")
            libraries = [str(root / base / "lib/i386-linux-gnu") for base in ("usr", "")]
            self.environment |= {"LD_LIBRARY_PATH": ":".join(libraries), "WINESERVER": self.server}

    def __call__(self, *arguments: str, directory: Path, seconds: int = 60) -> int:
        """Run a program, and return its exit code."""
        nothing = subprocess.DEVNULL
        try:
            done = subprocess.run(
                [self.program, *arguments], cwd=directory, env=self.environment, timeout=seconds, check=False,
                stdin=nothing, stdout=nothing, stderr=nothing,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise BuildError(f"{self.program} is not installed") from error
        except subprocess.TimeoutExpired:
            return -1
        return done.returncode

    def start(self, directory: Path) -> None:
        """Make the prefix."""
        self("wineboot", "-i", directory=directory, seconds=300)

    def stop(self) -> None:
        """End the server."""
        with contextlib.suppress(OSError):
            subprocess.run([shutil.which(self.server) or self.server, "-k"], env=self.environment, check=False)


# --- building ---------------------------------------------------------------------------


def import_libraries(architecture: Architecture, directory: Path) -> list[str]:
    """Make import libraries of what ``windows.h`` declares."""
    text = (SOURCES / "windows.h").read_text()
    names: dict[str, list[str]] = {"kernel32": [], "dbghelp": []}
    for name, arguments in re.findall(r"^IMPORT [^;]*?(\w+)\(([^;]*)\);", text, re.MULTILINE):
        if architecture.decorated and name.startswith("Rtl"):
            continue
        count = 0 if arguments == "void" else arguments.count(",") + 1
        suffix = f"@{4 * count}" if architecture.decorated else ""
        names["dbghelp" if name.startswith("MiniDump") else "kernel32"].append(name + suffix)
    for library, functions in names.items():
        definition = directory / f"{library}.def"
        definition.write_text(f"LIBRARY {library}.dll\nEXPORTS\n" + "".join(f"  {name}\n" for name in functions))
        options = ("-k", "-m", architecture.dlltool, "-d", definition.name, "-l", f"{library}.lib")
        run("llvm-dlltool", *options, directory=directory)
    return [f"{library}.lib" for library in names]


def build_programs(variant: Variant, directory: Path) -> None:
    """Compile and link the library and the program."""
    architecture = ARCHITECTURES[variant.architecture]
    for source in SOURCES.iterdir():
        shutil.copy(source, directory)
    target = f"--target={architecture.target}"
    for name in (name for names in PROGRAMS.values() for name in names):
        run("clang", target, *FLAGS, *architecture.flags, *variant.flags, "-c", f"{name}.c", directory=directory)
    run("clang", target, "-c", f"support_{variant.architecture}.s", "-o", "support.o", directory=directory)
    libraries = import_libraries(architecture, directory)
    common = ("/nologo", "/nodefaultlib", "/debug:full", "/Brepro", f"/machine:{architecture.machine}")
    for program, flags, inputs in (
        ("winch.dll", ("/dll", "/entry:DllMain", "/implib:winch.lib"), []),
        ("ferry.exe", ("/subsystem:console", "/entry:start"), ["support.o", "winch.lib", *libraries]),
    ):
        pdb = Path(program).with_suffix(".pdb").name
        objects = [f"{name}.o" for name in PROGRAMS[program]]
        names = (f"/out:{program}", f"/pdb:{pdb}", f"/pdbaltpath:{pdb}")
        run("lld-link", *common, *architecture.link_flags, *flags, *names, *objects, *inputs, directory=directory)


# --- truth ------------------------------------------------------------------------------


def crash(wine: Wine, directory: Path, *arguments: str) -> dict[str, list[int]]:
    """Run the program until it has crashed; returns what it wrote down."""
    for _ in range(TRIES):
        for name in ("ferry.dmp", "ferry.txt"):
            (directory / name).unlink(missing_ok=True)
        if wine("ferry.exe", *arguments, directory=directory) == WROTE_DUMP:
            break
    else:
        raise BuildError(f"ferry.exe {' '.join(arguments)} wrote no dump")
    told: dict[str, list[int]] = {}
    for line in (directory / "ferry.txt").read_text().splitlines():
        key, value = line.split()
        told.setdefault(key, []).append(int(value, 16))
    return told


class Images:
    """Where the programs lie in memory, and what a symbolizer says of places in them."""

    def __init__(self, told: Mapping[str, Sequence[int]], directory: Path) -> None:
        self.directory = directory
        self.spans = {}
        for name in PROGRAMS:
            header = run("llvm-readobj", "--file-headers", name, directory=directory)
            size = re.search(r"SizeOfImage: (\d+)", header)
            self.spans[name] = range(told[name][0], told[name][0] + int(size[1] if size else 0))

    def module(self, address: int) -> str | None:
        """Return which of the programs an address is in."""
        return next((name for name, span in self.spans.items() if address in span), None)

    def frames(self, pcs: Sequence[int]) -> list[dict[str, Any]]:
        """Describe the frames with these program counters; all but the first are return addresses."""
        frames: list[dict[str, Any]] = []
        asked: dict[str, list[int]] = {name: [] for name in self.spans}
        for depth, pc in enumerate(pcs):
            name = self.module(pc - bool(depth))
            frames.append({"pc": hex(pc), "module": name, "places": []})
            if name:
                asked[name].append(pc - bool(depth) - self.spans[name].start)
        answers = {name: symbolized(name, offsets, self.directory) for name, offsets in asked.items() if offsets}
        for depth, frame in enumerate(frames):
            if name := frame["module"]:
                frame["places"] = answers[name][pcs[depth] - bool(depth) - self.spans[name].start]
        return frames


def symbolized(name: str, offsets: Sequence[int], directory: Path) -> dict[int, list[list[Any]]]:
    """Ask for [function, file, line] of offsets in an image, inlined calls first."""
    unique = sorted(set(offsets))
    options = ("--inlines", "--relative-address", "--output-style=JSON", f"--obj={name}")
    asked = run("llvm-symbolizer", *options, *map(hex, unique), directory=directory)
    found = {}
    answers = [json.loads(line) for line in asked.splitlines()]
    answers = [one for each in answers for one in (each if isinstance(each, list) else [each])]
    for offset, answer in zip(unique, answers, strict=True):
        places = [[s["FunctionName"] or None, s["FileName"] or None, s["Line"] or None] for s in answer["Symbol"]]
        found[offset] = [place for place in places if place[0]]
    return found


def truth(told: Mapping[str, list[int]], expected: Sequence[str], directory: Path) -> dict[str, Any]:
    """Tell the crashed thread's frames, from the one at fault to the first function of the thread.

    Where the system's unwinder has walked the stack too, the two must agree.
    """
    images = Images(told, directory)
    noted = list(reversed(told["return"]))
    outer = next(i for i, address in enumerate(noted) if images.module(address) is None)
    pcs = [told["pc"][0], *noted[: outer + 1]]
    frames = images.frames(pcs)
    if "walk" in told:
        if told["walk"][: len(pcs)] != pcs:
            raise BuildError(f"the system walks {[hex(a) for a in told['walk']]}, noted were {[hex(a) for a in pcs]}")
        for frame, stack_pointer in zip(frames, told["sp"], strict=False):
            frame["sp"] = hex(stack_pointer)
    for wanted, frame in zip(expected, frames, strict=False):
        function = frame["places"][-1][0] if frame["places"] else ""
        if function.lstrip("_") != wanted.lstrip("_"):  # x86 has an underscore more, the symbolizer one less.
            raise BuildError(f"{function} at {frame['pc']}, expected {wanted}")
    return {
        "thread": told["thread"][0],
        "code": hex(told["code"][0]),
        "information": [hex(value) for value in told.get("information", ())],
        "frames": frames,
    }


def unwind_truth(directory: Path) -> dict[str, Any]:
    """Tell each function's unwind operations, as llvm-readobj reads them: the prologue's, in its order of execution."""
    found = {}
    for name in PROGRAMS:
        text = run("llvm-readobj", "--unwind", name, directory=directory)
        functions = []
        for part in text.split("RuntimeFunction {")[1:]:
            start = re.search(r"Function: (?:\S+ \()?(0x[0-9A-F]+)", part)
            length = re.search(r"FunctionLength: (\d+)", part)
            functions.append(
                {
                    "start": int(start[1], 16) if start else None,
                    "length": int(length[1]) if length else None,
                    "text": [line.strip() for line in part.splitlines() if line.strip()],
                }
            )
        found[name] = functions
    return found


# --- what is committed ---------------------------------------------------------------------


def check_neutral(name: str, data: bytes) -> None:
    """Check that `data` tells nothing about the machine it was made on."""
    paths = {f"{path}/" for path in (HERE.parent, HERE.parent.parent, Path.home(), tempfile.gettempdir())}
    for path in paths:
        for spelled in (path, path.replace("/", "\\")):
            for encoding in ("utf-8", "utf-16-le"):
                if spelled.encode(encoding) in data:
                    raise BuildError(f"{name} contains {spelled}")


def pack(source: Path, target: Path) -> None:
    """Put a file into the fixtures, compressed."""
    data = source.read_bytes()
    check_neutral(source.name, data)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))


def format_truth(found: Mapping[str, Any]) -> str:
    """The truth as JSON, a frame to a line."""
    head = "".join(f" {json.dumps(k)}: {json.dumps(v)},\n" for k, v in found.items() if k != "frames")
    frames = ",\n".join(f"  {json.dumps(frame)}" for frame in found["frames"])
    return f'{{\n{head} "frames": [\n{frames}\n ]\n}}\n'


def build(variant: Variant, wine: Wine | None, target: Path) -> None:
    """Make a variant's fixtures."""
    directory = BUILD_ROOT / "ferry"
    directory.mkdir()
    build_programs(variant, directory)
    shutil.rmtree(target, ignore_errors=True)
    for program in PROGRAMS:
        for name in (program, Path(program).with_suffix(".pdb").name):
            pack(directory / name, target / f"{name}.xz")
    runs: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = [(mode, (mode,), MODES[mode]) for mode in variant.modes]
    runs += [(f"step-{steps:02}", ("step", str(steps)), STEPPED) for steps in variant.steps]
    for name, arguments, expected in runs:
        if wine is None:
            break
        try:
            found = truth(crash(wine, directory, *arguments), expected, directory)
        except BuildError as error:
            raise BuildError(f"{variant.architecture} {variant.name} {name}: {error}") from error
        pack(directory / "ferry.dmp", target / "dumps" / f"{name}.dmp.xz")
        (target / "dumps" / f"{name}.truth.json").write_text(format_truth(found))
    if not runs:
        (target / "unwind.json").write_text(json.dumps(unwind_truth(directory)) + "\n")
    shutil.rmtree(directory)


@contextlib.contextmanager
def build_directory() -> Iterator[None]:
    """Make the neutral directory, and remove it after."""
    try:
        BUILD_ROOT.mkdir()
    except OSError as error:
        raise BuildError(f"cannot make {BUILD_ROOT}: {error.strerror}") from error
    try:
        yield
    finally:
        shutil.rmtree(BUILD_ROOT, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build into the fixtures, or elsewhere."""
    parser = argparse.ArgumentParser(description="Build the Windows fixtures.")
    parser.add_argument("--output", type=Path, default=HERE, help="directory for what is made (default: windows)")
    parser.add_argument("--arch", choices=tuple(ARCHITECTURES), action="append", help="(default: all)")
    parser.add_argument("--wine32", type=Path, help="where wine32 was unpacked, if it is not installed")
    options = parser.parse_args(arguments)
    if lacking := [name for name in TOOLS if tool(name) is None]:
        print(f"not installed: {', '.join(lacking)}", file=sys.stderr)
        return 2
    try:
        with build_directory():
            for architecture in options.arch or ARCHITECTURES:
                root = options.wine32.resolve() if options.wine32 and architecture == "x86" else None
                if root:  # Under a neutral name, which dumps may show.
                    (BUILD_ROOT / "root").symlink_to(root)
                    root = BUILD_ROOT / "root"
                wine = Wine(architecture, BUILD_ROOT, root) if architecture != "arm64" else None
                try:
                    if wine:
                        wine.start(BUILD_ROOT)
                    for variant in VARIANTS:
                        if variant.architecture == architecture:
                            build(variant, wine, options.output.resolve() / architecture / variant.name)
                finally:
                    if wine:
                        wine.stop()
    except BuildError as error:
        print(f"build_windows.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
