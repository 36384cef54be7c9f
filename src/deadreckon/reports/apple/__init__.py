"""Reports of Apple's systems and of the crash reporters for them, a file a format.

``ips`` (both generations, panics and stackshots under the same extension), ``text`` (``.crash`` and all that is
printed in its likeness, line by line in ``frames``), ``kscrash``, ``metrickit``, ``kernel`` (panic logs).
``documents`` reads JSON that is cut off or broken, ``listing`` turns images and listed frames into the crash's own,
``facts`` what is told of system, program and exception.

No report holds memory: the stacks are those that the reporter found. What the debug files of the images add are
functions, files, lines and inlined calls; an image's UUID is the debug id by which a dSYM is found.
"""
