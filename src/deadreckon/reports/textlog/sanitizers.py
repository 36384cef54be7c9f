"""What the sanitizers of LLVM and GCC say of an error, from its first line and the ones after it.

Sources: LLVM compiler-rt ``asan_errors.cpp``, ``asan_descriptions.cpp``, ``hwasan_report.cpp``, ``msan_report.cpp``,
``tsan_report.cpp``, ``lsan_common.cpp``, ``ubsan_diag.cpp``, ``ubsan_handlers.cpp``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from deadreckon.reports.textlog.findings import NULL_PAGES, Finding, Kind, decimal, hexadecimal, signal_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deadreckon.reports.textlog.findings import Row

__all__ = ["ROWS", "SANITIZERS"]

SANITIZERS = (
    "Address|HWAddress|Memory|Thread|Leak|UndefinedBehavior|DataFlow|Type|Realtime|NumericalStability|Kernel.{0,12}"
)

_SIGNALS = frozenset(
    """
    SEGV ABRT BUS FPE ILL TRAP SYS UNKNOWN access-violation illegal-instruction breakpoint int-divide-by-zero
    int-overflow flt-divide-by-zero flt-overflow flt-invalid-operation priv-instruction in-page-error
    datatype-misalignment array-bounds-exceeded guard-page unknown-exception
    """.split()
)
_TITLES = (
    # What follows the sanitizer's name; its type, as SUMMARY spells it; ClusterFuzz's, where it isn't the same.
    ("attempting double-free", "double-free", "Heap-double-free"),
    ("attempting free on address which was not malloc", "bad-free", "Invalid-free"),
    ("attempting free on address", "bad-free", "Invalid-free"),
    ("invalid-free", "invalid-free", "Invalid-free"),
    ("attempting to call malloc_usable_size", "bad-malloc_usable_size", ""),
    ("attempting to call __sanitizer_get_allocated_size", "bad-__sanitizer_get_allocated_size", ""),
    ("allocator is out of memory", "out-of-memory", "Out-of-memory"),
    ("out of memory", "out-of-memory", "Out-of-memory"),
    ("requested allocation size", "allocation-size-too-big", "Out-of-memory"),
    ("specified RSS limit exceeded", "rss-limit-exceeded", "Out-of-memory"),
    ("hard rss limit exhausted", "rss-limit-exceeded", "Out-of-memory"),
    ("calloc parameters overflow", "calloc-overflow", ""),
    ("reallocarray parameters overflow", "reallocarray-overflow", ""),
    ("pvalloc parameters overflow", "pvalloc-overflow", ""),
    ("invalid allocation alignment", "invalid-allocation-alignment", ""),
    ("invalid aligned_alloc", "invalid-aligned-alloc-alignment", ""),
    ("invalid posix_memalign", "invalid-posix-memalign-alignment", ""),
    ("bad parameters to __sanitizer_annotate", "bad-__sanitizer_annotate_contiguous_container", ""),
    ("nested bug in the same thread", "nested-bug", ""),
    ("detected memory leaks", "memory leak", ""),
)
_TITLE = re.compile(r"([A-Za-z][\w -]{1,80}?)(?= on | \(|:|;|, | in thread|$)")
_ADDRESS = re.compile(r"(?:\bon (?:unknown )?address |\bon |: |^odr-violation \(|; heap object \[)(0x[0-9a-f]{1,16})\b")
_THREAD = re.compile(r"\bT(\d{1,7})\)?(?: \(([^)]{0,64})\))?$|in thread T(\d{1,7})")
_ACCESS = re.compile(
    r"(?P<access>READ|WRITE|ACCESS|[Rr]ead|[Ww]rite|[Aa]tomic (?:read|write)) of size (?P<size>\d{1,20}|\{\*\})"
    r" at (?:addr )?(?P<address>(?:0x)?[0-9a-f]{1,16})"
    r"(?:.*?(?:thread T(?P<thread>\d{1,7})|main thread|by task \S*/(?P<task>\d{1,10})))?"
)
_SIGNAL_ACCESS = re.compile(r"The signal is caused by a (READ|WRITE|UNKNOWN) memory access")
_REGISTERS = re.compile(r"\b(pc|bp|sp) (0x[0-9a-f]{1,16})")
_LEAK = re.compile(r"(Direct|Indirect) leak of (\d{1,20}) byte\(s\) in (\d{1,20}) object\(s\) allocated from")
_DETAIL_LINES = 16


def details(found: Finding, lines: Sequence[str], at: int) -> None:
    """Read what the lines after a header say: kind and size of the access, thread, what the address belongs to."""
    for line in lines[at + 1 : at + 1 + _DETAIL_LINES]:
        if "access" not in found.attributes and (match := _ACCESS.search(line)):
            found.attributes["access"] = match["access"].split()[-1].upper()
            found.attributes["access_size"] = match["size"]
            if found.address is None:
                found.address = hexadecimal(match["address"])
            if found.thread is None:
                found.thread = decimal(match["thread"]) if match["thread"] else 0 if "main thread" in line else None
            continue
        if match := _SIGNAL_ACCESS.search(line):
            found.attributes["access"] = match[1]
        elif line.startswith("SCARINESS: "):
            found.attributes["scariness"] = line[len("SCARINESS: ") :]
        elif line.lstrip().startswith("#") and ("0x" in line or " in " in line):
            return


def _sanitizer(match: re.Match[str], lines: Sequence[str], at: int) -> Finding | None:
    pid, level, name, rest = match.groups()
    if level == "WARNING" and name not in {"Memory", "Thread", "HWAddress"}:
        return None  # AddressSanitizer's warnings are about itself: ignore_asan_warning.txt
    told = next(((kind, other) for begin, kind, other in _TITLES if rest.startswith(begin)), None)
    title = _TITLE.match(rest)
    kind, crash_type = told or ((title[1].strip(), "") if title else (rest[:80].strip(), ""))
    signal = kind in _SIGNALS
    address = _ADDRESS.search(rest)
    thread = _THREAD.search(rest)
    found = Finding(
        Kind.SIGNAL if signal else Kind.REPORT,
        f"{name}Sanitizer",
        kind,
        crash_type=crash_type,
        address=hexadecimal(address[1]) if address else None,
        pid=decimal(pid),
        thread=decimal(thread[1] or thread[3]) if thread else None,
        attributes={key: value for key, value in _REGISTERS.findall(rest) if key != "pc"},
    )
    if pc := re.search(r"\bpc (0x[0-9a-f]{1,16})", rest):
        found.attributes["pc"] = pc[1]
        if kind == "FPE" and found.address == hexadecimal(pc[1]):
            found.address = None  # A SIGFPE's si_addr is the instruction, which the stack shows.
    details(found, lines, at)
    found.value = _value(found, rest)
    found.crash_type = crash_type or _crash_type(found, signal=signal)
    return found


def _value(found: Finding, rest: str) -> str:
    where = "" if found.address is None else f" at {found.address:#x}"
    if "access_size" in found.attributes:
        return f"{found.attributes['access']} of size {found.attributes['access_size']}{where}"
    if found.attributes.get("access") in {"READ", "WRITE"}:
        return f"{found.attributes['access']}{where}"
    if found.kind is Kind.SIGNAL and where:
        return where.strip()
    return re.split(r" \(pc | at pc ", rest, maxsplit=1)[0]


def _crash_type(found: Finding, *, signal: bool) -> str:
    kind, access = found.type, found.attributes.get("access", "")
    if signal:
        name = signal_name(kind, found.address)
        pointed = name in {"Null-dereference", "UNKNOWN"} and access in {"READ", "WRITE"}
        return f"{name} {access}" if pointed else name
    if kind == "unknown-crash":
        return "Null-dereference" if found.address is not None and found.address < NULL_PAGES else "UNKNOWN"
    name = kind[:1].upper() + kind[1:]
    size = found.attributes.get("access_size")
    return f"{name}\n{access} {size}" if size else name


def _leak(match: re.Match[str], _lines: Sequence[str], _at: int) -> Finding:
    return Finding(
        Kind.REPORT,
        "LeakSanitizer",
        f"{match[1].lower()} leak",
        f"{match[2]} bytes in {match[3]} objects",
        f"{match[1]}-leak",
        attributes={"leaked_bytes": match[2], "leaked_objects": match[3]},
    )


# --- UndefinedBehaviorSanitizer ---------------------------------------------------------------------------------------

_CHECKS: tuple[tuple[str, str, str], ...] = (
    # A part of the message; the check's name after -fsanitize=; ClusterFuzz's.
    ("control flow integrity check", "cfi", "Bad-cast"),
    ("unsigned integer overflow", "unsigned-integer-overflow", "Unsigned-integer-overflow"),
    ("signed integer overflow", "signed-integer-overflow", "Integer-overflow"),
    ("negation of ", "signed-integer-overflow", "Integer-overflow"),
    ("division by zero", "integer-divide-by-zero", "Divide-by-zero"),
    ("division of ", "signed-integer-overflow", "Integer-overflow"),
    ("shift", "shift", "Undefined-shift"),
    ("out of bounds", "bounds", "Index-out-of-bounds"),
    ("not a valid value for type 'bool'", "bool", "Invalid-bool-value"),
    ("not a valid value for type bool", "bool", "Invalid-bool-value"),
    ("not a valid value for type 'BOOL'", "bool", "Invalid-bool-value"),
    ("not a valid value", "enum", "Invalid-enum-value"),
    ("pointer index expression", "pointer-overflow", "Pointer-overflow"),
    ("offset to", "pointer-overflow", "Pointer-overflow"),
    ("offset from", "pointer-overflow", "Pointer-overflow"),
    ("applying ", "pointer-overflow", "Pointer-overflow"),
    ("misaligned", "alignment", "Misaligned-address"),
    ("assumption of", "alignment", "Misaligned-address"),
    ("load of null pointer", "null", "Null-dereference READ"),
    ("store to null pointer", "null", "Null-dereference WRITE"),
    ("upcast of null pointer", "null", "Upcast-of-null-pointer"),
    ("to null pointer", "null", "Null-dereference"),
    ("on null pointer", "null", "Null-dereference"),
    ("within null pointer", "null", "Null-dereference"),
    ("null pointer passed as argument", "nonnull-attribute", "Invalid-null-argument"),
    ("null pointer returned", "returns-nonnull-attribute", "Invalid-null-return"),
    ("insufficient space for an object", "object-size", "Object-size"),
    ("which does not point to an object of type", "vptr", "Bad-cast"),
    ("variable length array bound", "vla-bound", "Non-positive-vla-bound-value"),
    ("through pointer to incorrect function type", "function", "Incorrect-function-pointer-type"),
    ("reached an unreachable program point", "unreachable", "Unreachable code"),
    ("without returning a value", "return", "No-return-value"),
    ("implicit conversion", "implicit-conversion", "Implicit-conversion"),
    ("outside the range of representable values", "float-cast-overflow", "Float-cast-overflow"),
    ("passing zero to ", "builtin", "Invalid-builtin-use"),
    ("assumption is violated", "builtin", "Assumption-violation"),
)
_PLACE = re.compile(r":(\d{1,9})(?::(\d{1,9}))?$")
_NOTE = re.compile(r"note: ((?:object|vtable) is of type .{1,500}|object has .{1,200}|invalid (?:vtable|vptr))")
_BAD_ADDRESS = re.compile(r"\b(?:address|vtable address) (0x[0-9a-f]{1,16})")


def _undefined(match: re.Match[str], lines: Sequence[str], at: int) -> Finding | None:
    place, said = match[1][-1200:], match[2].strip()
    where = _PLACE.search(place)
    if where is None and not place.endswith(("<unknown>", "??")) and "+0x" not in place:
        return None
    kind, name = next(((k, n) for part, k, n in _CHECKS if part in said), ("undefined-behavior", "Undefined-behavior"))
    address = _BAD_ADDRESS.search(said)
    if address is None and kind == "cfi" and at + 1 < len(lines):
        address = re.match(r"(0x[0-9a-f]{1,16}): note: ", lines[at + 1])
    for line in lines[at + 1 : at + 3]:
        if note := _NOTE.search(line):
            said += f" ({note[1]})"
            break
    found = Finding(
        Kind.REPORT,
        "UndefinedBehaviorSanitizer",
        kind,
        said,
        name,
        address=hexadecimal(address[1]) if address else None,
    )
    if where:
        found.file = place[: where.start()].rsplit(None, 1)[-1] if place[: where.start()].strip() else None
        found.lineno, found.column = decimal(where[1]), decimal(where[2])
    return found


ROWS: tuple[Row, ...] = (
    ("Sanitizer: ", rf"(?:==(\d{{1,10}})==\s?)?(ERROR|WARNING): ({SANITIZERS})Sanitizer: (.+)", _sanitizer),
    (": runtime error: ", r"(.*?): runtime error: (.*)", _undefined),
    ("leak of ", _LEAK.pattern, _leak),
)
