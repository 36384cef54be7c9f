"""What is done with a job: its crashes become events; symbols and source maps without a crash are kept for others.

In a bundle, symbols and source maps are used for that job's crashes and go away with it. A job that has nothing else is
an upload: debug files are imported into the store, source maps are kept there by project and release, for crashes of
the same project and release.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from deadreckon.errors import Malformed
from deadreckon.model.event import Attachment, Event
from deadreckon.symbols.storefiles import UPLOADS, USED, touch

if TYPE_CHECKING:
    from deadreckon.config import Config
    from deadreckon.engine import Engine
    from deadreckon.worker.description import Job, JobFile
    from deadreckon.worker.runner import Processor

__all__ = ["engine_processor"]

_MAX_UPLOADS = 64
"""Of one project and release; the latest are looked at."""


def engine_processor(config: Config) -> Processor:
    """Return the processor that is in use outside of tests: an Engine, made once for a process."""
    from deadreckon.engine import Engine  # noqa: PLC0415

    engine = Engine(config)

    def process(job: Job) -> list[Event]:
        crashes = [f for f in job.files if f.role == "crash"]
        events = _events(engine, job, crashes) if crashes else []
        if events and not _is_debug_file(job, events):
            return events
        _keep_symbols(engine, job)
        _keep_maps(engine, job)
        return []

    return process


def _events(engine: Engine, job: Job, crashes: list[JobFile]) -> list[Event]:
    symbols = job.paths("symbols", "sourcemap")
    attributes = dict(job.attributes)
    if job.project is not None:
        attributes.setdefault("project", job.project)
    events: list[Event] = []
    try:
        for crash in crashes:
            events += engine.process_all(
                crash.path,
                name=crash.name,
                kind=job.kind,
                attributes=attributes,
                symbols=symbols,
                sourcemaps=_kept_maps(engine, job),
                scratch=job.scratch,
            )
    finally:
        # Another job may have other files under the same path.
        engine.forget(symbols)
    # An id names one event; several crash files have theirs from their bytes.
    if job.event_id is not None and len(crashes) == 1:
        events[0].event_id = job.event_id
    attached = [Attachment(name=f.name, size=Path(f.path).stat().st_size) for f in job.files if f.role == "attachment"]
    if attached:
        for event in events:
            event.attachments = [*(event.attachments or []), *attached]
    return events


# -- uploads -----------------------------------------------------------------------------------------------------------


def _is_debug_file(job: Job, events: list[Event]) -> bool:
    """Tell a debug file that came without a word, such as one that was copied into ``new/``: no reader knows it."""
    if job.kind is not None or len(job.files) > 1 or len(events) > 1 or events[0].status != "unreadable":
        return False
    if not any(d.code == "unknown_format" for d in events[0].diagnostics or ()):
        return False
    from deadreckon import objects, reports  # noqa: PLC0415

    with open(job.files[0].path, "rb") as opened:
        if objects.sniff(opened.read(reports.HEAD_BYTES)) is None:
            return False
    job.files[0].role = "symbols"
    return True


def _keep_symbols(engine: Engine, job: Job) -> None:
    """Import the job's debug files. Raises Malformed where there is none that can be used."""
    problems: list[str] = []
    for path in job.paths("symbols"):
        name = os.path.basename(path)
        found = engine.add_symbols(path, tags=job.attributes)
        for added in found:
            if added.problem is not None:
                problems.append(f"{name}: {added.problem}")
            job.imported += ({"file": name, "known": added.known, **each} for each in added.objects)
        if not found:
            problems.append(f"{name}: no debug file")
    if problems and not job.imported:
        raise Malformed("; ".join(problems[:10]))
    job.imported += ({"problem": problem} for problem in problems)


def _keep_maps(engine: Engine, job: Job) -> None:
    """Keep the job's source maps for crashes of the same project and release. Raises Malformed without a release."""
    maps = [f for f in job.files if f.role == "sourcemap"]
    if not maps:
        return
    place = _place(engine, job)
    if place is None:
        raise Malformed("job of source maps", expected="the attribute release: by their names alone maps are mistaken")
    digest = hashlib.sha256()
    for file in maps:
        digest.update(file.name.encode("utf-8", "surrogateescape") + b"\0")
        with open(file.path, "rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    kept = place / digest.hexdigest()[:32]
    if not kept.is_dir():
        draft = engine.store.temporary / f"maps-{secrets.token_hex(8)}"
        draft.mkdir()
        try:
            for file in maps:
                shutil.copyfile(file.path, draft / file.name)
            (draft / USED).touch()
            place.mkdir(parents=True, exist_ok=True)
            draft.rename(kept)
            engine.store.note(*kept.iterdir())
        except OSError:
            shutil.rmtree(draft, ignore_errors=True)
            if not kept.is_dir():
                raise
    job.imported += ({"file": f.name, "release": job.attributes["release"]} for f in maps)


def _kept_maps(engine: Engine, job: Job) -> list[str]:
    """Return what was kept for crashes like this, the latest first."""
    place = _place(engine, job)
    if place is None:
        return []
    try:
        with os.scandir(place) as entries:
            found = sorted(((e.stat().st_mtime, e.path) for e in entries if e.is_dir()), reverse=True)
    except OSError:
        return []
    chosen = [path for _, path in found[:_MAX_UPLOADS]]
    for path in chosen:
        touch(os.path.join(path, USED))
    return chosen


def _place(engine: Engine, job: Job) -> Path | None:
    release = job.attributes.get("release")
    if not release:
        return None
    key = hashlib.sha256(repr((job.project, release)).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return engine.store.root / UPLOADS / key
