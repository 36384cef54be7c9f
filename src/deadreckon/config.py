"""Every limit and setting, with its default; read from TOML and from ``DEADRECKON__SECTION__KEY`` variables."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from deadreckon.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = [
    "ArchiveLimits",
    "BttConfig",
    "Config",
    "MapLimits",
    "RemoteLimits",
    "ReportLimits",
    "ScrubConfig",
    "SourceConfig",
    "SymbolLimits",
    "UnwindLimits",
    "WorkerConfig",
    "load",
    "remote_source",
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
    scan_words_calls: int = 2048
    """Words scanned for one that certainly follows a call, where code is at hand to tell."""


@dataclass(frozen=True, slots=True)
class SymbolLimits:
    """What building the tables of one debug file may cost (it happens in a child process), and what the store may."""

    store_max_bytes: int = 20 * GiB
    """Tables in the store: beyond that, those not used for longest go, imported ones last. 0: no limit."""
    retry_failures_seconds: float = 86_400.0
    """How long a debug file that could not be read is not tried again."""
    build_seconds: float = 120.0
    build_bytes: int = 4 * GiB
    max_file_bytes: int = 4 * GiB
    max_scan_files: int = 20_000
    """Files looked at when a ``--symbols`` directory has no known layout."""
    source_roots: tuple[str, ...] = ()
    """Directories that source files may be read from; without one, source context comes from source bundles only."""
    source_remap: tuple[str, ...] = ()
    """``prefix=>prefix``: what to put in the place of the beginning of source paths; the first that fits counts."""
    source_lines: int = 5
    """Lines of source context before and after a frame's own."""
    max_demangle_input: int = 4096
    max_demangle_output: int = 65_536

    def __post_init__(self) -> None:
        for rule in self.source_remap:
            if not re.fullmatch(r"\s*[^\s=][^=]*=>.*", rule):
                raise ConfigError(f"symbols.source_remap: {rule!r}: expected prefix=>prefix")


@dataclass(frozen=True, slots=True)
class MapLimits:
    """What one JavaScript source map may hold."""

    max_bytes: int = 1 * GiB
    max_segments: int = 50_000_000
    """Of 20 bytes each once decoded; generated lines count as well."""
    max_sections: int = 100_000
    max_depth: int = 8
    """Index maps within index maps."""
    fetch: bool = False
    """Whether scripts and maps are asked for at the URLs that frames name, on public servers (limits: remote)."""
    fetch_hosts: tuple[str, ...] = ()
    """Hosts that are asked, ``*.example.com`` for all below one; without any, all of them."""


_LAYOUTS = frozenset(
    {"auto", "breakpad", "debuginfod", "gdb", "lldb", "ssqp", "symstore", "symstore_index2", "unified"}
)
_KINDS = frozenset({"debuginfo", "executable", "breakpad", "sourcebundle"})
_SOURCE = re.compile(r"(?:([a-z0-9_]+)\+)?((?:https?|s3)://.*)", re.ASCII | re.DOTALL)


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """A remote symbol source: an HTTP(S) server or an S3 bucket (``s3://bucket/prefix``). Raises ConfigError."""

    url: str = ""
    layout: str = "auto"
    """How paths are made (symbols/layouts.py); ``auto`` tries those that servers have."""
    kinds: tuple[str, ...] = ("debuginfo", "executable", "breakpad")
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    """Sent to the URL's own scheme, host and port only; ``$NAME`` stands for an environment variable."""

    def __post_init__(self) -> None:
        if not self.url:
            return
        from urllib.parse import urlsplit  # noqa: PLC0415

        try:
            parts = urlsplit(self.url)
            host, _ = (parts.hostname or "").encode("idna"), parts.port
        except ValueError as e:
            raise ConfigError(f"sources: {self.url!r}: {e}") from e
        if (
            not self.url.startswith(("http://", "https://", "s3://"))
            or not host
            or re.search(r"[\x00-\x20\x7f]", self.url)
        ):
            raise ConfigError(f"sources: {self.url!r}: expected http://, https:// or s3:// and a host")
        if "@" in parts.netloc or parts.fragment:
            message = "no user, password or fragment in a URL; credentials go into headers"
            raise ConfigError(f"sources: {parts.hostname}: {message}")
        if self.layout not in _LAYOUTS:
            raise ConfigError(f"sources: layout {self.layout!r}: expected one of {', '.join(sorted(_LAYOUTS))}")
        if not self.kinds or not _KINDS.issuperset(self.kinds):
            raise ConfigError(f"sources: kinds {list(self.kinds)}: expected some of {', '.join(sorted(_KINDS))}")
        if self.headers and parts.scheme == "s3":
            raise ConfigError(f"sources: {self.url}: an S3 source takes no headers")
        self.sent_headers()

    def sent_headers(self) -> dict[str, str]:
        """Return the headers with environment variables in place. Raises ConfigError; never shows a value."""
        from string import Template  # noqa: PLC0415

        sent = {}
        for name, text in self.headers.items():
            try:
                sent[name] = Template(text).substitute(os.environ)
            except KeyError as e:
                raise ConfigError(f"sources: header {name!r}: ${e.args[0]} is not set") from None
            except ValueError:
                raise ConfigError(f"sources: header {name!r}: write $$ for a dollar sign") from None
            if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or not re.fullmatch(r"[\t -~]*", sent[name]):
                raise ConfigError(f"sources: header {name!r}: not a header's name, or not one line of ASCII")
        return sent


def remote_source(text: str, configured: tuple[SourceConfig, ...] = ()) -> SourceConfig | None:
    """Read ``https://...`` or ``s3://...``, with the layout before it where it is known (``debuginfod+https://...``).

    A URL that is configured has its settings. Returns None for anything else, which is a path. Raises ConfigError.
    """
    for source in configured:
        if source.url == text:
            return source
    match = _SOURCE.fullmatch(text)
    return SourceConfig(url=match[2], layout=match[1] or "auto") if match else None


@dataclass(frozen=True, slots=True)
class RemoteLimits:
    """What asking remote symbol sources may cost; nothing is asked unless a source is named."""

    connect_seconds: float = 5.0
    read_seconds: float = 15.0
    """Silence that ends a connection."""
    total_seconds: float = 120.0
    """For everything that is fetched at once, which is what a crash needs; few have to fetch a second time."""
    retries: int = 2
    """After a timeout, a lost connection and the statuses 429 and 5xx; nothing else is asked twice."""
    retry_wait_seconds: float = 0.5
    """Before the first retry; doubled for the next ones."""
    max_retry_wait_seconds: float = 10.0
    """A server that asks for a longer pause (Retry-After) gets no retry."""
    parallel: int = 8
    max_modules: int = 256
    """Modules of one crash that are asked for."""
    max_bytes: int = 2 * GiB
    """Of one file, as it arrives and as it is unpacked."""
    max_redirects: int = 5
    missing_seconds: float = 3600.0
    """How long it is remembered that a source does not have a file, or has a wrong or unreadable one."""
    failure_seconds: float = 300.0
    """How long it is remembered that a file could not be fetched."""
    skip_after: int = 3
    """Failures in a row after which a source is skipped; one that can't be reached at all is skipped at once."""
    skip_seconds: float = 300.0


@dataclass(frozen=True, slots=True)
class BttConfig:
    """What to do with a ``.btt`` that is no format of public layout."""

    converter: tuple[str, ...] = ()
    """A command and its arguments, run without a shell; ``{input}`` and ``{output}`` stand for paths. What it writes to
    the output is read like any crash. Empty: none."""
    converter_seconds: float = 60.0
    converter_max_bytes: int = 1 * GiB
    """Of all files the command writes into its directory."""

    def __post_init__(self) -> None:
        told = " ".join(self.converter)
        if self.converter and not ("{input}" in told and "{output}" in told):
            raise ConfigError("btt.converter: expected {input} and {output} among the command's arguments")


@dataclass(frozen=True, slots=True)
class GroupingConfig:
    """Which fingerprints an event has besides our own, and by which rules."""

    families: tuple[str, ...] = ()
    """Names (grouping/families): ``sentry:newstyle:2023-01-11``, ``posthog``, ``rollbar``, ``signature`` and others."""
    rules: tuple[str, ...] = ()
    """Files of rules, the later ones after the earlier, and lists of signatures."""
    explain: bool = False
    """Whether events say what their fingerprints were made of."""


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """How a worker treats jobs."""

    max_attempts: int = 3
    poll_seconds: float = 0.5
    keep_input: bool = True
    job_seconds: float = 300.0
    """What one job may take; it is killed then."""
    job_memory_bytes: int = 0
    """A process's own memory (RLIMIT_DATA: files mapped for reading don't count); 0: its share of nine tenths of the
    machine's memory, 8 GiB at most."""
    job_output_bytes: int = 1 * GiB
    """Of one job's event.jsonl."""
    job_open_files: int = 4096
    claims: str = "lock"
    """How claims end with their worker. ``lock``: at once, by a lock, among the workers of one machine. ``lease``: when
    it gave no sign of life for ``lease_seconds``; for workers of several machines on one network file system."""
    lease_seconds: float = 120.0
    min_free_bytes: int = 256 * MiB
    """With less room on the job directory's file system no job is claimed."""
    sink: str = ""
    """Where the events of all jobs go, besides done/: ``jsonl:DIR``, ``parquet:DIR`` or ``call:MODULE:FUNCTION``."""
    sink_rotate_bytes: int = 256 * MiB
    """A sink's file is closed, and a new one begun, when it is larger."""
    sink_rotate_seconds: float = 3600.0
    """... or older."""
    metrics_file: str = ""
    """Where metrics are written as Prometheus reads them; empty: metrics.prom in the job directory."""
    health_file: str = ""
    """Empty: health.json in the job directory."""
    durability: str = "file"
    """What survives a power failure. ``none``: what the kernel wrote so far; ``file``: results, for which fsync is
    called before they take the input's place; ``file+dir``: and the names of jobs, so that none is processed again."""


@dataclass(frozen=True, slots=True)
class ScrubConfig:
    """What is taken out of an event before it is handed to another product (adapters/scrub.py)."""

    deny: tuple[str, ...] = ()
    """Keys whose values go, beside the known ones; a part of a key will do, case and punctuation don't count."""
    allow: tuple[str, ...] = ()
    """Whole keys whose values stay, whatever the others say."""
    cards: bool = True
    """Whether what has the shape of a card's number goes, wherever it stands."""
    mark: str = "[Filtered]"
    """What stands in its place."""


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of an Engine."""

    store: str = ""
    """Directory of the symbol store; empty: ``$DEADRECKON_STORE``, else the user's cache directory."""
    archive: ArchiveLimits = field(default_factory=ArchiveLimits)
    report: ReportLimits = field(default_factory=ReportLimits)
    btt: BttConfig = field(default_factory=BttConfig)
    unwind: UnwindLimits = field(default_factory=UnwindLimits)
    symbols: SymbolLimits = field(default_factory=SymbolLimits)
    maps: MapLimits = field(default_factory=MapLimits)
    sources: tuple[SourceConfig, ...] = ()
    """Remote sources, asked in this order for what local ones lack; TOML ``[[sources]]``."""
    remote: RemoteLimits = field(default_factory=RemoteLimits)
    grouping: GroupingConfig = field(default_factory=GroupingConfig)
    worker: WorkerConfig = field(default_factory=WorkerConfig)
    scrub: ScrubConfig = field(default_factory=ScrubConfig)


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
        if isinstance(default, tuple | dict):
            values[key] = _collection(default, value, f"{prefix}{key}")
            continue
        number = isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool)
        if not number and type(value) is not type(default):
            raise ConfigError(f"{prefix}{key}: expected {type(default).__name__}, got {value!r}")
        values[key] = type(default)(value)
    return kind(**values)


def _collection(default: tuple[Any, ...] | dict[str, str], value: Any, at: str) -> Any:
    """Read a list of texts, a table of texts, or ``[[sources]]``."""
    if at == "sources" and isinstance(value, list):
        found = tuple(_build(SourceConfig, item, f"{at}[{i}].") for i, item in enumerate(value))
        for i, source in enumerate(found):
            if not source.url:
                raise ConfigError(f"{at}[{i}].url: missing")
        return found
    texts = list(value.values()) if isinstance(value, dict) else value
    if isinstance(value, dict if isinstance(default, dict) else list) and all(isinstance(t, str) for t in texts):
        return dict(value) if isinstance(value, dict) else tuple(value)
    # Headers hold secrets: the value isn't shown.
    raise ConfigError(f"{at}: expected a {'table' if isinstance(default, dict) else 'list'} of texts")
