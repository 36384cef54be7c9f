from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

import pytest

from deadreckon.config import Config
from deadreckon.symbols.builder import Builder
from deadreckon.symbols.store import SymbolStore
from synth.symbol_server import SymbolServer

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


_ENDLESS = """
import sys, time
from deadreckon.symbols import builder, tables
build = tables.build
def endless(path, output, *, rules=True):
    return time.sleep(1000) if rules else build(path, output, rules=False)
tables.build = endless
builder._serve(int(sys.argv[3]), float(sys.argv[4]))
"""


@pytest.fixture
def endless_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let unwind information take for ever in the builder's child, as in files that symbolic never returned from."""
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(_ENDLESS)} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(program))


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no proxy of this computer's come between a test and its server."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server(no_proxy: None) -> Iterator[SymbolServer]:  # noqa: ARG001  (for what it does)
    """Give a symbol server without files."""
    with SymbolServer() as server:
        yield server
