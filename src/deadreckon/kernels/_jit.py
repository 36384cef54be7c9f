"""The one way to compile a kernel, and views of arrays by address.

numba keeps compiled code on disk, but judges its age by the kernel's own file only: a kernel whose helper in *another*
file changed stays stale, even across ``pip install --upgrade`` (numba 0.68.1; tests/kernels/test_jit.py holds it).
The cache directory is therefore named by a digest of every kernel source, so that a change to any of them compiles
all afresh.

Kernels take and fill arrays and return counts or codes; they never raise and never allocate by a number that came
from the input. Loops over input are bounded by the input's length or by a ``fuel`` argument.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from deadreckon.config import Config, store_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = [
    "CACHE_DIR",
    "JIT",
    "KERNELS",
    "address_of",
    "array",
    "copy",
    "find_byte",
    "kernel",
    "view_i32",
    "view_u8",
    "view_u32",
]

JIT = not numba.config.DISABLE_JIT
KERNELS: list[Any] = []
"""Every compiled entry point, for ``deadreckon warm`` and for the test that counts specialisations."""


def _source_digest() -> str:
    digest = hashlib.sha256(f"numba {numba.__version__} numpy {np.__version__}".encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _cache_dir() -> str | None:
    """Return a writable directory for compiled kernels, None where there is none (they are then compiled each time)."""
    base = os.environ.get("NUMBA_CACHE_DIR") or str(Path(store_path(Config())) / "kernels")
    path = Path(base) / _source_digest()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return str(path) if os.access(path, os.W_OK) else None


CACHE_DIR = _cache_dir() if JIT else None
"""Where compiled kernels are kept; None where each process compiles them for itself."""


def array(kind: Any, dimensions: int = 1, *, readonly: bool = False) -> Any:
    """Return the numba type of a C-contiguous array; ``readonly`` accepts views of mapped files as well."""
    return types.Array(kind, dimensions, "C", readonly=readonly)


def kernel(
    signature: Any = None, *, inline: bool = False, allocates: bool = False
) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function with the one set of flags; ``signature`` fixes an entry point's types ahead of the first call.

    Helpers give no signature: they are compiled into their callers (``inline`` asks LLVM to copy them in).
    ``allocates``: the function makes or returns arrays. All others do without numba's counting of references to
    arrays: two atomic operations for each one handed to a helper, half of all time in the scanner of scopes.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        if not JIT:
            return function
        flags = {"nogil": True, "error_model": "numpy", "fastmath": False, "_nrt": allocates}
        if signature is None:
            return numba.njit(forceinline=inline, **flags)(function)
        # The directory is a global setting that numba reads while it makes the dispatcher: set for that moment only.
        previous = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = CACHE_DIR or previous
        try:
            compiled = numba.njit(signature, cache=CACHE_DIR is not None, **flags)(function)
        finally:
            numba.config.CACHE_DIR = previous
        KERNELS.append(compiled)
        return compiled

    return decorate


@kernel(inline=True)
def copy(to: Any, values: Any) -> None:
    """Copy one row over another of the same length. A slice assignment would compile numpy's shape errors as well."""
    for i in range(len(to)):
        to[i] = values[i]


def address_of(array: NDArray[Any]) -> int:
    """Return the address of an array's first byte; the caller keeps the array alive and C-contiguous."""
    return int(array.ctypes.data)


if JIT:

    @intrinsic
    def _pointer(_context: Any, address: Any) -> Any:
        def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], cgutils.voidptr_t)

        return types.voidptr(address), codegen

    @kernel(inline=True, allocates=True)
    def view_u8(address: int, count: int) -> Any:
        """Return u8[count] over the memory at an address."""
        return numba.carray(_pointer(address), (count,), np.uint8)

    @kernel(inline=True, allocates=True)
    def view_u32(address: int, count: int) -> Any:
        """Return u32[count] over the memory at an address."""
        return numba.carray(_pointer(address), (count,), np.uint32)

    @kernel(inline=True, allocates=True)
    def view_i32(address: int, count: int) -> Any:
        """Return i32[count] over the memory at an address."""
        return numba.carray(_pointer(address), (count,), np.int32)

    # The C library's search reads 32 bytes at once, a loop of ours one.
    _memchr = types.ExternalFunction("memchr", types.uintp(types.uintp, types.intc, types.uintp))

    @kernel(inline=True)
    def find_byte(text: Any, byte: int, start: int, end: int) -> Any:
        """Return where a byte is first found in ``text[start:end]``, ``end`` where it is not."""
        if start >= end:
            return np.int64(end)
        at = _memchr(np.uintp(text.ctypes.data) + np.uintp(start), np.int32(byte), np.uintp(end - start))
        return np.int64(at - np.uintp(text.ctypes.data)) if at != np.uintp(0) else np.int64(end)

else:

    def _view(kind: Any, address: int, count: int) -> Any:
        return np.ctypeslib.as_array((kind * int(count)).from_address(int(address)))

    def view_u8(address: int, count: int) -> Any:
        """Return u8[count] over the memory at an address."""
        return _view(ctypes.c_uint8, address, count)

    def view_u32(address: int, count: int) -> Any:
        """Return u32[count] over the memory at an address."""
        return _view(ctypes.c_uint32, address, count)

    def view_i32(address: int, count: int) -> Any:
        """Return i32[count] over the memory at an address."""
        return _view(ctypes.c_int32, address, count)

    def find_byte(text: Any, byte: int, start: int, end: int) -> Any:
        """Return where a byte is first found in ``text[start:end]``, ``end`` where it is not."""
        at = text[start:end].tobytes().find(byte)
        return start + at if at >= 0 else max(start, end)
