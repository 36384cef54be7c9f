"""Why a process stopped, in names: one file for each family of operating systems, its numbers as tables.

``linux`` has signals with their si_code, ``windows`` exception codes (``ntstatus``: those that the kernel shares with
everything else), ``macos`` Mach exceptions with their codes, and Darwin's signals.
"""

from __future__ import annotations

from deadreckon.reports.reasons.linux import SIGNALS, signal_name, signal_reason
from deadreckon.reports.reasons.reason import DUMP_REQUESTED, Reason, names

__all__ = ["DUMP_REQUESTED", "SIGNALS", "Reason", "names", "signal_name", "signal_reason"]
