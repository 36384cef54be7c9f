"""Function names that are read from scripts' text, compared with those of symbolic's SourceMapCache.

Every position asked for is a segment's of the map; of a large map a sample. The names of both are compared as they
stand. What differs is counted by what is known of symbolic's names, the rest has to be judged by a person, for whom a
sample is printed with the script's text:

    dot     they differ in dots only: ``a.b={c(){}}`` is ``a.bc`` there
    end     the name that its map has where an anonymous function ends, which belongs to something else
    else

    python -m benchmarks.scriptnames [MAP ...] [--cache DIR] [--positions N] [--sample N] [--seed N]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import symbolic
from benchmarks import _result
from benchmarks._maps import CACHE, PACKAGES, bundles
from benchmarks._result import Answer, Result

from deadreckon.kernels import _scoping as columns
from deadreckon.kernels.positions import look_up
from deadreckon.objects import sourcemap
from deadreckon.objects.jsscopes import read_scopes

if TYPE_CHECKING:
    from deadreckon.model.tables import SourceMapTable
    from deadreckon.objects.jsscopes import FunctionScopes

NO_FUNCTION, NO_NAME = "<unknown>", "<anonymous>"
WANTED = 97.0
"""Percent of positions where names have to be equal."""
AROUND = 70


@dataclass(slots=True)
class Bundle:
    """How many positions of a bundle were compared and how many names are equal.

    ``named`` are those whose segment has a name; ``symbolics`` those for which symbolic has a function's name.
    """

    compared: Counter[str] = field(default_factory=Counter)
    equal: Counter[str] = field(default_factory=Counter)
    differ: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    """Positions of which symbolic knows nothing, though the map has a segment there."""
    examples: list[str] = field(default_factory=list)


def compare(path: Path, script_path: Path, positions: int, seed: int) -> Bundle:
    """Compare the names at a map's segments."""
    script, data = script_path.read_bytes(), path.read_bytes()
    table, functions = sourcemap.read(data), read_scopes(script)
    cache = symbolic.SourceMapCache.from_bytes(script, data)
    rows = np.arange(len(table))
    if len(rows) > positions:
        rows = np.sort(np.random.default_rng(seed).choice(len(table), positions, replace=False))
    lines = np.repeat(table.lines, np.diff(table.first))[rows].astype(np.int64)
    places = table.column[rows].astype(np.int64)
    scopes = functions.around(lines, places).tolist()
    names = functions.names(scopes, table)
    has_name = (look_up(table, lines, places).place[:, 3] >= 0).tolist()
    text = script.decode("utf-8", "replace").split("\n")
    bundle = Bundle()
    for line, column, scope, token_named in zip(lines.tolist(), places.tolist(), scopes, has_name, strict=True):
        token = cache.lookup(line + 1, column + 1, 0)
        if token is None:
            bundle.lost += 1
            continue
        name = names.get(scope)
        ours = NO_FUNCTION if scope < 0 else name.text if name is not None else NO_NAME
        theirs = token.function_name or NO_FUNCTION
        kinds = ["all", *["named"] * token_named, *["symbolics"] * (theirs not in {NO_FUNCTION, NO_NAME})]
        bundle.compared.update(kinds)
        if ours == theirs:
            bundle.equal.update(kinds)
            continue
        why = reason(ours, theirs, scope, functions, table)
        bundle.differ[why] += 1
        here = text[line][max(0, column - AROUND) : column] + "\u2038" + text[line][column : column + AROUND]
        bundle.examples.append(f"{path.name}:{line}:{column} {why}\n    ours {ours}\n    symbolic {theirs}\n    {here}")
    return bundle


def reason(ours: str, theirs: str, scope: int, functions: FunctionScopes, table: SourceMapTable) -> str:
    """Return what a difference is due to, as far as that can be told."""
    if ours.replace(".", "") == theirs.replace(".", ""):
        return "dot"
    if scope >= 0:
        line, column = functions.scopes[scope, [columns.TO_LINE, columns.TO_COLUMN]].tolist()
        found = look_up(table, [line], [column - 1])
        segment = int(found.segment[0])
        exact = segment >= 0 and int(table.column[segment]) == column - 1
        if exact and table.name(int(found.place[0, 3])) == theirs:
            return "end"
    return "else"


def main() -> int:
    """Compare all; print one JSON object, and examples on stderr. Exit 1 where too few names are equal."""
    parser = argparse.ArgumentParser(description="Function names against symbolic's.")
    parser.add_argument("maps", nargs="*", default=PACKAGES, help="files, or name@version:path of npm packages")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--positions", type=int, default=20_000, help="at most, of each map")
    parser.add_argument("--sample", type=int, default=50, help="differences to print")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    total = Bundle()
    results = {}
    for name, path, script in bundles(options.maps, options.cache):
        found = compare(path, script, options.positions, options.seed)
        results[name] = summary(found)
        total.compared += found.compared
        total.equal += found.equal
        total.differ += found.differ
        total.lost += found.lost
        total.examples += found.examples
    chosen = random.Random(options.seed).sample(total.examples, min(options.sample, len(total.examples)))  # noqa: S311
    print("\n".join(chosen), file=sys.stderr)
    print(json.dumps({"maps": results, "together": summary(total)}, indent=2))
    if options.json is not None and results:
        answers = []
        for kind, count in total.compared.items():
            share = round(100 * total.equal[kind] / count, 2)
            answers.append(Answer(f"function names, {kind}", share, share, share, "% equal to symbolic's", WANTED))
        note = f"{len(results)} maps, {sum(total.compared.values()):,} comparisons."
        checked = "every position that both name"
        question = "Are the functions' names right?"
        _result.write(options.json, Result("scriptnames", question, checked, answers, notes=[note]))
    return 0 if all(total.equal[kind] * 100 >= WANTED * total.compared[kind] for kind in total.compared) else 1


def summary(bundle: Bundle) -> dict[str, object]:
    """Return the counts, and percentages of equal names."""
    percent = {k: round(100 * bundle.equal[k] / n, 2) for k, n in bundle.compared.items()}
    return {
        "positions": dict(bundle.compared),
        "equal_percent": percent,
        "differ": dict(bundle.differ),
        "lost": bundle.lost,
    }


if __name__ == "__main__":
    sys.exit(main())
