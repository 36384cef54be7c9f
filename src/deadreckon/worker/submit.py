"""Putting jobs into a job directory, as docs/jobs.md asks of producers: written under tmp/, renamed into new/ whole."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from deadreckon.errors import Malformed, SpoolError
from deadreckon.worker.affinity import affinity, shard_of
from deadreckon.worker.description import (
    DESCRIPTION,
    MAX_DESCRIPTION_BYTES,
    Description,
    FileEntry,
    Role,
    decode_description,
)
from deadreckon.worker.files import MAX_FILES, make_directories, now, plain_name, sync, what_to_sync

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Given", "submit"]

Given = str | os.PathLike[str] | tuple[str, bytes]
"""A file of a job: its path, or its name and content."""


def submit(
    jobdir: str | os.PathLike[str],
    inputs: Sequence[Given],
    *,
    kind: str | None = None,
    attributes: Mapping[str, str] | None = None,
    attach: Sequence[Given] = (),
    symbols: Sequence[Given] = (),
    sourcemaps: Sequence[Given] = (),
    project: str | None = None,
    event_id: str | None = None,
    shard: str | None = None,
    durability: str = "file",
) -> str:
    """Put one job into ``new/`` and return its id: 32 hex digits that sort by time.

    Files given by their paths are copied. Files of the same name are told apart by a number. Without ``inputs``,
    symbols and source maps are for later jobs. ``event_id`` is 32 hex digits, for a job of one crash. Jobs of one
    ``shard`` (the name of a folder) tend to be processed by the same process; by default those of one program build,
    as far as a minidump tells. Raises SpoolError when there is no input, a limit of docs/jobs.md is passed or a file
    can't be read or written; nothing is left behind then.
    """
    given: list[tuple[Role, Given]] = [
        *(("crash", g) for g in inputs),
        *(("attachment", g) for g in attach),
        *(("symbols", g) for g in symbols),
        *(("sourcemap", g) for g in sourcemaps),
    ]
    if not (inputs or symbols or sourcemaps):
        raise SpoolError("a job needs at least one crash, debug file or source map")
    if shard is not None and (not shard or shard != plain_name(shard) or "/" in shard or shard.startswith(".")):
        raise SpoolError(f"{shard!r} can't be the name of a shard")
    if len(given) >= MAX_FILES:
        raise SpoolError(f"a job has {MAX_FILES} files at most, {DESCRIPTION} among them")
    synced = what_to_sync(durability)
    root = make_directories(jobdir)
    job = f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"
    draft = root / "tmp" / job
    entries: list[FileEntry] = []
    taken = {DESCRIPTION}
    for role, file in given:
        name = _unlike(taken, plain_name(Path(file[0] if isinstance(file, tuple) else file).name))
        taken.add(name)
        entries.append(FileEntry(name, role))
    told = Description(
        id=job,
        kind=kind,
        files=entries,
        attributes=dict(attributes or {}),
        received_at=now(),
        attempt=1,
        project=project,
        event_id=event_id,
    )
    try:
        description = msgspec.json.encode(told)
        decode_description(description)
    except (UnicodeEncodeError, Malformed) as e:
        raise SpoolError(f"can't submit: {e}") from e
    if len(description) > MAX_DESCRIPTION_BYTES:
        raise SpoolError(f"{DESCRIPTION} would have {len(description)} bytes, {MAX_DESCRIPTION_BYTES} are allowed")
    try:
        draft.mkdir()
        for (_, file), entry in zip(given, entries, strict=True):
            if isinstance(file, tuple):
                (draft / entry.name).write_bytes(file[1])
            else:
                shutil.copyfile(file, draft / entry.name)
        (draft / DESCRIPTION).write_bytes(description)
        if "file" in synced:
            for name in taken:
                sync(draft / name)
        if "dir" in synced:
            sync(draft)
        place = root / "new" / shard if (shard := shard or _shard(inputs)) else root / "new"
        place.mkdir(exist_ok=True)
        draft.rename(place / job)
        if "dir" in synced:
            sync(place)
    except (OSError, shutil.Error) as e:
        shutil.rmtree(draft, ignore_errors=True)
        raise SpoolError(f"{root}: can't submit: {e}") from e
    return job


def _shard(inputs: Sequence[Given]) -> str | None:
    if len(inputs) != 1:
        return None
    key = affinity(inputs[0][1] if isinstance(inputs[0], tuple) else inputs[0])
    return shard_of(key) if key is not None else None


def _unlike(taken: set[str], name: str) -> str:
    number = 2
    candidate = name
    while candidate in taken:
        candidate = f"{number}.{name}"
        number += 1
    return candidate
