"""How each crash format is told by its content: one function a format, named as the format is.

Cheap checks first: every file of an archive is shown to all of them. What a reader has to say about a damaged file of
its format is worth more than "unknown", so a sniffer asks for as little as tells the format from all others.
"""

from __future__ import annotations

import re
import zlib
from typing import Literal

from deadreckon.reports.probe import Probe, members_of
from deadreckon.wire import encoding, multipart, snapshot

__all__ = [
    "anr",
    "apple_crash",
    "apple_ips",
    "apple_panic",
    "backtrace_form",
    "backtrace_json",
    "btt",
    "casr",
    "elfcore",
    "gdb",
    "go",
    "hs_err",
    "java",
    "javascript",
    "kernel",
    "kscrash",
    "metrickit",
    "microdump",
    "minidump",
    "plcrash",
    "posthog",
    "python",
    "rollbar",
    "rust",
    "sanitizer",
    "sentry_envelope",
    "sentry_event",
    "sentry_minidump",
    "terminate",
    "tombstone",
    "unreal",
    "windbg",
]

_BACKTRACE = frozenset({"agent", "agentVersion", "entryThread", "lang", "langVersion", "mainThread"})


def minidump(probe: Probe) -> bool:
    """Windows' header signature, in either byte order."""
    return probe.head[:4] in {b"MDMP", b"PMDM"}


def elfcore(probe: Probe) -> bool:
    """An ELF file of type ET_CORE."""
    head = probe.head
    order: Literal["little", "big"] = "big" if head[5:6] == b"\2" else "little"
    return head[:4] == b"\x7fELF" and int.from_bytes(head[16:18], order) == 4


def plcrash(probe: Probe) -> bool:
    """PLCrashReporter's name and a version, which is no character of a text."""
    return probe.head[:7] == b"plcrash" and probe.head[7:8] < b" "


def btt(probe: Probe) -> bool:
    """Our snapshot container. What Backtrace's own tools write has no public signature."""
    return snapshot.is_snapshot(probe.head)


def backtrace_json(probe: Probe) -> bool:
    """An object with threads by their id, and who sent it; no other format speaks of ``mainThread`` or an agent."""
    found = probe.json
    if found:
        marks = _BACKTRACE & found.keys()
        threads = bytes(found.get("threads", b"")).lstrip()
        # Only the manual's required members are sure to be there, and threads may be null.
        return bool(marks - {"lang"}) if threads[:1] == b"{" else len(marks) > 3 and "uuid" in found
    # Cut short, or else damaged: the reader says where.
    return probe.text.lstrip()[:1] == "{" and '"langVersion"' in probe.text and '"agentVersion"' in probe.text


def sentry_minidump(probe: Probe) -> bool:
    """A form with a minidump, in the field that Breakpad's uploaders put it in."""
    return multipart.boundary_in(probe.head) is not None and b'name="upload_file_minidump"' in _form(probe)


def backtrace_form(probe: Probe) -> bool:
    """A form with the field that Backtrace wants reports in."""
    return multipart.boundary_in(probe.head) is not None and b'name="upload_file"' in _form(probe)


def _form(probe: Probe) -> bytes:
    # What is to be uploaded may come after other files.
    return bytes(probe.data[: 64 << 20])


_ENVELOPE_HEADER = frozenset({"event_id", "sent_at", "dsn", "sdk", "trace", "retention"})
_ENVELOPE_ITEM = re.compile(rb"[\r\n]+[ \t]*(\{[^\n]{0,65536})(?:\n|\Z)")


def sentry_envelope(probe: Probe) -> bool:
    """A line with nothing but what an envelope's header may have, then one with an item's type; also compressed."""
    head = _unpacked_head(probe)
    line, _, _ = head.partition(b"\n")
    item = _ENVELOPE_ITEM.match(head, len(line.rstrip(b"\r")))
    if line[:1] != b"{" or item is None:
        return False
    header = Probe(line).json
    return (
        (line.strip() == b"{}" or bool(header)) and header.keys() <= _ENVELOPE_HEADER and "type" in Probe(item[1]).json
    )


def _unpacked_head(probe: Probe) -> bytes:
    if probe.head[:1] in b"{\r\n\xef":
        return bytes(probe.data[: 256 << 10]).removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n")
    return encoding.beginning(bytes(probe.data[: 64 << 10]))


_ROLLBAR_BODIES = frozenset({"trace", "trace_chain", "message", "crash_report"})


def rollbar(probe: Probe) -> bool:
    """An item's data with one of the bodies, in JSON or in a form's field ``payload``."""
    if probe.head[:8] == b"payload=":
        return b"%22data%22" in probe.head or b'"data"' in probe.head or b"%22body%22" in probe.head
    found = probe.json
    data = members_of(found["data"]) if "data" in found else found
    if not data:
        text = probe.text
        return not found and text.lstrip()[:1] == "{" and '"access_token"' in text and '"environment"' in text
    return "body" in data and bool(_ROLLBAR_BODIES & members_of(data["body"]).keys())


_POSTHOG_FORMS = (b"data=eyJ", b"data=W3s", b"data=%7B", b"data=%5B", b"data={", b"data=[")


def posthog(probe: Probe) -> bool:
    """Events of PostHog with an exception among them: one, a list of them, or a batch; in JSON or in a form."""
    found = probe.json
    if found:
        return ("batch" in found or {"event", "properties"} <= found.keys()) and _speaks_of_exceptions(probe)
    if probe.head[:8].startswith(_POSTHOG_FORMS):
        return True
    return probe.text.lstrip()[:1] in {"{", "["} and '"$exception"' in probe.text and '"properties"' in probe.text


def _speaks_of_exceptions(probe: Probe) -> bool:
    text = probe.text
    return '"$exception' in text or '\\"$exception' in text


_SENTRY = frozenset({"debug_meta", "logentry", "_meta", "sdk", "breadcrumbs", "contexts"})
_SENTRY_BESIDE = frozenset(
    {"culprit", "exception", "level", "logger", "message", "platform", "release", "stacktrace", "tags", "threads"}
    | {"timestamp", "transaction", "type", "user", "request"}
)


def sentry_event(probe: Probe) -> bool:
    """An event's interfaces, of today or of before 2018, in JSON, or with zlib around it, that in base64 too."""
    found = probe.json
    if not found:
        text = encoding.beginning(bytes(probe.data[: 64 << 10])).decode("utf-8", "replace") or probe.text
        if text.lstrip()[:1] != "{" or sentry_envelope(probe) or rollbar(probe) or posthog(probe):
            return False
        return '"event_id"' in text or '"sentry.interfaces.' in text or ('"exception"' in text and '"values"' in text)
    keys = found.keys()
    if "schema" in keys or "batch" in keys or rollbar(probe) or backtrace_json(probe) or kscrash(probe):
        return False
    if any(key.startswith("sentry.interfaces.") for key in keys) or {"event", "issue_title"} <= keys:
        return True
    if ("event_id" in keys or "platform" in keys or _SENTRY & keys) and _SENTRY_BESIDE & keys:
        return not {"properties", "bug_type"} & keys
    told = (members_of(found[name]) for name in ("exception", "threads", "stacktrace", "logentry") if name in found)
    return any({"values", "frames", "formatted"} & members.keys() for members in told)


_IPS_HEADER = re.compile(
    r'^[ \t]*\{"?[^\n]{0,4000}"(?:bug_type|incident_id|share_with_app_devs|roots_installed)" ?:', re.MULTILINE
)
_IPS_BODY = ({"threads", "usedImages"}, {"procName", "usedImages"}, {"panicString"}, {"processByPid", "binaryImages"})


def apple_ips(probe: Probe) -> bool:
    """The header that Apple's reports have on a line of its own, below a translation too; or the second document."""
    if probe.json:
        return "bug_type" in probe.json or any(keys <= probe.json.keys() for keys in _IPS_BODY)
    return ("bug_type" in probe.text or "incident_id" in probe.text) and _IPS_HEADER.search(probe.text) is not None


def apple_panic(probe: Probe) -> bool:
    """The line that a kernel's panic log begins with."""
    return "panic(cpu " in probe.text and not apple_ips(probe) and probe.text.lstrip()[:1] != "{"


_APPLE_FIELDS = re.compile(
    r"^[ \t]*(?:Incident Identifier|CrashReporter Key|Anonymous UUID|Report Version|Exception Type|Binary Images"
    r"|Last Exception Backtrace|Thread \d+ Crashed|dSYM UUID|Heaviest stack for the target process"
    r"|\*\*\* First throw call stack):",
    re.MULTILINE,
)
_APPLE_STACK = re.compile(
    r"^[ \t]*Thread \d+(?: name)?:[^\n]*\n(?:[^\n]*\n)?[ \t]*0[ \t]+\S[^\n]{0,200}0x[0-9a-f]{6,16}[ \t]", re.MULTILINE
)


def apple_crash(probe: Probe) -> bool:
    """A header line that only Apple's reports and those in their likeness have, or a thread with its first frame."""
    text = probe.text
    if not text or text.lstrip()[:1] == "{" or apple_ips(probe) or apple_panic(probe):
        return False
    return _APPLE_FIELDS.search(text) is not None or _APPLE_STACK.search(text) is not None


def kscrash(probe: Probe) -> bool:
    """A crash beside the images or the system it happened in; KSCrash's "report" says of itself what it is."""
    found = probe.json
    if found:
        beside = {"binary_images", "report", "system"} & found.keys()
        is_object = bytes(memoryview(found.get("crash", b""))[:64]).lstrip()[:1] == b"{"
        return "recrash_report" in found or (is_object and bool(beside))
    text = probe.text
    return text.lstrip()[:1] == "{" and '"image_addr"' in text and '"binary_images"' in text and '"cpu_subtype"' in text


_METRICKIT = re.compile(
    r'"(?:callStackRootFrames|callStackTree|callStackThreads|(?:crash|hang|cpuException|diskWriteException|appLaunch)Diagnostics)"'
)


def metrickit(probe: Probe) -> bool:
    """A call stack tree, or a payload of diagnostics with one; alone or in an array."""
    return probe.text.lstrip()[:1] in {"{", "["} and _METRICKIT.search(probe.text) is not None


def unreal(probe: Probe) -> bool:
    """A container's header and first file, inflated or in a zlib stream; the names' lengths have to lead to index 0."""
    start = probe.head
    if start[:1] == b"\x78":
        try:
            start = zlib.decompressobj().decompress(start, 2048)
        except zlib.error:
            return False
    at = 3 if start[:3] == b"CR1" else 0
    for _ in range(2):
        size = int.from_bytes(start[at : at + 4], "little")
        if not 0 < size <= 1024 or at + 4 + size > len(start):
            return False
        at += 4 + size
    return b".ue4crash" in start[:at] or (start[:3] == b"CR1" and start[at + 8 : at + 12] == bytes(4))


def casr(probe: Probe) -> bool:
    """CASR's report: its severity and its stack."""
    return {"CrashSeverity", "Stacktrace", "ProcCmdline"} <= probe.json.keys()


_TOMBSTONE_PROTO = re.compile(
    rb"\A(?:\x08[\x01-\x05])?\x12(?:[\x10-\x7f]|[\x80-\xff]\x01)[!-.0-~]+/[!-.0-~]+/[!-.0-9;-~]+:[!-~]"
)
"""Field 1 (arch) unless it is the default, and field 2, a build fingerprint: ``brand/product/device:release/...``."""
_TOMBSTONE = re.compile(
    rb"#\d\d +pc (?:0x)?[0-9a-f]{8}|pid: \d{1,10}, tid: \d{1,10}(?:, name: [^\n]{0,200})?  >>> [^\n]{0,4000} <<<"
)
_MICRODUMP = re.compile(rb"google-breakpad[^\n]{0,40}: -----BEGIN BREAKPAD MICRODUMP-----")
_ANR = re.compile(
    rb"(?:^|: )(?:-{5} (?:pid \d{1,10} at |Waiting Channels: pid |dumping pid: )|DALVIK THREADS \()", re.MULTILINE
)
_JAVA = re.compile(
    rb"(?:^|[\s:])at (?:[\w.@-]*/)*(?:[\w$\x80-\xff-]+\.)+[\w$<>\x80-\xff-]+"
    rb"\((?:Native [Mm]ethod|Unknown Source(?::\d+)?|[^()\s,]+)\)\s*(?:~?\[[^\]\n]*\]\s*)?$",
    re.MULTILINE,
)
_SEARCHED = 16 << 20
"""How much of a text's beginning and of its end is searched for a crash: as much as is read of a long log."""


def microdump(probe: Probe) -> bool:
    """The line that begins one, in a log."""
    return _searched(probe, _MICRODUMP)


def tombstone(probe: Probe) -> bool:
    """A tombstone's first fields; or in a text Android's native frames, or the line that names thread and process."""
    if _TOMBSTONE_PROTO.match(probe.head):
        return True
    return _searched(probe, _TOMBSTONE) and not anr(probe)


def anr(probe: Probe) -> bool:
    """The lines that begin a process's section or its threads."""
    return _searched(probe, _ANR)


def java(probe: Probe) -> bool:
    """A frame as Java prints it: no space before the bracket, and a file or why there is none in it."""
    return _searched(probe, _JAVA) and not anr(probe) and not tombstone(probe)


def _searched(probe: Probe, pattern: re.Pattern[bytes]) -> bool:
    """Search a text that no reader of logs knows."""
    start = probe.text[:64].lstrip()[:1]
    if not start or start in "{[<" or probe.log is not None:
        return False
    with memoryview(probe.data) as data:
        parts = (data,) if len(data) <= 2 * _SEARCHED else (data[:_SEARCHED], data[-_SEARCHED:])
        return any(pattern.search(part) for part in parts)


def _log(probe: Probe) -> str | None:
    """Return what kind of log it is, None for an Apple report: these quote what a program said last."""
    return None if probe.log is not None and (apple_crash(probe) or apple_panic(probe)) else probe.log


def hs_err(probe: Probe) -> bool:
    """A log of the Java virtual machine's own crash."""
    return _log(probe) == "hs_err"


def sanitizer(probe: Probe) -> bool:
    """A log with a report of a sanitizer or a fuzzer."""
    return _log(probe) == "sanitizer"


def go(probe: Probe) -> bool:
    """A log with a Go program's panic, fatal error or data race."""
    return _log(probe) == "go"


def rust(probe: Probe) -> bool:
    """A log with a Rust panic."""
    return _log(probe) == "rust"


def python(probe: Probe) -> bool:
    """A log with a Python traceback."""
    return _log(probe) == "python"


def kernel(probe: Probe) -> bool:
    """A log with an oops, a panic or KASAN's report."""
    return _log(probe) == "kernel"


def windbg(probe: Probe) -> bool:
    """A log of WinDbg or cdb."""
    return _log(probe) == "windbg"


def gdb(probe: Probe) -> bool:
    """A log with a stack of gdb's or LLDB's, or the signal that they saw."""
    return _log(probe) == "gdb"


def terminate(probe: Probe) -> bool:
    """A log in which a native program says why it ends."""
    return _log(probe) == "terminate"


def javascript(probe: Probe) -> bool:
    """Frames as JavaScript engines print them, or an error of theirs as JSON."""
    text = probe.text
    if not any(mark in text for mark in ("at ", "@", "Line ", "stack", "created by ")):
        return False
    from deadreckon.reports.javascript import telling  # noqa: PLC0415  (most inputs are something else)

    return telling.stack_text(text) or (bool(probe.json) and telling.serialized_error(probe.json))
