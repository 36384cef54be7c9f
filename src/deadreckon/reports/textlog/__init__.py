"""Crash logs: text in which some tool, run-time library or the program itself tells how it died.

``lines`` makes lines of the bytes, ``frames`` reads one line of a native stack, ``stacks`` finds the stacks, ``rules``
what the lines say went wrong (``findings``, by ``sanitizers``, ``messages``, ``signals`` and ``kernel``), ``modules``
the images that frames name, ``own`` whose code they are, and ``reading`` joins what belongs to one death into a crash.
``sanitizer.py``, ``rusttrace.py`` and the other readers of text are built on it.

Logs are hostile: no pattern here looks for the end of something again and again. Where a line may hold many beginnings,
a pattern is anchored, bounded to a few hundred characters, or replaced by ``rpartition``.
"""
