#!/usr/bin/env python3
"""Build the Mach-O fixtures: a small library for Macs of both kinds, its dSYM, and what a symbolizer says of them.

Needs clang, ld64.lld, dsymutil, llvm-lipo, llvm-objdump and llvm-symbolizer, of any LLVM from 14 on, and
neither a Mac nor an SDK: the sources include nothing of the system's. What is made lies beside the sources in
``macho``: a fat ``liborchard.dylib`` (compressed), ``liborchard.dylib.dSYM``, and ``truth.json`` with the functions,
files and lines of every instruction, innermost first, as llvm-symbolizer tells them.

As root it builds in ``/deadreckon``, which it makes and removes, so that every build is the same and nothing committed
tells where it was built.
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
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE = Path(__file__).resolve().parent / "macho"
SOURCES = HERE / "src"
BUILD_ROOT = Path("/deadreckon")
SOURCE_NAME = "/deadreckon/fixtures/macho"
LIBRARY = "liborchard.dylib"
ARCHITECTURES = {"x86_64": "x86_64-apple-macos11", "arm64": "arm64-apple-macos11"}
VERSION = ("macos", "11.0", "11.0")
TOOLS = ("clang", "ld64.lld", "dsymutil", "llvm-lipo", "llvm-objdump", "llvm-symbolizer")
FLAGS = (
    "-O1",
    "-g",
    "-fPIC",
    "-nostdinc",
    "-Wno-stdlibcxx-not-found",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-fno-exceptions",
    "-fno-rtti",
)


def tool(name: str) -> str | None:
    """Return a tool's path, with Debian's version suffix where it has one; None where there is none."""
    return shutil.which(name) or next(filter(None, (shutil.which(f"{name}-{v}") for v in range(21, 13, -1))), None)


def missing() -> list[str]:
    """Return the tools that are not installed."""
    return [name for name in TOOLS if tool(name) is None]


def run(name: str, *arguments: object, directory: Path) -> str:
    """Run a tool; returns what it prints. Raises subprocess.CalledProcessError."""
    command = [str(tool(name)), *map(str, arguments)]
    return subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True).stdout


@contextlib.contextmanager
def build_directory() -> Iterator[Path]:
    """Make the neutral directory, or a temporary one where that can't be; remove it after."""
    try:
        BUILD_ROOT.mkdir()
    except OSError:
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)
        return
    try:
        yield BUILD_ROOT
    finally:
        shutil.rmtree(BUILD_ROOT)


def build_slice(arch: str, directory: Path) -> Path:
    """Compile and link for one architecture; returns the library with the debug map that dsymutil reads."""
    objects = []
    for source in sorted(SOURCES.glob("*.[cm]*")):
        made = directory / f"{source.stem}.o"
        names = (f"-ffile-prefix-map={SOURCES}={SOURCE_NAME}", f"-ffile-compilation-dir={SOURCE_NAME}")
        target = ("-target", ARCHITECTURES[arch])
        run("clang", *target, *FLAGS, *names, "-c", source, "-o", made.name, directory=directory)
        os.utime(made, (0, 0))  # The debug map has it, and with it the UUID.
        objects.append(made.name)
    options = ("-dylib", "-undefined", "dynamic_lookup", "-install_name", f"@rpath/{LIBRARY}")
    run(
        "ld64.lld", "-arch", arch, "-platform_version", *VERSION, *options, "-o", LIBRARY, *objects, directory=directory
    )
    return directory / LIBRARY


def truth(library: Path, debug: Path, arch: str, directory: Path) -> dict[str, Any]:
    """Ask for every instruction's place: {address: [[function, file, line], ...]}, and for the UUID."""
    listing = run("llvm-objdump", "--disassemble", "--no-show-raw-insn", f"--arch={arch}", library, directory=directory)
    addresses = re.findall(r"^ *([0-9a-f]+): ", listing, re.MULTILINE)
    asked = run(
        "llvm-symbolizer", "--inlines", "--output-style=JSON", f"--obj={debug}:{arch}", *(f"0x{a}" for a in addresses),
        directory=directory,
    )  # fmt: skip
    answers = [json.loads(line) for line in asked.splitlines()]
    found = {}
    for answer in [one for each in answers for one in (each if isinstance(each, list) else [each])]:
        # Line 0 says that the compiler made it up.
        places = [[s["FunctionName"], s["FileName"], s["Line"] or None] for s in answer.get("Symbol", ())]
        if places and places[0][0] and places[0][1]:
            found[answer["Address"]] = places
    told = run("llvm-objdump", "--macho", "--private-headers", f"--arch={arch}", library, directory=directory)
    uuid = re.search(r"uuid ([0-9A-Fa-f-]{36})", told)
    return {"uuid": uuid[1] if uuid else None, "addresses": found}


def build(target: Path) -> None:
    """Make all of it in a directory."""
    facts: dict[str, Any] = {}
    with build_directory() as top:
        libraries, debugs = [], []
        for arch in ARCHITECTURES:
            directory = top / arch
            directory.mkdir()
            library = build_slice(arch, directory)
            debug = directory / "debug"
            run("dsymutil", "--flat", "-o", debug, library, directory=directory)
            facts[arch] = truth(library, debug, arch, directory)
            libraries.append(library)
            debugs.append(debug)
        bundle = target / f"{LIBRARY}.dSYM" / "Contents"
        shutil.rmtree(bundle.parent, ignore_errors=True)
        place = bundle / "Resources" / "DWARF"
        place.mkdir(parents=True)
        run("llvm-lipo", "-create", *debugs, "-output", place / LIBRARY, directory=top)
        run("llvm-lipo", "-create", *libraries, "-output", top / LIBRARY, directory=top)
        packed = lzma.compress((top / LIBRARY).read_bytes(), preset=9 | lzma.PRESET_EXTREME)
        (target / f"{LIBRARY}.xz").write_bytes(packed)
    (bundle / "Info.plist").write_text(PLIST)
    (place / LIBRARY).chmod(0o644)
    (target / "truth.json").write_text(json.dumps(facts) + "\n")


PLIST = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple Computer//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
<key>CFBundleIdentifier</key><string>com.apple.xcode.dsym.liborchard.dylib</string>
<key>CFBundlePackageType</key><string>dSYM</string>
</dict>
</plist>
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Build into the fixtures, or elsewhere."""
    parser = argparse.ArgumentParser(description="Build the Mach-O fixtures.")
    parser.add_argument("--output", type=Path, default=HERE, help="directory for what is made (default: macho)")
    options = parser.parse_args(arguments)
    if lacking := missing():
        print(f"not installed: {', '.join(lacking)}", file=sys.stderr)
        return 2
    options.output.mkdir(parents=True, exist_ok=True)
    try:
        build(options.output.resolve())
    except subprocess.CalledProcessError as error:
        print(f"{' '.join(error.cmd)}:\n{error.stderr}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
