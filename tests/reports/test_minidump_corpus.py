"""The minidump reader over the corpus, against what other tools and their unit tests say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from deadreckon.config import ReportLimits
from deadreckon.errors import Malformed
from deadreckon.model.ids import Arch, DebugId
from deadreckon.reports.minidump import read, sniff
from synth.minidump import u64

if TYPE_CHECKING:
    from pathlib import Path

    from deadreckon.model.crash import RawCrash

LIMITS = ReportLimits()


def native(corpus: Path) -> Path:
    return corpus / "native"


def read_corpus(corpus: Path, path: str) -> RawCrash:
    return read((native(corpus) / path).read_bytes(), LIMITS)


@pytest.mark.corpus
def test_truth_of_breakpads_unit_tests(corpus: Path) -> None:
    truth = json.loads((native(corpus) / "breakpad/expected_from_unittests.json").read_text())["processing"]
    for name, expected in truth.items():
        crash = read_corpus(corpus, f"breakpad/testdata/{name}")
        if "os" in expected:
            assert expected["os"] == f"{crash.os_name} NT"
            assert expected["os_version"].split() == [v for v in (crash.os_version, crash.os_build) if v]
        if "cpu" in expected:
            assert Arch.parse(expected["cpu"]) is crash.arch
            assert crash.attributes["cpu"] == expected["cpu_info"]
        if "crashed" in expected:
            assert any(t.crashed for t in crash.threads) == expected["crashed"]
        if "threads" in expected:
            assert len(crash.threads) == expected["threads"]
        if "crash_reason" in expected:
            exception = crash.exceptions[0]
            assert expected["crash_reason"] in {exception.type, exception.value.split(" at ")[0]}
        if "crash_address" in expected:
            assert crash.exceptions[0].address == int(expected["crash_address"], 16)


@pytest.mark.corpus
def test_truth_of_lldbs_module_ids(corpus: Path) -> None:
    truth = json.loads((native(corpus) / "lldb/expected_uuids.json").read_text())["minidump_uuid"]
    limits = ReportLimits()
    for name, expected in truth.items():
        data = (native(corpus) / f"lldb/minidump-new/{name}.yaml2obj.dmp").read_bytes()
        # Those of LLDB's lists overlap; move them apart, in a copy, to see every one.
        start = int.from_bytes(data[32 + 12 + 8 : 32 + 12 + 12], "little")
        spread = bytearray(data)
        for i in range(len(expected)):
            at = start + 4 + 108 * i
            spread[at : at + 8] = u64(0x10_0000_0000 * (i + 1))
        crash = read(bytes(spread), limits)
        assert len(crash.modules) == len(expected)
        for module, text in zip(crash.modules, expected, strict=True):
            if text is None:
                assert (module.debug_id, module.code_id) == (None, None)
                continue
            # LLDB writes the identifier's bytes as they are; ours is a GUID's fields but on Apple's systems.
            raw = bytes.fromhex(text.split()[0].replace("-", ""))
            if "16-byte id in dump" in text:
                raw = raw[:16]
            if module.code_id is not None and crash.os_name == "Linux":
                assert module.code_id == raw.hex()
                assert module.debug_id == str(DebugId.from_build_id(raw))
            else:
                age = int.from_bytes(raw[16:], "little")
                uuid = DebugId.from_macho_uuid(raw) if crash.os_name == "macOS" else DebugId.from_build_id(raw)
                assert module.debug_id == str(DebugId(uuid.uuid, age))


def hexadecimal(value: int | None) -> str | None:
    return None if value is None else hex(value)


def summary_of(crash: RawCrash) -> dict[str, Any]:
    """Say what rust-minidump's JSON says too, in its terms."""
    exception = crash.exceptions[0] if crash.exceptions else None
    detail = exception.value.split("at 0x")[0].strip() if exception else ""
    stopped = [i for i, t in enumerate(crash.threads) if exception and t.id == exception.thread_id]
    return {
        "type": exception and (f"{exception.type} / {detail}" if detail else exception.type),
        "address": exception and hexadecimal(exception.address),
        "crashing_thread": stopped[0] if stopped else None,
        "threads": [(t.id, t.name) for t in crash.threads],
        "pcs": [hexadecimal(t.registers.pc) if t.registers else None for t in crash.threads],
        "registers": crash.threads[stopped[0]].registers.as_hex()  # type: ignore[union-attr]
        if stopped
        else None,
        "pid": crash.pid,
        "cpu": crash.arch,
        "cpu_info": crash.attributes.get("cpu"),
        "cpu_count": crash.attributes.get("cpu_count"),
        "unloaded": len(crash.unloaded_modules),
        "handles": crash.attributes.get("handles"),
        "lsb": {k[4:]: v for k, v in crash.attributes.items() if k.startswith("lsb.")} or None,
        "maps": len(crash.regions.start) if crash.regions is not None and crash.os_name == "Linux" else None,
        "soft_errors": json.loads(crash.attributes.get("soft_errors", "null")),
        "assertion": crash.attributes.get("assertion"),
        "modules": sorted(
            (
                m.image_addr,
                m.end,
                m.code_file.replace("\\", "/").rpartition("/")[2],
                m.debug_file and m.debug_file.replace("\\", "/").rpartition("/")[2],
                m.debug_id and DebugId.parse(m.debug_id).breakpad,
                m.code_id and m.code_id.lower(),
                m.version,
            )
            for m in crash.modules
        ),
    }


def summary_of_reference(said: dict[str, Any]) -> dict[str, Any]:
    info, system = said["crash_info"], said["system_info"]
    windows = system["os"] == "Windows NT"
    stopped = said.get("crashing_thread")
    registers = stopped["frames"][0]["registers"] if stopped else None
    return {
        "type": info["type"],
        "address": hexadecimal(info["address"] and int(info["address"], 16)),
        "crashing_thread": info["crashing_thread"],
        "threads": [(t["thread_id"], t["thread_name"] or None) for t in said["threads"]],
        "pcs": [hex(int(t["frames"][0]["offset"], 16)) if t["frames"] else None for t in said["threads"]],
        "registers": registers and {k: hex(int(v, 16)) for k, v in registers.items() if k not in {"efl", "eflags"}},
        "pid": said["pid"],
        "cpu": Arch.parse(system["cpu_arch"]),
        "cpu_info": system["cpu_info"],
        "cpu_count": str(system["cpu_count"]),
        "unloaded": len(said["unloaded_modules"]),
        "handles": said["handles"] and str(len(said["handles"])),
        "lsb": said["lsb_release"],
        "maps": said["linux_memory_map_count"],
        "soft_errors": said["soft_errors"],
        "assertion": info["assertion"],
        "modules": sorted(
            (
                int(m["base_addr"], 16),
                int(m["end_addr"], 16),
                m["filename"],
                m["debug_file"] or None,
                None if m["debug_id"] == "0" * 33 else m["debug_id"],  # They spell out the nil id.
                # Off Windows theirs may be a time stamp of zero and the size, which identify nothing.
                None if not windows and m["code_id"] and m["code_id"].startswith("00000000") else m["code_id"] or None,
                m["version"],
            )
            for m in said["modules"]
        ),
    }


# What we say otherwise, and why.
DIFFERENCES: dict[str, dict[str, tuple[Any, Any]]] = {
    # The last line of its /proc/self/maps is cut short: we skip that line, they the whole file.
    "breakpad/testdata/linux_executable_stack.dmp": {"maps": (34, None)},
    # The pid and uid of who raised the signal are no address.
    "breakpad/testdata/linux_raise_sigabrt.dmp": {"address": (None, "0x4d14400005be6")},
    # "CPnx", Crashpad's number for an NSException.
    "breakpad/testdata/minidump_crashpad_annotation.dmp": {"type": ("NSException", "unknown 0x43506e78 / 0x00000000")},
    # A dump on request is no crash, and the pc at which it was asked for no crash address.
    "lldb/minidump-new/linux-x86_64_not_crashed.dmp": {"address": (None, "0x7f6b5a9ebfc3")},
    # Crashpad took the exception out of an EXC_CRASH that had none, for it came from abort(): the parameters say so.
    "rust-minidump/simple-crashpad.dmp": {"type": ("EXC_CRASH / SIGABRT", "unknown 0x00000000 / 0x00000000")},
    # 0.25 shows an assertion only if its type is that; this is an invalid parameter of the CRT.
    "rust-minidump/invalid-parameter.dmp": {
        "assertion": (r"format != nullptr (common_vfprintf, minkernel\crts\ucrt\src\appcrt\stdio\output.cpp:32)", None),
    },
}


@pytest.mark.corpus
def test_agreement_with_rust_minidump(corpus: Path) -> None:
    references = sorted((native(corpus) / "reference/rust-minidump-0.25.0").glob("*.json"))
    assert len(references) > 50
    differences: dict[str, dict[str, Any]] = {}
    for reference in references:
        path = reference.name.removesuffix(".json").replace("__", "/")
        ours = summary_of(read_corpus(corpus, path))
        theirs = summary_of_reference(json.loads(reference.read_text()))
        found = {k: (ours[k], theirs[k]) for k in ours if ours[k] != theirs[k]}
        if found:
            differences[path] = found
    assert differences == DIFFERENCES


# One stream each that could matter, and that contradicts its own counts.
REFUSED = {"rust-minidump/invalid-range.dmp", "rust-minidump/invalid-record-count.dmp"}


@pytest.mark.corpus
def test_every_dump_is_read_or_refused_for_what_it_is(corpus: Path) -> None:
    refused: set[str] = set()
    count = 0
    for path in sorted(native(corpus).rglob("*.dmp")):
        data = path.read_bytes()
        if not sniff(memoryview(data)[:4]):
            continue
        count += 1
        try:
            crash = read(data, LIMITS)
        except Malformed:
            refused.add(str(path.relative_to(native(corpus))))
            continue
        assert crash.arch is not Arch.UNKNOWN
        # LLDB's built dumps have the one stream that their test is about.
        assert crash.threads or path.is_relative_to(native(corpus) / "lldb")
    assert count > 70
    assert refused == REFUSED
