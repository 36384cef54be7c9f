"""What every test may ask for: the project's fixtures, and the crash corpus where there is one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Compiled kernels outlive a run but stay out of the user's store. Set before any test module imports a kernel.
os.environ.setdefault("NUMBA_CACHE_DIR", str(ROOT / ".pytest_cache" / "kernels"))


def pytest_configure(config: pytest.Config) -> None:
    """Compile the kernels once, on all processors, before several workers would each do so."""
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        from deadreckon import kernels

        kernels.warm()


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """Give the folder of committed native fixtures."""
    return ROOT / "native_fixtures"


@pytest.fixture(scope="session")
def corpus() -> Path:
    """Give the folder of real crash files; skips where it is absent."""
    path = Path(os.environ.get("DEADRECKON_CORPUS") or ROOT / "../shared/corpora").resolve()
    if not path.is_dir():
        pytest.skip("no corpus (set DEADRECKON_CORPUS)")
    return path


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a symbol store of its own, so that none writes to the user's."""
    path = tmp_path / "store"
    monkeypatch.setenv("DEADRECKON_STORE", str(path))
    return path
