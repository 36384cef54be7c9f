"""``deadreckon snapshot``: a core, a minidump or a running process as our portable snapshot; see docs/snapshot.md."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from deadreckon.errors import DeadreckonError, LimitExceeded, SourceUnavailable, Unsupported

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deadreckon import inputs
    from deadreckon.config import Config
    from deadreckon.model.crash import RawCrash

__all__ = ["run"]

_DUMPS = frozenset({"elfcore", "minidump", "btt"})
"""What has registers and memory; other reports have been unwound where they were made."""
_MAX_ATTACHMENT = 256 << 20


def run(config: Config, source: str, output: str, attach: Sequence[str] = ()) -> tuple[str, bool]:
    """Write the snapshot of a file, or of the process with that number, to ``output``.

    Returns one line of what there is to say, and whether it was done. The file is written whole or not at all, and for
    its owner's eyes: it holds a program's memory. Raises OSError where it can't be written.
    """
    from deadreckon import inputs

    try:
        with inputs.Scratch(lambda: None) as scratch:
            return _snapshot(config, source, output, attach, scratch), True
    except DeadreckonError as e:
        return f"{source}: {e.code}: {e}", False


def _snapshot(config: Config, source: str, output: str, attach: Sequence[str], scratch: inputs.Scratch) -> str:
    from deadreckon import inputs, reports
    from deadreckon.adapters.live import core_of
    from deadreckon.reports.snapshot import MAX_MEMORY

    data: inputs.Data
    if source.isdecimal() and not os.path.exists(source):
        data, name = core_of(int(source), MAX_MEMORY // 2), f"process {source}"
    else:
        data, name = _opened(source), source
    crashes = list(inputs.crashes(data, name, None, config.archive, scratch, config.btt))
    found = [c for c in crashes if c.form.name in _DUMPS]
    if len(found) != 1:
        what = f"{len(found)} dumps" if found else f"a {crashes[0].form.name} report"
        raise Unsupported(f"a snapshot is of one core or minidump, this is {what}")
    raw = reports.read(found[0].form, memoryview(found[0].data), config.report)[0]
    return _written(raw, found[0], output, attach)


def _opened(path: str) -> inputs.Data:
    from deadreckon import inputs

    try:
        return inputs.open_input(path)
    except OSError as e:
        raise SourceUnavailable(e.strerror or str(e)) from e


def _written(raw: RawCrash, crash: inputs.Crash, output: str, attach: Sequence[str]) -> str:
    from deadreckon import inputs
    from deadreckon.reports.snapshot import MAX_MEMORY, Origin, dump
    from deadreckon.unwind.reach import Space, reach
    from deadreckon.unwind.walk import ARCHITECTURES

    threads = [t for t in sorted(raw.threads, key=lambda t: not t.crashed) if t.registers is not None]
    if raw.arch not in ARCHITECTURES or not threads:
        raise Unsupported(f"no thread has registers of a CPU that is unwound ({raw.arch})")
    mask = ARCHITECTURES[raw.arch].address_mask(raw)
    memory = reach(raw.arch, [t.registers for t in threads if t.registers], Space.of(raw), mask, MAX_MEMORY // 2)
    origin = Origin(
        format=raw.format,
        name=os.path.basename(crash.name) if crash.name else None,
        size=len(crash.data),
        sha256=inputs.digest(crash.data),
    )
    attached = [_attachment(path) for path in attach]
    target = Path(os.path.realpath(output))
    size = sum(len(content) for _, content in memory)
    told = f"{output}: {len(threads)} threads, {len(raw.modules)} modules, {size} bytes of memory"
    if target.exists() and not target.is_file():  # A device or a pipe: nothing to be put in the place of.
        with target.open("wb") as pipe:
            dump(pipe, raw, memory, origin=origin, attachments=attached)
        return told
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")  # Mode 0600.
    try:
        with os.fdopen(descriptor, "wb") as file:
            dump(file, raw, memory, origin=origin, attachments=attached)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
    return told


def _attachment(path: str) -> tuple[str, bytes]:
    with open(path, "rb") as file:
        content = file.read(_MAX_ATTACHMENT + 1)
    if len(content) > _MAX_ATTACHMENT:
        raise LimitExceeded("snapshot.max_attachment", _MAX_ATTACHMENT, what=path)
    return os.path.basename(path), content
