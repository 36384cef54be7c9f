"""The store under fire: many processes, some of them killed; malformed files; a full disk."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from deadreckon.config import Config, SymbolLimits
from deadreckon.kernels.ranges import look_up
from deadreckon.symbols.builder import Builder
from deadreckon.symbols.housekeeping import check, prune
from deadreckon.symbols.store import ModuleTables, SymbolStore
from deadreckon.symbols.storefiles import read_manifest
from deadreckon.symbols.tablefile import open_table
from synth.breakpad import SymFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PIE = "linux/x86_64/pie-O2"
BUILD_ID = bytes.fromhex("bc48c1b54fe222dfd88b9aeb9359ccc0290256c4")
OBJECTS = 50


@pytest.fixture
def objects(fixtures: Path, tmp_path: Path) -> list[tuple[str, str]]:
    """Give debug files of different modules, each with its debug id: ELF with DWARF and Breakpad text by turns."""
    library = (fixtures / PIE / "libcargo.so.debug").read_bytes()
    assert library.count(BUILD_ID) == 1
    made = []
    for number in range(1, OBJECTS + 1):
        path = tmp_path / f"object-{number}"
        if number % 2:
            path.write_bytes(library.replace(BUILD_ID, number.to_bytes(16, "big") + b"\0" * 4))
            made.append((str(path), f"00000000-0000-0000-0000-0000000000{number:02x}"))
        else:
            file = SymFile(id=f"{number:032X}0")
            for at in range(200):
                file.function(0x1000 + 16 * at, 16, f"f_{number}_{at}")
            path.write_bytes(bytes(file))
            made.append((str(path), f"{number:032x}"))
    return made


IMPORTER = """
import json, random, sys, time
from pathlib import Path
from deadreckon.config import Config
from deadreckon.symbols.store import SymbolStore

me, ready, objects = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
store = SymbolStore(Config())
store.identify(objects[0][0])
(ready / me).touch()
while len(list(ready.iterdir())) < 8:
    time.sleep(0.001)
rng = random.Random(me)
turn = 0
while turn < 2 or not (ready / "enough").exists():
    turn += 1
    rng.shuffle(objects)
    for path, debug_id in objects:
        for table in store.imported(debug_id):  # Somebody else's, or none yet.
            assert len(table.sym.range_start) > 20
        added = store.add(path, tags={"by" + me: str(turn)})
        assert added.problem is None, added.problem
        (table,) = store.imported(debug_id)
        assert len(table.sym.range_start) == added.objects[0]["ranges"] > 20
        (info,) = store.tables_of(path)
        assert store.open(info["table"], path) is not None
        if rng.random() < 0.02:
            assert store.index.entries(debug_id)
    store.close()
    store = SymbolStore(Config())
"""


@pytest.mark.slow
def test_eight_processes_two_of_them_killed(
    store: Path, objects: list[tuple[str, str]], tmp_path: Path, shared_builder: Builder
) -> None:
    shared_builder.identify(objects[0][0])  # So that not each of them compiles the kernels.
    ready = tmp_path / "ready"
    ready.mkdir()
    command = [sys.executable, "-c", IMPORTER]
    workers = [
        subprocess.Popen([*command, str(n), str(ready), json.dumps(objects)], stderr=subprocess.PIPE) for n in range(8)
    ]
    while len(list(ready.iterdir())) < 8:
        time.sleep(0.005)
        assert all(w.poll() is None for w in workers)
    rng = random.Random()
    victims = rng.sample(workers, 2)
    for victim in victims:
        time.sleep(rng.uniform(0.05, 0.4))
        assert victim.poll() is None
        victim.kill()
    (ready / "enough").touch()
    for worker in workers:
        errors = worker.communicate(timeout=120)[1].decode()
        expected = -signal.SIGKILL if worker in victims else 0
        assert (worker.returncode, errors) == (expected, ""), errors

    symbols = SymbolStore(Config())
    for path, debug_id in objects:
        (table,) = symbols.imported(debug_id)
        assert len(table.sym.range_start) > 20
        assert symbols.add(path).known
    assert symbols._started is None
    entries = symbols.index.entries(kinds=["imported"])
    assert len(entries) == OBJECTS
    survivors = {f"by{n}" for n, worker in enumerate(workers) if worker not in victims}
    for entry in entries:
        assert entry.problem is None
        assert survivors <= set(entry.tags)
    old = time.time() - 10 * 86_400
    for file in store.rglob("*"):
        os.utime(file, (old, old))
    symbols.index.sync()
    assert check(symbols.index) == []
    prune(symbols.index)
    assert list((store / "tmp").iterdir()) == []
    assert [p for p in store.rglob("*") if p.is_file() and p.suffix not in {".table", ".json", ".sqlite"}] == []


def test_killed_while_it_builds(store: Path, objects: list[tuple[str, str]], shared_builder: Builder) -> None:
    """One process after the other is killed at a random moment; what it leaves is whole, and the next goes on."""
    shared_builder.identify(objects[0][0])
    code = (
        "import json, sys\n"
        "from deadreckon.config import Config\n"
        "from deadreckon.symbols.store import SymbolStore\n"
        "store = SymbolStore(Config())\n"
        "store.identify(sys.argv[1])\n"
        "print('ready', flush=True)\n"
        "for path in sys.argv[1:]:\n"
        "    store.add(path)\n"
    )
    paths = [path for path, _ in objects]
    rng = random.Random()
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", code, *paths], stdout=subprocess.PIPE) as worker:
            assert worker.stdout is not None
            worker.stdout.readline()
            time.sleep(rng.uniform(0.0, 0.15))
            worker.kill()
        for table in store.rglob("*.table"):
            assert len(open_table(table).sym.range_start) > 20
        for manifest in store.rglob("*.json"):
            assert "objects" in (read_manifest(manifest) or {})
    with contextlib.closing(SymbolStore(Config())) as symbols:
        for path in paths:
            assert symbols.add(path).problem is None
        assert len(symbols.index.entries(kinds=["imported"])) == OBJECTS


# --- Malformed files ------------------------------------------------------------------------------------------------


@pytest.fixture
def fragile(store: Path) -> Iterator[SymbolStore]:
    """Give a store whose builder loses patience soon."""
    symbols = SymbolStore(Config(symbols=SymbolLimits(build_seconds=10.0)))
    assert symbols.root == store
    yield symbols
    symbols.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["crashy", "crashy.debug", "libcargo.so.debug", "breakpad/crashy/*/crashy.sym"])
def test_malformed_files_cost_themselves(fragile: SymbolStore, fixtures: Path, tmp_path: Path, name: str) -> None:
    """Each gives an error or a table that can be searched."""
    (source,) = (fixtures / PIE).glob(name)
    data = source.read_bytes()
    rng = random.Random(name)
    mutants = [data[: len(data) * n // 50] for n in range(50)]
    for _ in range(100):
        changed = bytearray(data)
        for _ in range(rng.choice((1, 3, 20))):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        mutants.append(bytes(changed))
    addresses = np.arange(0, 0x8000, 0x111, dtype=np.uint64)
    useful = failed = 0
    path = tmp_path / "mutant"
    for mutant in mutants:
        path.write_bytes(mutant)
        added = fragile.add(str(path))
        assert bool(added.objects) != bool(added.problem)
        failed += added.problem is not None
        for info in added.objects:
            table = fragile.open(info["table"])
            assert table is not None
            merged = ModuleTables.merge([table])
            assert merged is not None
            first, locations = look_up(merged.sym, addresses)
            assert len(first) == len(addresses) + 1
            assert first[-1] == len(locations)
            useful += 1
    assert useful > 30
    assert failed > 3
    assert len(fragile.index.entries(kinds=["imported"])) == len(set(mutants))
    assert fragile.add(str(source)).problem is None
    for manifest in fragile.root.rglob("*.json"):
        os.utime(manifest, (1e9, 1e9))
    for table_file in fragile.root.rglob("*.table"):
        os.utime(table_file, (1e9, 1e9))
    fragile.index.sync()
    assert check(fragile.index) == []


def test_death_of_a_waiting_builder_costs_no_file(
    fragile: SymbolStore, objects: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Builder._ask

    def killed(self: Builder, request: dict[str, str]) -> object:
        if request["path"] == objects[1][0]:
            with self._lock:
                os.kill(self._start().pid, signal.SIGKILL)
        return ask(self, request)

    monkeypatch.setattr(Builder, "_ask", killed)
    results = [fragile.add(path) for path, _ in objects[:4]]
    assert [a.problem for a in results] == [None] * 4


# --- A full disk ----------------------------------------------------------------------------------------------------

FULL = """
import sys
from pathlib import Path
from deadreckon.config import Config
from deadreckon.symbols.store import SymbolStore

ballast, paths = Path(sys.argv[1]), sys.argv[2:]
store = SymbolStore(Config())
problems = [store.add(p).problem for p in paths]
ballast.unlink(missing_ok=True)
print(len([p for p in problems if p is None]))
for problem in problems:
    if problem:
        print(problem)
again = [store.add(p).problem for p in paths] if len(sys.argv[1]) > 1 else []
print(len([p for p in again if p is None]))
store.close()
"""


def whole(store: Path) -> None:
    for table in store.rglob("*.table"):
        open_table(table)
    for manifest in store.rglob("*.json"):
        answer = read_manifest(manifest)
        assert answer is not None
        assert "error" not in answer
    assert not list(store.rglob("*.tmp"))


def test_full_disk(store: Path, objects: list[tuple[str, str]]) -> None:
    """On a file system of 1 MB, most of it taken: clear messages, nothing half written, and it goes on afterwards."""
    script = (
        'mount -t tmpfs -o size=1000k none "$0" || exit 99; head -c 800000 /dev/zero > "$0/ballast"; '
        '"$@" || exit 98; cp -a "$0/." "$KEEP"'
    )
    store.mkdir()
    keep = store.with_name("keep")
    keep.mkdir()
    paths = [path for path, _ in objects[:30]]
    command = ["unshare", "-Urm", "sh", "-c", script, str(store), sys.executable, "-c", FULL, str(store / "ballast")]
    environment = {**os.environ, "KEEP": str(keep)}
    if shutil.which("unshare") is None:
        pytest.skip("no unshare")
    done = subprocess.run([*command, *paths], capture_output=True, text=True, check=False, env=environment)
    if done.returncode in {1, 99}:
        pytest.skip("no user name spaces here")
    assert done.returncode == 0, done.stderr
    first, *problems, last = done.stdout.splitlines()
    assert 0 < int(first) < 30
    assert len(problems) == 30 - int(first)
    assert all("No space left on device" in p for p in problems)
    assert int(last) == 30
    whole(keep)
    symbols = SymbolStore(Config(store=str(keep)))
    assert all(len(symbols.imported(debug_id)) == 1 for _, debug_id in objects[:30])
    assert len(symbols.index.entries(kinds=["imported"])) == 30


def test_files_that_may_not_grow(store: Path, objects: list[tuple[str, str]]) -> None:
    """A limit on the size of files stops writes in their middle, in the child as well."""
    paths = [path for path, _ in objects[:6]]
    done = subprocess.run(
        [sys.executable, "-c", FULL, "-", *paths], capture_output=True, text=True, check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY)),
    )  # fmt: skip
    first, *problems, _ = done.stdout.splitlines()
    assert int(first) == 0
    assert len(problems) == 6
    assert all("File too large" in p for p in problems)
    whole(store)
    assert not list(store.rglob("*.table"))
    with contextlib.closing(SymbolStore(Config())) as symbols:
        assert [symbols.add(path).problem for path in paths] == [None] * 6
