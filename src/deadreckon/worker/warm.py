"""What worker processes have in common: imported once, in the process that they are forked from.

Kernels are loaded (and compiled, the first time on a machine) here and shared by all of them.
"""

from __future__ import annotations

import gc

from deadreckon import engine
from deadreckon.grouping import fingerprint
from deadreckon.kernels import ranges
from deadreckon.reports import minidump
from deadreckon.symbolicate import native
from deadreckon.symbols import tables
from deadreckon.unwind import walk
from deadreckon.worker import processor

__all__ = ["LOADED"]

LOADED = (engine, fingerprint, minidump, native, processor, ranges, tables, walk)

# What is there now stays; to walk it again in every process would also make copies of the pages they share.
gc.collect()
gc.freeze()
