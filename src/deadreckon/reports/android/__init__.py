"""What Android leaves of a crash: tombstones (protobuf and text), backtraces in logs, thread dumps of an ANR.

``tombstone`` and ``anr`` are readers. ``proto`` and ``text`` say what a tombstone says (``dump``), ``lines`` reads one
line of it, ``images`` makes modules of memory maps and frames.

Addresses: a frame's pc has been moved back into the call already, in every format and for every frame (on ARM64 it is
lr - 4), so none is a return address. ``rel_pc`` is an address as the ELF file was linked. Where the report has memory
maps, or the pc itself, frames get absolute addresses; where it has neither, the module is relative (model/crash.py)
and frames have an ``rva`` only.
"""
