"""Our portable snapshot: what an unwinder needs of a crash, written on one machine and unwound on another.

Specification: docs/snapshot.md. ``wire/snapshot.py`` has the container; ``document`` what ``report.json`` holds.
"""

from __future__ import annotations

from deadreckon.reports.snapshot.document import MAX_MEMORY, SCHEMA, Origin
from deadreckon.reports.snapshot.reading import read
from deadreckon.reports.snapshot.writing import dump

__all__ = ["MAX_MEMORY", "SCHEMA", "Origin", "dump", "read"]
