"""Bytes packed in ways that Python's library has no writer for."""

from __future__ import annotations

import pytest

__all__ = ["zstd"]


def zstd(data: bytes) -> bytes:
    """Return a Zstandard frame; the test is skipped without libarchive."""
    libarchive = pytest.importorskip("libarchive")
    blocks: list[bytes] = []

    def write(block: bytes) -> int:
        blocks.append(bytes(block))
        return len(block)

    with libarchive.custom_writer(write, "raw", "zstd") as archive:
        archive.add_file_from_memory("x", len(data), data)
    return b"".join(blocks)
