"""Every limit and setting, with its default; read from TOML and from ``DEADRECKON__SECTION__KEY`` variables."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from deadreckon.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = [
    "ArchiveLimits",
    "Config",
    "ReportLimits",
    "SymbolLimits",
    "UnwindLimits",
    "WorkerConfig",
    "load",
    "store_path",
]

MiB = 1 << 20
GiB = 1 << 30


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """What an archive may unpack to; sizes in bytes, counted while streaming, never taken from a header."""

    max_entries: int = 100_000
    max_entry_bytes: int = 1 * GiB
    max_total_bytes: int = 2 * GiB
    max_ratio: int = 200
    """Bytes out per byte read, looked at once ``ratio_grace_bytes`` have come out (debug sections hold long zeros)."""
    ratio_grace_bytes: int = 64 * MiB
    max_filters: int = 3
    max_depth: int = 3
    max_name_bytes: int = 4096


@dataclass(frozen=True, slots=True)
class ReportLimits:
    """What one crash report may hold."""

    max_bytes: int = 8 * GiB
    max_streams: int = 1024
    max_threads: int = 16_384
    max_modules: int = 16_384
    max_regions: int = 1_000_000
    max_string_bytes: int = 65_536
    max_annotations: int = 10_000


@dataclass(frozen=True, slots=True)
class UnwindLimits:
    """Bounds of one stack and of one report's stacks; words are of the crashed CPU's size."""

    max_frames: int = 1024
    max_total_frames: int = 200_000
    scan_words: int = 40
    scan_words_first: int = 160
    """Words scanned from a frame whose registers are trusted (context or cfi)."""


@dataclass(frozen=True, slots=True)
class SymbolLimits:
    """What building the tables of one debug file may cost; it happens in a child process."""

    build_seconds: float = 120.0
    build_bytes: int = 4 * GiB
    max_file_bytes: int = 4 * GiB
    max_scan_files: int = 20_000
    """Files looked at when a ``--symbols`` directory has no known layout."""
    max_demangle_input: int = 4096
    max_demangle_output: int = 65_536


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """How a worker treats jobs."""

    max_attempts: int = 3
    poll_seconds: float = 0.5
    keep_input: bool = True
    durability: str = "file"
    """What survives a power failure. ``none``: what the kernel wrote so far; ``file``: results, for which fsync is
    called before they take the input's place; ``file+dir``: and the names of jobs, so that none is processed again."""


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of an Engine."""

    store: str = ""
    """Directory of the symbol store; empty: ``$DEADRECKON_STORE``, else the user's cache directory."""
    archive: ArchiveLimits = field(default_factory=ArchiveLimits)
    report: ReportLimits = field(default_factory=ReportLimits)
    unwind: UnwindLimits = field(default_factory=UnwindLimits)
    symbols: SymbolLimits = field(default_factory=SymbolLimits)
    worker: WorkerConfig = field(default_factory=WorkerConfig)


def store_path(config: Config) -> str:
    """Return the store's directory: the setting, ``$DEADRECKON_STORE``, ``$XDG_CACHE_HOME``/~/.cache, in that order."""
    if config.store:
        return config.store
    if chosen := os.environ.get("DEADRECKON_STORE"):
        return chosen
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(cache, "deadreckon")


def load(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """Read a TOML file, then the environment over it.

    Raises ConfigError for an unknown key (with the nearest known one) and for a value of the wrong type.
    """
    import tomllib  # noqa: PLC0415

    raw: dict[str, Any] = {}
    if path is not None:
        try:
            raw = tomllib.loads(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
            raise ConfigError(f"{path}: {e}") from e
    for name, text in (os.environ if environ is None else environ).items():
        if name.startswith("DEADRECKON__"):
            *section, key = name.removeprefix("DEADRECKON__").lower().split("__")
            target = raw
            for part in section:
                target = target.setdefault(part, {})
            target[key] = _scalar(text)
    config: Config = _build(Config, raw, "")
    return config


def _scalar(text: str) -> Any:
    lowered = text.strip().lower()
    if lowered in {"true", "false"}:
        return lowered == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _build(kind: Any, raw: Any, prefix: str) -> Any:
    if not isinstance(raw, dict):
        raise ConfigError(f"{prefix.rstrip('.')}: expected a table, got {raw!r}")
    known = {f.name: f for f in fields(kind)}
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in known:
            import difflib  # noqa: PLC0415

            near = difflib.get_close_matches(key, known, 1)
            hint = f"; did you mean {prefix}{near[0]}?" if near else ""
            raise ConfigError(f"unknown setting {prefix}{key}{hint}")
        default = getattr(kind(), key)
        if hasattr(default, "__dataclass_fields__"):
            values[key] = _build(type(default), value, f"{prefix}{key}.")
            continue
        number = isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool)
        if not number and type(value) is not type(default):
            raise ConfigError(f"{prefix}{key}: expected {type(default).__name__}, got {value!r}")
        values[key] = type(default)(value)
    return kind(**values)
