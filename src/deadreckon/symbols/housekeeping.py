"""Keeping a symbol store in order: making room, removing what is old, finding and repairing damage.

What can be made or fetched again goes before what the user imported, and what was used least recently goes first. When
a table was used last is its file's modification time, set at most once an hour (``SymbolStore.open``). All of this is
safe beside processes that use the store: a table that is mapped stays so when its name goes away.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deadreckon.errors import Malformed, SourceUnavailable
from deadreckon.model.ids import DebugId
from deadreckon.symbols.storefiles import AREAS, UPLOADS, Found, files, read_manifest, walk, write_manifest
from deadreckon.symbols.tablefile import TABLE_VERSION, open_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deadreckon.symbols.index import Index

__all__ = ["Finding", "Pruned", "check", "make_room", "prune"]

DAY = 86_400.0
_LEFTOVER_SECONDS = DAY
"""Temporary files younger than that may be somebody's work in progress."""
_SETTLED_SECONDS = 60.0
_USERS = ("imported", "upload")
"""What users brought: nothing makes it again."""


@dataclass(slots=True)
class Pruned:
    """What was removed (keys of the index), how many temporary files of dead processes, and sizes in bytes."""

    removed: list[str] = field(default_factory=list)
    leftovers: int = 0
    freed: int = 0
    kept: int = 0


@dataclass(slots=True)
class Finding:
    """Something wrong in a store; ``repaired`` tells whether it no longer is."""

    path: str
    what: str
    repaired: bool = False


def make_room(index: Index, max_bytes: int) -> Pruned:
    """Remove entries until the store is below ``max_bytes``; what was not used for longest goes first.

    What was made or used in the last minute stays: somebody is about to open it.
    """
    return prune(index, max_bytes=max_bytes, spare=_SETTLED_SECONDS)


def prune(index: Index, *, older_than: float | None = None, max_bytes: int | None = None, spare: float = 0.0) -> Pruned:
    """Remove temporary files that killed processes left, entries not used for ``older_than`` seconds, then the oldest.

    A failure counts as used when it happened. What was used in the last ``spare`` seconds does not go to save space.
    Without limits only temporary files go.
    """
    root = index.root
    found = walk(root)
    done = Pruned(kept=sum(item.size for item in found.values()))
    now = time.time()
    sharing: dict[int, list[Found]] = {}
    for item in found.values():
        for inode in item.inodes:
            sharing.setdefault(inode, []).append(item)
    gone: set[str] = set()
    for item in sorted(found.values(), key=lambda i: (i.kind in _USERS, i.used)):
        doomed = []
        if older_than is not None and item.used < now - older_than:
            doomed = [item]
        elif max_bytes is not None and done.kept > max_bytes and item.used <= now - spare:
            # An imported table's other name saves nothing, and goes with it.
            doomed = list({i.key: i for inode in item.inodes for i in sharing[inode]}.values()) or [item]
            if item.kind != "imported" and any(i.kind == "imported" for i in doomed):
                continue
        for each in doomed:
            if each.key not in gone and _remove(root, each):
                gone.add(each.key)
                done.removed.append(each.key)
                done.freed += each.size
                done.kept -= each.size
    for path in _leftovers(root, now):
        with contextlib.suppress(OSError):
            target = root / path
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink()
            done.leftovers += 1
    if done.removed:
        index.forget(done.removed)
    return done


def _remove(root: Path, item: Found) -> bool:
    """Remove an entry, unless it was used since it was looked at; the manifest first: it must not promise too much."""
    names = [item.manifest, *item.tables] if item.manifest else item.tables
    try:
        if any(os.stat(root / name).st_mtime > item.used for name in names):
            return False
        for name in names:
            os.unlink(root / name)
    except FileNotFoundError:
        pass  # Somebody else is at it.
    except OSError:
        return False
    for name in item.tables:
        if name.startswith(("by-id/", f"{UPLOADS}/")):
            with contextlib.suppress(OSError):
                (root / name).parent.rmdir()
    return True


def _leftovers(root: Path, now: float) -> Iterator[str]:
    """Yield temporary files and directories that nobody works on any more, relative to the store."""
    with contextlib.suppress(OSError), os.scandir(root / "tmp") as listed:
        for item in listed:
            with contextlib.suppress(OSError):
                times = [item.stat(follow_symlinks=False).st_mtime]
                if item.is_dir(follow_symlinks=False):
                    times += [stat.st_mtime for _, stat in files(root, f"tmp/{item.name}")]
                if max(times) < now - _LEFTOVER_SECONDS:
                    yield f"tmp/{item.name}"
    for area in (area for area in AREAS if area != UPLOADS):
        for path, stat in files(root, area):
            name = path.rpartition("/")[2]
            whole = name.endswith((".json", ".table")) and not name.startswith(".")
            if area == "remote":
                whole = not (name.startswith(".") and name.endswith(".tmp"))
            if not whole and stat.st_mtime < now - _LEFTOVER_SECONDS:
                yield path


def check(index: Index, *, repair: bool = False) -> list[Finding]:
    """Read every table and manifest and compare them with each other and with the index.

    A repair removes what is damaged, so that it is made afresh when next needed, and writes anew what can be told from
    the rest. Tables that the user imported and that are gone can only be imported again.
    """
    root = index.root
    # What is younger may be half there because somebody is adding it.
    settled = time.time() - _SETTLED_SECONDS
    everything = walk(root)
    found = {key: item for key, item in everything.items() if item.used < settled}
    findings: list[Finding] = []
    for item in found.values():
        if item.version == TABLE_VERSION:
            findings += (_check_map if item.kind == "map" else _check_entry)(root, item, repair=repair)
    damage = index.damage()
    if damage is not None:
        findings.append(Finding(index.path.name, f"the index is damaged: {damage}", repaired=repair))
        if repair:
            index.discard()
    elif index.path.exists():
        wrong = sorted(key for key in index.differences(everything) if key in found or key not in everything)
        findings += [Finding(key, "the index does not agree with the files", repaired=repair) for key in wrong]
    if repair:
        index.sync()
    return findings


def _check_map(root: Path, item: Found, *, repair: bool) -> Iterator[Finding]:
    try:
        open_table(root / item.key)
    except (Malformed, OSError) as e:
        yield Finding(item.key, str(e), repaired=repair and _unlink(root / item.key))


def _check_entry(root: Path, item: Found, *, repair: bool) -> Iterator[Finding]:
    good = {}
    for table in item.tables:
        try:
            info = open_table(root / table).info
        except (Malformed, OSError) as e:
            yield Finding(table, str(e), repaired=repair and _unlink(root / table))
            continue
        if item.kind == "imported" and _directory(info) != table.split("/")[-2]:
            what = f"tables of {info.get('debug_id')} in another one's place"
            yield Finding(table, what, repaired=repair and _unlink(root / table))
        else:
            good[table.rpartition("/")[2]] = info
    if item.manifest is None:
        what = "no record of where the tables are from" if item.kind == "imported" else "tables that belong to nothing"
        yield Finding(item.key, what, repaired=repair and _settle(root, item, good))
        return
    path = root / item.manifest
    answer = read_manifest(path)
    if answer is None:
        if path.exists():
            repaired = repair and (_settle(root, item, good) if good else _unlink(path))
            yield Finding(item.manifest, "the manifest is damaged", repaired=repaired)
        return
    for info in answer.get("objects", ()):
        name = info["table"]
        if name not in good:
            # What is derived is made again from its source once the manifest is gone.
            again = item.kind == "derived"
            what = f"table {name} is missing" + ("" if again else f"; import {answer.get('source') or 'it'} again")
            yield Finding(item.manifest, what, repaired=repair and again and _unlink(path))
        elif good[name].get("debug_id") != info.get("debug_id"):
            what = f"table {name} is of {good[name].get('debug_id')}, not of {info.get('debug_id')}"
            yield Finding(item.manifest, what, repaired=repair and _settle(root, item, good))


def _settle(root: Path, item: Found, good: dict[str, dict[str, Any]]) -> bool:
    """Make a new manifest of imported tables; remove derived ones, which are found by their manifest only."""
    if item.kind != "imported":
        names = [item.manifest, *item.tables] if item.manifest else item.tables
        return not [name for name in names if not _unlink(root / name)]
    objects = [{**info, "table": name} for name, info in sorted(good.items())]
    try:
        write_manifest(root / f"{item.key}.json", {"source": None, "added": item.used, "tags": {}, "objects": objects})
    except SourceUnavailable:
        return False
    return True


def _directory(info: dict[str, Any]) -> str | None:
    """Return the name of the directory that a table with such a header is imported into."""
    try:
        return DebugId.parse(info["debug_id"]).breakpad
    except (LookupError, AttributeError, ValueError):
        return None


def _unlink(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        try:
            os.unlink(path)
        except OSError:
            return False
    return True
