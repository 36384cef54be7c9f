"""Small inputs for the kernels and what they make of them, in a form to compare between processes."""

from __future__ import annotations

import random
from dataclasses import fields, replace
from typing import Any

import numpy as np

from deadreckon.kernels import unwind
from deadreckon.kernels.cfi import rules_from_frames
from deadreckon.kernels.ranges import look_up
from deadreckon.kernels.scopes import scan
from deadreckon.model.ids import Arch
from deadreckon.model.tables import SymTable
from deadreckon.unwind.walk import ARCHITECTURES, Tables, module_columns
from synth.cfi import FrameSection, advance, block, def_cfa, offset, sleb, uleb
from synth.script import script
from synth.stacks import World, random_world

LIMITS: dict[str, Any] = {
    "max_frames": 40,
    "max_total": 100,
    "scan_words": 40,
    "scan_words_first": 160,
    "scan_words_calls": 400,
}
"""Of a walk: small enough that random worlds meet all of them."""


def results() -> dict[str, Any]:
    """Run each kernel once or a few times."""
    return {
        "look_up": _look_up(),
        "rules_from_frames": _rules(),
        "walk_stacks": [_walk(w) for w in _worlds()],
        "scan": [_scan(seed) for seed in range(8)],
    }


def _scan(seed: int) -> list[list[list[int]]]:
    found = scan(np.frombuffer(script(seed).text.encode(), np.uint8))
    return [found.parts.tolist(), found.scopes.tolist()]


def _look_up() -> list[list[int]]:
    rng = random.Random(1)
    table = SymTable.empty()
    table.range_start = np.array(sorted(rng.sample(range(1000), 60)), np.uint32)
    table.range_loc = np.array([rng.randrange(24) for _ in range(60)], np.uint32)
    table.locations = np.array([[0, i, i, rng.randrange(30)] for i in range(20)], np.uint32)
    rvas = np.array([*range(0, 1100, 7), 1 << 32, (1 << 64) - 1], np.uint64)
    return [column.tolist() for column in look_up(table, rvas)]


def _rules() -> list[list[list[int]]]:
    tables = []
    for is_eh in (True, False):
        section = FrameSection(is_eh=is_eh, address=0x9000)
        cie = section.cie(def_cfa(7, 8) + offset(16, 1))
        program = advance(1) + def_cfa(6, 16) + b"\x0a" + advance(4) + b"\x0f" + block(b"\x77\x08\x96") + advance(0x50)
        program += b"\x0b" + advance(3) + b"\x11\x03" + sleb(-4) + b"\x2e\x08" + advance(8) + b"\x07\x10" + b"\xc3"
        section.fde(cie, 0x1000, 0x200, program)
        section.fde(cie, 0x1100, 0x200, advance(0x20) + b"\x12\x06" + sleb(-2))
        section.fde(cie, 0x2000, 0x20, advance(2) + b"\x0e" + uleb(1 << 63))
        section.fde(cie, 0x3000, 0x20, advance(2) + b"\x0b" + def_cfa(6, 8))
        section.raw(b"\x40\0\0\0\xff")
        data = np.frombuffer(bytes(section), np.uint8)
        table = rules_from_frames(data, is_eh=is_eh, section_addr=0x9000, image_base=0, pointer_size=8)
        tables.append([getattr(table, f.name).tolist() for f in fields(table)])
    return tables


def _worlds() -> list[World]:
    return [random_world(random.Random(seed), arch) for arch in Arch if arch in ARCHITECTURES for seed in range(12)]


def _walk(world: World) -> list[list[int]]:
    return walk_with(world, [image.tables() for image in world.images])


def walk_arguments(world: World, tables: list[Tables]) -> tuple[Any, ...]:
    """Return what the kernel takes for a world with these tables of its images, which have to be kept meanwhile."""
    memory, regions, registers, valid = world.columns()
    rules = ARCHITECTURES[world.arch].RULES
    return (
        rules.parameters(world.mask, strict=world.strict),
        rules.chain_rows(),
        registers,
        valid,
        memory,
        regions,
        np.array([image.start for image in world.images], np.uint64),
        np.array([image.start + image.size for image in world.images], np.uint64),
        np.array([module_columns(*pair) for pair in tables], np.int64).reshape(-1, unwind.MODULE_COLUMNS),
    )


def walk_with(world: World, tables: list[Tables]) -> list[list[int]]:
    """Walk a world's threads with these tables of its images; returns why each ended, and the frames' columns."""
    frames, stops, decisions = unwind.walk_stacks(
        *walk_arguments(replace(world, strict=False), tables),
        max_frames=12,
        max_total=100,
        scan_words=20,
        scan_words_first=40,
        scan_words_calls=60,
    )
    return [stops.tolist(), decisions.tolist(), *(getattr(frames, f.name).tolist() for f in fields(frames))]
