"""Jobs for benchmarks/worker.py: small payloads and dumps of a corpus, and such as kill their process."""

from __future__ import annotations

import ctypes
import io
import json
import tempfile
import zipfile
from typing import TYPE_CHECKING

from deadreckon import Engine
from deadreckon.config import Config
from deadreckon.worker import warm
from deadreckon.worker.processor import engine_processor

if TYPE_CHECKING:
    from pathlib import Path

    from deadreckon.model.event import Event
    from deadreckon.worker.description import Job
    from deadreckon.worker.runner import Processor

__all__ = ["POISONS", "dumps", "payload", "poisonable", "put", "zip_bomb"]

POISONS = {b"POISON native crash": "killed by SIG", b"POISON loop": "not finished", b"POISON memory": "out of memory"}
_MAX_DUMP = 100_000
_SHARED = warm.LOADED
"""Loaded with this file in the process that workers are forked from."""


def poisonable(config: Config) -> Processor:
    """Return the worker's own processor, which does what POISONS say beforehand. Loaded by name in each child."""
    process = engine_processor(config)

    def work(job: Job) -> list[Event]:
        with open(job.files[0].path, "rb") as file:
            head = file.read(32)
        if head == b"POISON native crash":
            ctypes.string_at(1)
        elif head == b"POISON loop":
            while True:
                pass
        elif head == b"POISON memory":
            bytearray(10 << 30)
        return process(job)

    return work


def payload(number: int) -> bytes:
    """Return a small event as Sentry's SDKs send it; each number gives another."""
    frames = [
        {"function": f"step_{number % 7}_{n}", "filename": f"app/part{n}.py", "lineno": 10 + n, "in_app": n % 2 == 0}
        for n in range(8)
    ]
    told = {
        "event_id": f"{number:032x}",
        "platform": "python",
        "timestamp": "2026-01-02T03:04:05Z",
        "release": "app@1.2.3",
        "exception": {"values": [{"type": "ValueError", "value": f"no {number}", "stacktrace": {"frames": frames}}]},
    }
    return json.dumps(told).encode()


def dumps(corpus: Path) -> list[bytes]:
    """Return the corpus' small minidumps, as far as they can be read."""
    found = [p.read_bytes() for p in sorted((corpus / "native").rglob("*.dmp")) if p.stat().st_size < _MAX_DUMP]
    with tempfile.TemporaryDirectory() as store, Engine(Config(store=store)) as engine:
        return [data for data in found if engine.process(data).status in {"ok", "degraded"}]


def zip_bomb() -> bytes:
    """Return a ZIP archive of 2 MB that unpacks to 2 GB."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("bomb", "w", force_zip64=True) as file,
    ):
        for _ in range(2048):
            file.write(bytes(1 << 20))
    return out.getvalue()


def put(jobdir: Path, name: str, content: bytes, shard: str | None = None) -> None:
    """Put a job with one crash in, under a name of our own."""
    draft = jobdir / "tmp" / name
    draft.mkdir(parents=True)
    (draft / "crash").write_bytes(content)
    (draft / "job.json").write_bytes(json.dumps({"id": name, "files": [{"name": "crash"}]}).encode())
    place = jobdir / "new" / shard if shard else jobdir / "new"
    place.mkdir(parents=True, exist_ok=True)
    draft.rename(place / name)
