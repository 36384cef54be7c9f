"""Minidumps, of Windows, Breakpad and Crashpad, into a RawCrash.

Specifications: Microsoft ``minidumpapiset.h``, Breakpad ``minidump_format.h``, Crashpad ``minidump_extensions.h``.

``layouts`` declares the structures, ``dump`` reads them with bounds, ``streams``, ``extensions`` and ``handles`` have a
function for each stream, ``contexts`` the registers and ``reasons`` the names of exceptions. A stream that contradicts
its structure costs what it would have said, and a diagnostic; only a dump in which nothing can be read raises.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from deadreckon.errors import LimitExceeded, Malformed, Unsupported
from deadreckon.model.crash import RawCrash, RawException, RawThread
from deadreckon.model.ids import Arch
from deadreckon.reports.minidump import extensions, streams
from deadreckon.reports.minidump.contexts import read_contexts
from deadreckon.reports.minidump.dump import Dump
from deadreckon.reports.minidump.handles import handle_data
from deadreckon.reports.minidump.layouts import MINIDUMP_SIGNATURE, MINIDUMP_SIGNATURE_BIG_ENDIAN, StreamType
from deadreckon.reports.minidump.reasons import DUMP_REQUESTED, reason

if TYPE_CHECKING:
    from mmap import mmap

    from deadreckon.config import ReportLimits
    from deadreckon.reports.minidump.streams import Reading, StreamReader

__all__ = ["read", "sniff"]

# In the order of reading: the system comes first, for others depend on it; MemoryInfoList after the maps of Linux, for
# it says more; annotations last, for they must not hide what the dump itself says.
_READERS: tuple[tuple[StreamType, StreamReader], ...] = (
    (StreamType.SystemInfoStream, streams.system_info),
    (StreamType.MiscInfoStream, streams.misc_info),
    (StreamType.CommentStreamA, streams.comment),
    (StreamType.CommentStreamW, streams.comment),
    (StreamType.ModuleListStream, streams.modules),
    (StreamType.UnloadedModuleListStream, streams.unloaded_modules),
    (StreamType.ExceptionStream, streams.exception),
    (StreamType.ThreadListStream, streams.threads),
    (StreamType.ThreadExListStream, streams.threads_ex),
    (StreamType.ThreadNamesStream, streams.thread_names),
    (StreamType.MemoryListStream, streams.memory_list),
    (StreamType.Memory64ListStream, streams.memory64_list),
    (StreamType.MD_LINUX_MAPS, extensions.linux_maps),
    (StreamType.MemoryInfoListStream, streams.memory_info_list),
    (StreamType.HandleDataStream, handle_data),
    (StreamType.MD_BREAKPAD_INFO_STREAM, extensions.breakpad_info),
    (StreamType.MD_ASSERTION_INFO_STREAM, extensions.assertion_info),
    (StreamType.MD_LINUX_CPU_INFO, extensions.linux_cpu_info),
    (StreamType.MD_LINUX_PROC_STATUS, extensions.linux_proc_status),
    (StreamType.MD_LINUX_LSB_RELEASE, extensions.linux_lsb_release),
    (StreamType.MD_LINUX_CMD_LINE, extensions.linux_cmd_line),
    (StreamType.MD_LINUX_ENVIRON, extensions.linux_environ),
    (StreamType.MD_LINUX_AUXV, extensions.linux_auxv),
    (StreamType.MozSoftErrors, extensions.mozilla_soft_errors),
    (StreamType.MD_CRASHPAD_INFO_STREAM, extensions.crashpad_info),
)


def sniff(head: memoryview) -> bool:
    """Whether a file that begins so is a minidump, of either byte order."""
    return bytes(head[:4]) in {MINIDUMP_SIGNATURE, MINIDUMP_SIGNATURE_BIG_ENDIAN}


def read(data: bytes | memoryview | mmap, limits: ReportLimits) -> RawCrash:
    """Read a minidump. The crash's memory is a view of ``data``, which must stay open as long as it is used.

    Raises Malformed where header or directory can't be read or nothing else can, Unsupported for a big-endian dump,
    and LimitExceeded for one larger than ``max_bytes``.
    """
    if len(data) > limits.max_bytes:
        raise LimitExceeded("max_bytes", limits.max_bytes, len(data), "minidump")
    if data[:4] == MINIDUMP_SIGNATURE_BIG_ENDIAN:
        raise Unsupported("big-endian minidump: none of the CPUs that are unwound writes one")
    dump = Dump(data, limits)
    crash = RawCrash("minidump", diagnostics=dump.diagnostics, timestamp=float(dump.time_date_stamp) or None)
    reading = streams.Reading(dump, crash)
    for stream_type, read_stream in _READERS:
        stream = dump.streams.get(stream_type)
        if stream is not None:
            dump.attempt(stream.name, partial(read_stream, reading, stream))
    crash.memory = streams.memory_map(reading)
    extensions.main_module_name(reading)
    _threads(reading)
    if not (crash.threads or crash.exceptions or crash.modules or len(crash.memory.start) or crash.regions):
        raise Malformed("minidump", expected="a stream that can be read", got=f"{len(dump.streams)} streams")
    for needed in (StreamType.SystemInfoStream, StreamType.ThreadListStream):
        if needed not in dump.streams:
            dump.note("stream_malformed", f"the dump has no {needed.name}", {"stream": needed.name})
    return crash


def _threads(reading: Reading) -> None:
    """Make threads and the exception: the thread that stopped starts from the exception's context, not its own.

    The thread that wrote the dump shows the writer at work, so that it is listed without registers or frames.
    """
    dump, crash, exception = reading.dump, reading.crash, reading.exception
    stopped = reading.requesting_thread if exception is None else exception.thread_id
    # A damaged list may have an id twice.
    stopped_index = next((i for i, t in enumerate(reading.threads) if t.id == stopped), None)
    crashed = False
    locations = [thread.context for thread in reading.threads]
    if exception is not None:
        locations.append(exception.context)
    registers = read_contexts(dump.buffer, locations, crash.arch)
    at_exception = registers.pop() if exception is not None else None
    if crash.arch is Arch.UNKNOWN and StreamType.SystemInfoStream not in dump.streams:
        crash.arch = next((r.arch for r in (at_exception, *registers) if r is not None), Arch.UNKNOWN)
    if exception is not None:
        why = reason(
            crash.os_name, crash.arch, exception.code, exception.flags, exception.address, exception.information
        )
        crashed = why.type != DUMP_REQUESTED
        crash.exceptions.append(
            RawException(
                why.type,
                why.value,
                exception.code,
                why.address,
                "minidump",
                exception.thread_id,
                access=why.access,
                address_hidden=why.hidden,
            )
        )
    elif stopped is not None:
        crash.exceptions.append(RawException(DUMP_REQUESTED, mechanism="minidump", thread_id=stopped))
    without_context: list[int] = []
    for i, (thread, own) in enumerate(zip(reading.threads, registers, strict=True)):
        name = reading.thread_names.get(thread.id)
        if i == stopped_index:
            found = at_exception or own
            if crash.os_name == "Windows":
                _last_error(crash, thread)
        elif thread.id == reading.dump_thread:
            crash.threads.append(RawThread(thread.id, name, frames=[]))
            continue
        else:
            found = own
        if found is None:
            without_context.append(thread.id)
        crash.threads.append(RawThread(thread.id, name, crashed and i == stopped_index, found))
    if at_exception is not None and stopped is not None and stopped_index is None:
        # Half a dump: its thread list was lost, but the exception has what a stack needs to begin.
        name = reading.thread_names.get(stopped)
        crash.threads.insert(0, RawThread(stopped, name, crashed, at_exception))
    if without_context and crash.arch is not Arch.UNKNOWN:
        dump.note(
            "context_missing",
            f"{len(without_context)} of {len(reading.threads)} threads have no readable context",
            {"thread": without_context[0], "got": len(without_context)},
        )


def _last_error(crash: RawCrash, thread: streams.Thread) -> None:
    """Read GetLastError(): TEB.LastErrorValue, 13 pointers into the thread's environment block."""
    value = crash.memory.read(thread.teb + 13 * crash.arch.word_size, 4) if thread.teb else None
    if value is not None:
        crash.attributes["last_error"] = hex(int.from_bytes(value, "little"))
