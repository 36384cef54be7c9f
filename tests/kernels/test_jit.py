from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deadreckon import kernels
from deadreckon.kernels import _jit
from synth.samples import results

TESTS = Path(__file__).parent.parent


def python(code: str, *arguments: str, **environment: str) -> Any:
    """Run a program in a new interpreter that treats warnings as errors; returns what it prints, from JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(TESTS), "PYTHONWARNINGS": "error", **environment},
        capture_output=True,
        check=False,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# --- The cache's name -----------------------------------------------------------------------------------------------


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a copy of the kernels' folder, which the digest is then taken of."""
    copy = tmp_path / "sources"
    shutil.copytree(Path(_jit.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(_jit, "__file__", str(copy / "_jit.py"))
    return copy


def test_digest_depends_on_every_kernel_source(sources: Path) -> None:
    digests = {_jit._source_digest()}
    names = sorted(path.name for path in sources.glob("*.py"))
    assert {f"{name}.py" for name in kernels.MODULES} | {"_jit.py"} <= set(names)
    for name in names:
        path = sources / name
        text = path.read_bytes()
        path.write_bytes(text + b"# changed\n")
        digests.add(_jit._source_digest())
        path.write_bytes(text)
    (sources / "another.py").write_bytes(b"")
    digests.add(_jit._source_digest())
    (sources / "another.py").rename(sources / "renamed.py")
    digests.add(_jit._source_digest())
    assert len(digests) == len(names) + 3
    (sources / "renamed.py").unlink()
    (sources / "notes.txt").write_text("no kernel")
    assert _jit._source_digest() in digests


def test_digest_depends_on_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    before = _jit._source_digest()
    monkeypatch.setattr("numba.__version__", "0.1")
    assert _jit._source_digest() != before


def test_cache_directory(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = _jit._source_digest()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    assert _jit._cache_dir() == str(tmp_path / "cache" / digest)
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    assert _jit._cache_dir() == str(store / "kernels" / digest)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert _jit._cache_dir() is None


@pytest.mark.skipif(not _jit.JIT, reason="nothing is compiled")
def test_change_in_a_helper_file_recompiles(tmp_path: Path) -> None:
    """Alone, numba keeps the stale kernel: it looks at the time of the kernel's own file only."""
    (tmp_path / "_jit.py").write_text(Path(_jit.__file__).read_text())
    (tmp_path / "entry.py").write_text(
        "import json, numba\n"
        "from numba import types\n"
        "from _jit import kernel\n"
        "from helper import number, plain\n"
        "@kernel(types.int64(types.int64))\n"
        "def ours(x): return number(x)\n"
        "@numba.njit(types.int64(types.int64), cache=True)\n"
        "def alone(x): return plain(x)\n"
        "print(json.dumps([ours(0), alone(0)]))\n"
    )
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import entry"
    found = []
    for value in (1, 1, 2):
        (tmp_path / "helper.py").write_text(
            "import numba\nfrom _jit import kernel\n"
            f"@kernel()\ndef number(x): return x + {value}\n"
            f"@numba.njit\ndef plain(x): return x + {value}\n"
        )
        found.append(python(code, NUMBA_CACHE_DIR=str(tmp_path / "cache"), PYTHONDONTWRITEBYTECODE="1"))
    assert found == [[1, 1], [1, 1], [2, 1]]
    cache = tmp_path / "cache"
    assert len({path.relative_to(cache).parts[0] for path in cache.rglob("entry.ours*")}) == 2


@pytest.mark.skipif(not _jit.JIT, reason="nothing is compiled")
def test_no_place_for_the_cache(tmp_path: Path) -> None:
    """Kernels are then compiled in memory, and nothing is written anywhere else."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    code = (
        "import json, numpy as np\n"
        "from deadreckon.kernels import _jit, ranges\n"
        "from deadreckon.model.tables import SymTable\n"
        "first, found = ranges.look_up(SymTable.empty(), np.zeros(3, np.uint64))\n"
        "print(json.dumps([_jit.CACHE_DIR, first.tolist(), found.tolist()]))\n"
    )
    assert python(code, NUMBA_CACHE_DIR=str(blocked / "below")) == [None, [0, 0, 0, 0], []]


# --- Kernels --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not _jit.JIT, reason="nothing is compiled")
def test_kernels_have_one_signature_each() -> None:
    """A second specialisation would be compiled in the middle of a job, and not be cached."""
    assert kernels.warm() == len(_jit.KERNELS) >= len(kernels.MODULES)
    results()
    assert [len(kernel.signatures) for kernel in _jit.KERNELS] == [1] * len(_jit.KERNELS)


def test_every_file_with_kernels_is_warmed() -> None:
    names = {path.stem for path in Path(_jit.__file__).parent.glob("[a-z]*.py")}
    assert set(kernels.MODULES) == names


def test_pure_python_gives_equal_results() -> None:
    code = (
        "import json, numpy as np\n"
        "from deadreckon.kernels._jit import JIT\n"
        "from synth.samples import results\n"
        "assert not JIT\n"
        "with np.errstate(over='ignore'):\n"
        "    print(json.dumps(results()))\n"
    )
    if not _jit.JIT:
        pytest.skip("this process runs it anyway")
    expected = results()
    assert python(code, NUMBA_DISABLE_JIT="1") == expected
    assert sum(len(frames[1]) for frames in expected["walk_stacks"]) > 200
