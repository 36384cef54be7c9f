"""The structures of a minidump, declared once, in the order and with the names of their headers.

Microsoft's are from ``minidumpapiset.h`` and ``verrsrc.h`` (all packed to 4 bytes), those named ``MDRaw...`` from
Breakpad's ``minidump_format.h``, those named ``Minidump...`` from Crashpad's ``minidump_extensions.h``.
A structure of which a file has many is a numpy dtype, one that comes once a ``struct.Struct``.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct

import numpy as np

MINIDUMP_SIGNATURE = b"MDMP"
MINIDUMP_SIGNATURE_BIG_ENDIAN = b"PMDM"
MINIDUMP_VERSION = 0xA793
"""Low half of ``Version``; the high half is the writer's own business."""

# Signature, Version, NumberOfStreams, StreamDirectoryRva, CheckSum, TimeDateStamp, Flags
MINIDUMP_HEADER = Struct("<4sIIIIIQ")
MINIDUMP_DIRECTORY = Struct("<III")  # StreamType, DataSize, Rva


class StreamType(IntEnum):
    """``MINIDUMP_STREAM_TYPE`` with the additions of Breakpad, Crashpad and Mozilla, as far as they are read here."""

    UnusedStream = 0
    ThreadListStream = 3
    ModuleListStream = 4
    MemoryListStream = 5
    ExceptionStream = 6
    SystemInfoStream = 7
    ThreadExListStream = 8
    Memory64ListStream = 9
    CommentStreamA = 10
    CommentStreamW = 11
    HandleDataStream = 12
    UnloadedModuleListStream = 14
    MiscInfoStream = 15
    MemoryInfoListStream = 16
    ThreadNamesStream = 24
    MD_BREAKPAD_INFO_STREAM = 0x47670001
    MD_ASSERTION_INFO_STREAM = 0x47670002
    MD_LINUX_CPU_INFO = 0x47670003
    MD_LINUX_PROC_STATUS = 0x47670004
    MD_LINUX_LSB_RELEASE = 0x47670005
    MD_LINUX_CMD_LINE = 0x47670006
    MD_LINUX_ENVIRON = 0x47670007
    MD_LINUX_AUXV = 0x47670008
    MD_LINUX_MAPS = 0x47670009
    MD_CRASHPAD_INFO_STREAM = 0x43500001
    MozSoftErrors = 0x4D7A0004


STREAM_NAMES: dict[int, str] = {stream.value: stream.name for stream in StreamType}


class ProcessorArchitecture(IntEnum):
    """``PROCESSOR_ARCHITECTURE_*`` of winnt.h and ``MD_CPU_ARCHITECTURE_*`` of Breakpad: those that are unwound."""

    INTEL = 0
    ARM = 5
    AMD64 = 9
    IA32_ON_WIN64 = 10
    ARM64 = 12
    ARM64_OLD = 0x8003
    """Breakpad's own number, used on Android and by early macOS writers before Microsoft had given one."""


OS_NAMES = {
    0: "Windows",
    1: "Windows",
    2: "Windows",
    3: "Windows",
    0x8000: "Unix",
    0x8101: "macOS",
    0x8102: "iOS",
    0x8201: "Linux",
    0x8202: "Solaris",
    0x8203: "Android",
    0x8204: "PS3",
    0x8205: "NaCl",
    0x8206: "Fuchsia",
}
"""``PlatformId``: VER_PLATFORM_* and MD_OS_*."""

# ProcessorArchitecture, ProcessorLevel, ProcessorRevision, NumberOfProcessors, ProductType, MajorVersion, MinorVersion,
# BuildNumber, PlatformId, CSDVersionRva, SuiteMask, Reserved2, CPU_INFORMATION (x86: VendorId first)
MINIDUMP_SYSTEM_INFO = Struct("<HHHBBIIIIIHH24s")

# ThreadId, ExceptionCode, ExceptionFlags, ExceptionRecord, ExceptionAddress, NumberParameters,
# ExceptionInformation[15], ThreadContext.DataSize, ThreadContext.Rva
MINIDUMP_EXCEPTION_STREAM = Struct("<I4xIIQQI4x15QII")

# SizeOfInfo, Flags1, ProcessId, ProcessCreateTime, ProcessUserTime, ProcessKernelTime
MINIDUMP_MISC_INFO = Struct("<IIIIII")
MINIDUMP_MISC1_PROCESS_ID = 0x1
MINIDUMP_MISC1_PROCESS_TIMES = 0x2
MINIDUMP_MISC4_BUILDSTRING = 0x100
MISC_INFO_4_BUILD_STRING = (232, 520)
"""Offset and size in bytes of ``BuildString``, WCHAR[260]."""

_LOCATION = [("DataSize", "<u4"), ("Rva", "<u4")]

MINIDUMP_MEMORY_DESCRIPTOR = np.dtype([("StartOfMemoryRange", "<u8"), *_LOCATION])
MINIDUMP_MEMORY_DESCRIPTOR64 = np.dtype([("StartOfMemoryRange", "<u8"), ("DataSize", "<u8")])
MINIDUMP_MEMORY64_LIST = Struct("<QQ")  # NumberOfMemoryRanges, BaseRva

_THREAD = [
    ("ThreadId", "<u4"),
    ("SuspendCount", "<u4"),
    ("PriorityClass", "<u4"),
    ("Priority", "<u4"),
    ("Teb", "<u8"),
    ("Stack", MINIDUMP_MEMORY_DESCRIPTOR),
    ("ThreadContext", _LOCATION),
]
MINIDUMP_THREAD = np.dtype(_THREAD)
MINIDUMP_THREAD_EX = np.dtype([*_THREAD, ("BackingStore", MINIDUMP_MEMORY_DESCRIPTOR)])

MINIDUMP_THREAD_NAME = np.dtype([("ThreadId", "<u4"), ("RvaOfThreadName", "<u8")])

VS_FIXEDFILEINFO = np.dtype(
    [
        ("dwSignature", "<u4"),
        ("dwStrucVersion", "<u4"),
        ("dwFileVersionMS", "<u4"),
        ("dwFileVersionLS", "<u4"),
        ("dwProductVersionMS", "<u4"),
        ("dwProductVersionLS", "<u4"),
        ("dwFileFlagsMask", "<u4"),
        ("dwFileFlags", "<u4"),
        ("dwFileOS", "<u4"),
        ("dwFileType", "<u4"),
        ("dwFileSubtype", "<u4"),
        ("dwFileDateMS", "<u4"),
        ("dwFileDateLS", "<u4"),
    ],
)
VS_FFI_SIGNATURE = 0xFEEF04BD
VFT_APP = 1
FILE_VERSION = ("dwFileVersionMS", "dwFileVersionLS", "dwProductVersionMS", "dwProductVersionLS")

MINIDUMP_MODULE = np.dtype(
    [
        ("BaseOfImage", "<u8"),
        ("SizeOfImage", "<u4"),
        ("CheckSum", "<u4"),
        ("TimeDateStamp", "<u4"),
        ("ModuleNameRva", "<u4"),
        ("VersionInfo", VS_FIXEDFILEINFO),
        ("CvRecord", _LOCATION),
        ("MiscRecord", _LOCATION),
        ("Reserved0", "<u8"),
        ("Reserved1", "<u8"),
    ],
)

MINIDUMP_UNLOADED_MODULE = np.dtype(
    [
        ("BaseOfImage", "<u8"),
        ("SizeOfImage", "<u4"),
        ("CheckSum", "<u4"),
        ("TimeDateStamp", "<u4"),
        ("ModuleNameRva", "<u4"),
    ],
)
EX_LIST_32 = Struct("<III")
"""SizeOfHeader, SizeOfEntry, NumberOfEntries: MINIDUMP_UNLOADED_MODULE_LIST, MINIDUMP_THREAD_INFO_LIST."""
EX_LIST_64 = Struct("<IIQ")
"""The same with a 64-bit count: MINIDUMP_MEMORY_INFO_LIST."""

MINIDUMP_MEMORY_INFO = np.dtype(
    [
        ("BaseAddress", "<u8"),
        ("AllocationBase", "<u8"),
        ("AllocationProtect", "<u4"),
        ("__alignment1", "<u4"),
        ("RegionSize", "<u8"),
        ("State", "<u4"),
        ("Protect", "<u4"),
        ("Type", "<u4"),
        ("__alignment2", "<u4"),
    ],
)
MEM_COMMIT = 0x1000
MEM_FREE = 0x10000
PAGE_GUARD = 0x100
PAGE_ACCESS = {0x02: 1, 0x04: 3, 0x08: 3, 0x10: 4, 0x20: 5, 0x40: 7, 0x80: 7}
"""PAGE_* protection to ``Regions.access`` bits; PAGE_NOACCESS and anything unknown have none."""

# CodeView records: what follows the four-byte signature.
CV_RSDS = b"RSDS"  # CvInfoPDB70: Signature GUID, Age u32, PdbFileName
CV_NB10 = b"NB10"  # CvInfoPDB20: Offset u32, Signature u32, Age u32, PdbFileName
CV_ELF = b"LEpB"  # MDCVInfoELF, MD_CVINFOELF_SIGNATURE 0x4270454c ("BpEL" read as a big-endian number): build_id

MDRawBreakpadInfo = Struct("<III")  # validity, dump_thread_id, requesting_thread_id
MD_BREAKPAD_INFO_VALID_DUMP_THREAD_ID = 0x1
MD_BREAKPAD_INFO_VALID_REQUESTING_THREAD_ID = 0x2
MDRawAssertionInfo = Struct("<256s256s256sII")  # expression, function, file (UTF-16, 128 units each), line, type

# version, report_id, client_id, simple_annotations, module_list
MinidumpCrashpadInfo = Struct("<I16s16sIIII")
MinidumpSimpleStringDictionaryEntry = np.dtype([("key", "<u4"), ("value", "<u4")])
MinidumpModuleCrashpadInfoLink = np.dtype([("minidump_module_list_index", "<u4"), *_LOCATION])
MinidumpModuleCrashpadInfo = Struct("<IIIII")  # version, list_annotations, simple_annotations; after them:
LOCATION = Struct("<II")  # annotation_objects, which writers before 2017 don't have
MinidumpAnnotation = np.dtype([("name", "<u4"), ("type", "<u2"), ("reserved", "<u2"), ("value", "<u4")])
ANNOTATION_TYPE_STRING = 1
MinidumpRVAList = np.dtype([("children", "<u4")])
