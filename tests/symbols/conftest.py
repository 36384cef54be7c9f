from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from deadreckon.config import Config
from deadreckon.symbols.builder import Builder
from deadreckon.symbols.store import SymbolStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def shared_builder() -> Iterator[Builder]:
    """Give a builder for all tests whose subject it is not: starting a child takes longer than most of them."""
    limits = Config().symbols
    builder = Builder(seconds=limits.build_seconds, max_bytes=limits.build_bytes)
    yield builder
    builder.close()


@pytest.fixture
def symbols(store: Path, shared_builder: Builder) -> SymbolStore:
    """Give a new store."""
    symbols = SymbolStore(Config())
    assert symbols.root == store
    symbols._started = shared_builder
    return symbols
