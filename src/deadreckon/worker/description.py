"""What a job is: job.json and the files beside it, as a producer writes them and as a processor gets them."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import msgspec

from deadreckon.errors import Malformed
from deadreckon.worker.files import check_readable, kind_of, read_limited, regular_files

__all__ = ["DESCRIPTION", "Description", "FileEntry", "Job", "JobFile", "Role", "decode_description", "read_job"]

Role = Literal["crash", "attachment", "symbols", "sourcemap"]

DESCRIPTION = "job.json"
MAX_DESCRIPTION_BYTES = 1 << 20
_ROLES: dict[str, Role] = {"symbols": "symbols", "sourcemap": "sourcemap"}
_KINDS = {*_ROLES, "crash", "bundle"}
"""What ``kind`` may say of a job as a whole; anything else is its crashes' format."""


@dataclass(slots=True)
class JobFile:
    """A regular file of a job: its base name, where it is now, and what it is for."""

    name: str
    path: str
    role: Role


@dataclass(slots=True)
class Job:
    """What a processor needs to know. ``id`` is the job's name in the job directory; times are RFC 3339.

    ``kind`` is the crashes' format, where it was told. Without a crash among its files a job brings symbols or source
    maps for others; ``imported`` is for the processor to say what it made of them.
    """

    id: str
    files: list[JobFile]
    kind: str | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    received_at: str | None = None
    project: str | None = None
    event_id: str | None = None
    scratch: str | None = None
    """A directory for temporary files, emptied by others where the processor dies; None: wherever it likes."""
    imported: list[dict[str, Any]] = field(default_factory=list)

    def paths(self, *roles: Role) -> list[str]:
        """Return the paths of the files with one of these roles, in the job's order."""
        return [f.path for f in self.files if f.role in roles]


class FileEntry(msgspec.Struct):
    """A file in job.json."""

    name: str
    role: Role | None = None


class Description(msgspec.Struct, omit_defaults=True, kw_only=True):
    """job.json. The attempt in it is the producer's; the one that counts is in the directory's name.

    Without ``files``, every file beside it is one. The role of a file that has none is crash, in a job of the kind
    ``symbols`` or ``sourcemap`` that.
    """

    id: str
    files: list[FileEntry] | None = None
    kind: str | None = None
    attributes: dict[str, str | int | float | bool | None] = msgspec.field(default_factory=dict)
    received_at: str | None = None
    attempt: int | None = None
    project: str | int | None = None
    event_id: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")] | None = None


def read_job(entry: str, name: str, scratch: str | None = None) -> Job:
    """Read and check a job: regular files only, base names only, nothing followed, nothing waited for.

    Raises Malformed or LimitExceeded where the job contradicts docs/jobs.md, OSError where it can't be read.
    """
    mode = os.lstat(entry).st_mode
    if stat.S_ISREG(mode):
        check_readable(entry)
        return Job(id=name, files=[JobFile(name, entry, "crash")], scratch=scratch)
    if not stat.S_ISDIR(mode):
        raise Malformed("job", expected="a directory or a regular file", got=kind_of(mode))
    present = regular_files(entry)
    if DESCRIPTION not in present:
        raise Malformed("job", expected=f"a file {DESCRIPTION}")
    present.discard(DESCRIPTION)
    told = decode_description(read_limited(f"{entry}/{DESCRIPTION}", MAX_DESCRIPTION_BYTES))
    role: Role = _ROLES.get(told.kind or "", "crash")
    files = []
    for listed in [FileEntry(n) for n in sorted(present)] if told.files is None else told.files:
        if listed.name not in present:  # What isn't a base name isn't in the directory either.
            raise Malformed(f"{DESCRIPTION}: files", expected="names of files beside it", got=repr(listed.name))
        present.discard(listed.name)
        check_readable(f"{entry}/{listed.name}")
        files.append(JobFile(listed.name, f"{entry}/{listed.name}", listed.role or role))
    if not any(f.role != "attachment" for f in files):
        raise Malformed(f"{DESCRIPTION}: files", expected="at least one that is no attachment")
    return Job(
        id=name,
        files=files,
        kind=None if told.kind in _KINDS else told.kind,
        attributes={key: _text(value) for key, value in told.attributes.items()},
        received_at=told.received_at,
        project=None if told.project is None else str(told.project),
        event_id=told.event_id,
        scratch=scratch,
    )


def decode_description(data: bytes) -> Description:
    """Decode job.json. Raises Malformed."""
    try:
        return msgspec.json.decode(data, type=Description)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
        raise Malformed(f"{DESCRIPTION}: {e}") from e


def _text(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
