from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadreckon.model.ids import DebugId, code_id_from_pe, normalize_code_id

SHA1 = "f1c3bcc0279865fe3058404b2831d9e64135386c"
"""The build id of symbolic's ``crash``; its debug id is in every tool's output."""
CRASH = "c0bcc3f1-9827-fe65-3058-404b2831d9e6"


@pytest.mark.parametrize(
    ("text", "readings"),
    [
        (CRASH, [CRASH]),
        (CRASH.upper(), [CRASH]),
        (f"{{{CRASH.upper()}}}", [CRASH]),
        (f"{CRASH}-a", [f"{CRASH}-a"]),
        ("C0BCC3F19827FE653058404B2831D9E60", [CRASH]),
        ("c0bcc3f19827fe653058404b2831d9e60", [CRASH]),
        ("C0BCC3F19827FE653058404B2831D9E6A", [f"{CRASH}-a"]),
        (f"  {CRASH}\n", [CRASH]),
        (SHA1, [CRASH, f"{SHA1[:8]}-{SHA1[8:12]}-{SHA1[12:16]}-{SHA1[16:20]}-{SHA1[20:32]}-4135386c"]),
        (SHA1.upper(), [CRASH, f"{SHA1[:8]}-{SHA1[8:12]}-{SHA1[12:16]}-{SHA1[16:20]}-{SHA1[20:32]}-4135386c"]),
        (SHA1[:32], [f"{SHA1[:8]}-{SHA1[8:12]}-{SHA1[12:16]}-{SHA1[16:20]}-{SHA1[20:32]}", CRASH]),
        ("0123456789abcdef", ["67452301-ab89-efcd-0000-000000000000"]),
        (CRASH.replace("-", "") + "ffffffff", [f"{CRASH}-ffffffff", str(DebugId.from_build_id(UUID(CRASH).bytes))]),
        ("0" * 33, []),
        ("0" * 40, []),
        ("abc", []),
        ("C0BCC3F1-9827", ["f1c3bcc0-2798-0000-0000-000000000000"]),
        ("main.c", []),
        ("", []),
    ],
)
def test_readings(text: str, readings: list[str]) -> None:
    assert [str(r) for r in DebugId.readings(text)] == readings


uuids = st.integers(1, 2**128 - 1).map(lambda n: UUID(int=n))


@given(uuids, st.one_of(st.just(0), st.integers(0, 0xFFF_FFFF)))
def test_every_spelling_is_read_back(uuid: UUID, age: int) -> None:
    known = DebugId(uuid, age)
    for text in (str(known), known.breakpad, known.breakpad.lower(), str(known).upper()):
        assert DebugId.parse(text) == known
        assert known in DebugId.readings(text)


@given(st.binary(min_size=4, max_size=32).filter(lambda b: any(b[:16])))
def test_build_ids_of_every_length(build_id: bytes) -> None:
    """All but the first 16 bytes are left out, and what is missing is 0; the way back gives them again."""
    known = DebugId.from_build_id(build_id)
    assert known in DebugId.readings(build_id.hex())
    assert known in DebugId.readings(build_id.hex().upper())
    assert bytes.fromhex(known.build_id_prefix) == build_id[:16].ljust(16, b"\0")


@given(st.text(max_size=60))
def test_any_text(text: str) -> None:
    assert all(isinstance(reading, DebugId) for reading in DebugId.readings(text))


def test_guids_and_uuids_of_the_same_bytes_differ() -> None:
    data = bytes(range(1, 17))
    assert str(DebugId.from_guid(data, 2)) == "04030201-0605-0807-090a-0b0c0d0e0f10-2"
    assert str(DebugId.from_macho_uuid(data)) == "01020304-0506-0708-090a-0b0c0d0e0f10"


def test_code_ids() -> None:
    assert code_id_from_pe(0x5AB3807, 0x7000) == "05AB38077000"
    assert {normalize_code_id(t) for t in ("5AB380779000", "5ab380779000", " 5AB380779000\n")} == {"5ab380779000"}
    assert normalize_code_id(CRASH.upper()) == CRASH.replace("-", "")
