"""The house rules that a machine can check: floors, who may import numba, no printing below the command line."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from deadreckon.errors import DIAGNOSTIC_CODES

SRC = Path(__file__).parent.parent / "src" / "deadreckon"
FILES = sorted(SRC.rglob("*.py"))

FLOORS = [
    {"model", "config", "errors", "telemetry"},
    {"kernels"},
    {"wire"},
    {"objects"},
    {"reports"},
    {"symbols"},
    {"analysis", "unwind", "symbolicate", "grouping"},
    {"inputs", "describe", "stacks"},
    {"engine", "ingest"},
    {"worker"},
    {"adapters"},
    {"arguments"},
    {"cli"},
]
FLOOR = {name: level for level, names in enumerate(FLOORS) for name in names}


def imports(path: Path) -> set[str]:
    """Return every dotted module a file imports at any depth, type-checking imports left out: they cost nothing."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found.update(f"{node.module}.{a.name}" for a in node.names)
    return found


def room(dotted: str) -> str | None:
    parts = dotted.split(".")
    return parts[1] if parts[0] == "deadreckon" and len(parts) > 1 and parts[1] in FLOOR else None


@pytest.mark.parametrize("path", FILES, ids=[str(p.relative_to(SRC)) for p in FILES])
def test_imports_go_downward(path: Path) -> None:
    relative = path.relative_to(SRC)
    here = relative.parts[0].removesuffix(".py")
    if here in {"__init__", "__main__"}:
        return
    assert here in FLOOR, f"{relative} is on no floor"
    for name in imports(path):
        there = room(name)
        if there is not None and there != here:
            assert FLOOR[there] < FLOOR[here] or FLOOR[here] == 0, f"{relative} imports {name}, which is not below it"


def test_only_kernels_import_numba() -> None:
    users = {p.relative_to(SRC).parts[0] for p in FILES if any(i.split(".")[0] == "numba" for i in imports(p))}
    assert users == {"kernels"}


def test_no_cycle_between_files() -> None:
    names = {".".join(("deadreckon", *p.relative_to(SRC).with_suffix("").parts)): p for p in FILES}
    names = {n.removesuffix(".__init__"): p for n, p in names.items()}
    top = {n: {i for i in top_imports(p, set(names)) if i in names} for n, p in names.items()}
    done: set[str] = set()
    while ready := {n for n in top if n not in done and top[n] <= done}:
        done |= ready
    assert set(top) - done == set()


def top_imports(path: Path, modules: set[str]) -> set[str]:
    """Return what is imported when the file is loaded; of a package that a name is a module of, that module."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found.update(a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            inner = {f"{node.module}.{a.name}" for a in node.names}
            found |= inner & modules or {node.module or ""}
    return found


def test_only_the_command_line_prints() -> None:
    for path in FILES:
        if path.name != "cli.py":
            calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
            assert not [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"], path


def test_files_are_of_a_readable_length() -> None:
    lengths = {str(p.relative_to(SRC)): len(p.read_text().splitlines()) for p in FILES}
    assert {name for name, length in lengths.items() if length > 500} == set()


def test_every_diagnostic_code_is_registered() -> None:
    """A code is a promise to whoever counts them; grep finds them, so they are written out where they are used."""
    used = {m[1] for p in FILES for m in re.finditer(r"(?:code=|Diagnostic\(\s*)\"(\w+)\"", p.read_text())}
    assert used <= set(DIAGNOSTIC_CODES)
    written = "".join(p.read_text() for p in FILES)
    # Once in the registry, and once where it is used: as a diagnostic's code or as an error's.
    assert [c for c in DIAGNOSTIC_CODES if written.count(f'"{c}"') < 2] == []
