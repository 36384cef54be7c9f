from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from deadreckon.kernels._jit import JIT

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _wrapping_integers() -> Iterator[None]:
    """Without numba (NUMBA_DISABLE_JIT=1) kernels compute with numpy's scalars, which warn where integers wrap."""
    with np.errstate(over="warn" if JIT else "ignore"):
        yield
