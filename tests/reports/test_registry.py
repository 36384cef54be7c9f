"""The registry: every crash matches exactly one reader's sniffer, and nothing else matches any."""

from __future__ import annotations

import importlib
import lzma
import zipfile
from typing import TYPE_CHECKING

import pytest

from deadreckon import Engine, objects
from deadreckon.config import ArchiveLimits, Config
from deadreckon.errors import UnknownFormat
from deadreckon.reports import FORMATS, Probe, detect
from deadreckon.wire import archive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAMES = {f.name for f in FORMATS}

CRASHES = (
    # Where the corpus has what, the latter row before the former; a reader that isn't registered has no rows.
    ("payloads/captured/rollbar*.body", "rollbar"),
    ("payloads/captured/posthog*.body", "posthog"),
    ("payloads/posthog/*.json", "posthog"),
    ("payloads/captured/sentry-sdk*.body", "sentry-envelope"),
    ("payloads/captured/sentry-node*.body", "sentry-envelope"),
    ("payloads/captured/sentry-cli-event*.body", "sentry-envelope"),
    ("payloads/captured/store*.body", "sentry-event"),
    ("payloads/sentry-samples-2023-02/**/*.json", "sentry-event"),
    ("payloads/captured/backtracepython*.body", "backtrace-form"),
    ("payloads/captured/curl-backtrace-json-attach*.body", "backtrace-form"),
    ("payloads/captured/curl-backtrace-minidump*.body", "backtrace-form"),
    ("native/**/*.dmp", "minidump"),
    ("native/breakpad/testdata/microdump-*.dmp", "microdump"),
    ("native/lldb/**/*.core", "elfcore"),
    ("native/pyelftools/**/core_linux*.elf", "elfcore"),
    ("plcrash/**/*.plcrash", "plcrash"),
    ("apple/**/*.ips", "apple-ips"),
    ("apple/**/*.crash", "apple-crash"),
    ("apple/sentry_cocoa/*.json", "metrickit"),
    ("other/tombstone/hist_tombstone.pb", "tombstone"),
    ("other/tombstone/*.pb.gz", "tombstone"),
    ("other/anr/*.txt", "anr"),
    ("other/unreal/unreal_crash*", "unreal"),
    ("grouping/casr/**/*.casrep", "casr"),
    ("other/sanitizer/asan_*.txt", "sanitizer"),
    ("other/sanitizer/android_asan_*.txt", "sanitizer"),
    ("other/sanitizer/*[mtl]san_*.txt", "sanitizer"),
    ("other/sanitizer/ubsan_*.txt", "sanitizer"),
    ("other/sanitizer/libfuzzer_*.txt", "sanitizer"),
    ("other/sanitizer/centipede_*.txt", "sanitizer"),
    ("other/sanitizer/cdb_*.txt", "windbg"),
    ("other/sanitizer/*kernel_*.txt", "kernel"),
    ("other/sanitizer/*kasan_*.txt", "kernel"),
    ("other/sanitizer/lkl_*.txt", "kernel"),
    ("other/sanitizer/gdb_*.txt", "gdb"),
    ("other/sanitizer/python_*.txt", "python"),
    ("other/sanitizer/pysecsan_*.txt", "python"),
    ("other/sanitizer/rust_*.txt", "rust"),
    ("other/sanitizer/golang_panic_*.txt", "go"),
    ("other/sanitizer/golang_*_stack_overflow.txt", "go"),
    ("other/sanitizer/v8_check*.txt", "terminate"),
    ("other/sanitizer/java_*.txt", "java"),
)
EXCEPT = {
    "v8_check_no_sourcefile.txt",  # The sanitizer's report of it is what tells most.
    "golang_panic_runtime_error_slice_bounds_with_log_header.txt",  # Logged, not printed: the fuzzer's report counts.
    "asan_in_drt_string.txt",  # A page's text that speaks of AddressSanitizer.
    "ignore_asan_warning.txt",  # A V8 check after a warning of the sanitizer about itself.
    "rust_oom.txt",
}  # fmt: skip


def hits(data: bytes, name: str) -> list[str]:
    """Return every format that takes the bytes for its own."""
    probe = Probe(data, name)
    return [form.name for form in FORMATS if form.sniff(probe)]


def unpacked(path: Path) -> bytes:
    data = path.read_bytes()
    if archive.sniff(data[: archive.HEAD_BYTES]) in archive.COMPRESSED:
        (member,) = archive.unpack(data, ArchiveLimits(), name=path.name, problems=[])
        return bytes(member.data)
    return data


def every_file(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.stat().st_size and not path.name.startswith("."):
            yield path


def test_names_are_distinct_and_modules_read() -> None:
    assert len(NAMES) == len(FORMATS)
    for form in FORMATS:
        assert callable(importlib.import_module(form.module).read)


def test_a_kind_is_taken_at_its_word() -> None:
    assert all(detect(Probe(b""), name) is form for name, form in ((f.name, f) for f in FORMATS))
    with pytest.raises(UnknownFormat):
        detect(Probe(b""), "nonsense")


def test_fixtures(fixtures: Path) -> None:
    """Dumps and cores are one reader's, programs and debug files nobody's."""
    counted = {"crash": 0, "object": 0}
    for path in every_file(fixtures / "linux"):
        data = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
        found = hits(data, path.name)
        name = path.name.removesuffix(".xz")
        if name.endswith(".dmp"):
            assert found == ["minidump"], path
            counted["crash"] += 1
        elif name.endswith(".core"):
            assert found == ["elfcore"], path
            counted["crash"] += 1
        else:
            assert found == [], path
            counted["object"] += objects.sniff(data[:4096]) is not None
    assert counted["crash"] > 200
    assert counted["object"] > 10
    for path in (*every_file(fixtures / "src"), fixtures / "README.md", fixtures / "build.py"):
        assert hits(path.read_bytes(), path.name) == [], path


@pytest.mark.corpus
def test_no_file_of_the_corpus_is_two_things(corpus: Path) -> None:
    """And what is a debug file or a program is no crash."""
    objects_seen = 0
    for path in every_file(corpus):
        data = path.read_bytes()
        found = hits(data, path.name)
        assert len(found) <= 1, (path, found)
        if objects.sniff(data[:4096]) is not None:
            assert found == [], path
            objects_seen += 1
        if path.name.startswith(("LICENSE", "MANIFEST", "README", "NOTICE")) or path.suffix in {".map", ".sym", ".js"}:
            assert found == [], path
    assert objects_seen > 100


@pytest.mark.corpus
@pytest.mark.parametrize(("pattern", "form"), [row for row in CRASHES if row[1] in NAMES])
def test_crashes_of_the_corpus(corpus: Path, pattern: str, form: str) -> None:
    paths = [p for p in sorted(corpus.glob(pattern)) if p.name not in EXCEPT and p.stat().st_size]
    if form == "minidump":  # Microdumps and what yaml2obj refused have that ending too.
        paths = [p for p in paths if p.read_bytes()[:4] in {b"MDMP", b"PMDM"}]
    assert paths
    wrong = {p.name: found for p in paths if (found := hits(unpacked(p), p.name)) != [form]}
    assert wrong == {}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 4096,
        b"\x89PNG\r\n\x1a\n" + bytes(64),
        b"\xff\xd8\xff\xe0" + bytes(64),
        b"GIF89a" + bytes(64),
        b"%PDF-1.7\n",
        b"hello world\n" * 100,
        b"{}",
        b"[]",
        b"<html><body>Aborted</body></html>",
        b"def f():\n    raise ValueError('x')\n",
        b"#include <assert.h>\nint main() { assert(0); }\n",
    ],
)
def test_what_is_no_crash(data: bytes) -> None:
    assert hits(data, "file") == []


def test_a_log_beside_a_dump_is_its_attachment(fixtures: Path, tmp_path: Path) -> None:
    """The log of a program that crashed tells of the same crash; alone it is what there is to read."""
    dump = fixtures / "linux/x86_64/pie-O0/dumps/divide.dmp"
    log = tmp_path / "app.log"
    log.write_text("starting\nterminate called after throwing an instance of 'x'\nAborted (core dumped)\n")
    with zipfile.ZipFile(tmp_path / "both.zip", "w") as both, zipfile.ZipFile(tmp_path / "alone.zip", "w") as alone:
        both.write(log, "app.log")
        both.write(dump, "crash.dmp")
        alone.write(log, "app.log")
    with Engine(Config(store=str(tmp_path / "store"))) as engine:
        (event,) = engine.process_all(tmp_path / "both.zip")
        assert event.source.format == "minidump"
        assert [a.name for a in event.attachments or ()] == ["app.log"]
        (event,) = engine.process_all(tmp_path / "alone.zip")
        assert event.source.format == "terminate"
