"""What the native fixtures are: architectures, ways to crash, ways to build.

``build.py`` makes them. A further architecture is a row of ``ARCHITECTURES``, its
variants in ``VARIANTS``, and a row of ``core_to_minidump.MACHINES``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# --- architectures -------------------------------------------------------------------


@dataclass(frozen=True)
class Architecture:
    """A machine to build for, and the tools to do it with."""

    name: str
    compiler_prefix: str = ""
    emulator: tuple[str, ...] = ()
    """qemu's program and arguments, to be put before the program; it writes the core then."""
    gdb: str = "gdb"
    gdb_architecture: str = ""
    sysroot: Path = Path("/")
    skip_modes: frozenset[str] = frozenset()
    """Modes that do not crash here, or of which the emulator tells something untrue."""
    outermost: frozenset[str | None] = frozenset({"_start", "clone3", "clone", "__clone"})
    """Functions a complete stack ends with; none where gdb has no name for the place."""
    packages: tuple[str, ...] = ()
    """Debian's packages with the tools."""
    loader: str = ""
    """A dynamic linker that programs run without an emulator need beside the compiler's."""

    def tool(self, name: str) -> str:
        """The name of a compiler or binary utility for this machine."""
        return self.compiler_prefix + name

    def tools(self) -> tuple[str, ...]:
        """Every program the build runs for this machine, but clang."""
        utilities = ("gcc", "g++", "ld", "objcopy", "strip", "readelf")
        return (*map(self.tool, utilities), self.gdb, *self.emulator[:1])


X86_64 = Architecture("x86_64", gdb_architecture="i386:x86-64", packages=("gcc", "g++", "gdb"))
X86 = Architecture(
    "x86",
    "i686-linux-gnu-",
    gdb_architecture="i386",
    packages=("gcc-i686-linux-gnu", "g++-i686-linux-gnu", "gdb", "libc6:i386"),
    loader="/lib/ld-linux.so.2",
)
ARM = Architecture(
    "arm",
    "arm-linux-gnueabihf-",
    emulator=("qemu-arm", "-L", "/usr/arm-linux-gnueabihf", "-strace"),
    gdb="gdb-multiarch",
    gdb_architecture="arm",
    sysroot=Path("/usr/arm-linux-gnueabihf"),
    # qemu stops writing the core at the page beyond the end of its file, and the stack comes after it.
    skip_modes=frozenset({"bus"}),
    # What follows clone()'s system call in the new thread lies outside its symbol.
    outermost=frozenset({"_start", None}),
    packages=("gcc-arm-linux-gnueabihf", "g++-arm-linux-gnueabihf", "clang", "gdb-multiarch", "qemu-user"),
)
ARM64 = Architecture(
    "arm64",
    "aarch64-linux-gnu-",
    emulator=("qemu-aarch64", "-cpu", "max,sve=off", "-L", "/usr/aarch64-linux-gnu", "-strace"),
    gdb="gdb-multiarch",
    gdb_architecture="aarch64",
    sysroot=Path("/usr/aarch64-linux-gnu"),
    # The processor's division by zero gives zero. An address that is not canonical for the machine qemu runs on
    # reaches the emulated program as address 0.
    skip_modes=frozenset({"divide", "wild_read"}),
    outermost=frozenset({"_start", "thread_start"}),
    packages=("gcc-aarch64-linux-gnu", "g++-aarch64-linux-gnu", "gdb-multiarch", "qemu-user"),
)

ARCHITECTURES = {architecture.name: architecture for architecture in (X86_64, X86, ARM, ARM64)}

# --- ways to crash --------------------------------------------------------------------


@dataclass(frozen=True)
class Mode:
    """One way to crash."""

    name: str
    expect: tuple[str, ...]
    """Functions the crashed thread's stack must show in this order, innermost first."""
    handled: tuple[str, ...] = ()
    """Signals the program handles itself before the fatal one."""


SIGNAL_FRAME = "<signal handler called>"

CRASHY_MODES = (
    Mode("abort", ("give_up", "mode_abort", "main")),
    Mode(
        "altstack",
        (
            "abandon_ship",
            "on_fault",
            SIGNAL_FRAME,
            "read_gauge",
            "inspect_hull",
            "mode_altstack",
            "main",
        ),
        handled=("SIGSEGV",),
    ),
    Mode("assert", ("check_bearing", "mode_assert", "main")),
    Mode("bus", ("read_past_end", "mode_bus", "main")),
    Mode("cold", ("man_overboard", "steer", "mode_cold", "main")),
    Mode("divide", ("average", "mode_divide", "main")),
    Mode(
        "inlines",
        (
            "read_log",
            "distance_run",
            "advance",
            "next_fix",
            "plot_course",
            "mode_inlines",
            "main",
        ),
    ),
    Mode(
        "interrupt",
        ("read_gauge", "on_alarm", SIGNAL_FRAME, "keep_watch", "mode_interrupt", "main"),
        handled=("SIGALRM",),
    ),
    Mode("lambda", ("operator()", "operator()", "mode_lambda", "main")),
    Mode("library", ("weigh", "lift", "cargo_unload", "mode_library", "main")),
    Mode("noreturn", ("hull_breach", "run_aground", "mode_noreturn", "main")),
    Mode("null_call", ("give_order", "mode_null_call", "main")),
    Mode("operators", ("operator==", "mode_operators", "main")),
    Mode("overflow", (*("dive",) * 40, "diver")),
    Mode("recursion", (*("descend",) * 61, "mode_recursion", "main")),
    Mode(
        "signal",
        ("read_gauge", "on_hail", SIGNAL_FRAME, "hail", "mode_signal", "main"),
        handled=("SIGUSR1",),
    ),
    Mode("static_chain", ("sound", "sound_chain", "survey", "mode_static_chain", "main")),
    Mode("tail_call", ("deliver", "mode_tail_call", "main")),
    Mode("templates", ("operator*", "operator()", "fold", "longest_leg", "mode_templates", "main")),
    Mode(
        "threads",
        ("read_log", "distance_run", "advance", "operator()", "fold", "reckon", "navigator"),
    ),
    Mode("trap", ("scuttle", "mode_trap", "main")),
    Mode("virtual", ("draught", "guide", "mode_virtual", "main")),
    Mode("vla", ("plot_points", "plot_chart", "mode_vla", "main")),
    Mode("waiters", ("mode_waiters", "main")),
    Mode("wild_call", ("give_order", "mode_wild_call", "main")),
    Mode("wild_read", ("read_chart", "mode_wild_read", "main")),
)

# --- ways to build --------------------------------------------------------------------

CRASHY_SOURCES = (
    "crashy.c",
    "modes_stack.c",
    "modes_signal.c",
    "modes_cpp.cpp",
    "modes_threads.cpp",
)


@dataclass(frozen=True)
class Variant:
    """A way to build one program."""

    name: str
    program: str
    sources: tuple[str, ...]
    modes: tuple[Mode, ...]
    compile_flags: tuple[str, ...]
    link_flags: tuple[str, ...] = ("-pie",)
    libraries: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Shared libraries of our own, each with its sources."""
    split: bool = True
    """Separate the debug information, and strip the program."""
    compress_debug: bool = False
    pack: frozenset[str] = frozenset()
    """What to commit xz-compressed, for its size: ``program`` (and libraries), ``debug``."""
    breakpad: bool = False
    cores: tuple[str, ...] = ()
    """Modes whose core is committed too."""
    compiler: str = ""
    """Another compiler than gcc, given the target as clang takes it."""
    drop: tuple[str, ...] = ()
    """Sections left out of the debug information committed. The truth is told with them."""
    beyond_stack: int | None = None
    """Bytes of a stack to keep beyond its outermost frame, else all that a dump may have."""
    old_context: bool = False
    """Write ARM64 registers in Breakpad's old layout."""


CARGO: Mapping[str, tuple[str, ...]] = {"libcargo.so": ("cargo.c",)}
OPTIMIZED = ("-O2", "-fomit-frame-pointer")

THROUGH_LIBC = frozenset({"abort", "altstack", "assert", "interrupt", "lambda", "signal", "waiters"})
"""Modes whose stack passes through the C library before it is back in our code; only with glibc linked in can it be
unwound from what is committed."""

OWN_MODES = tuple(mode for mode in CRASHY_MODES if mode.name not in THROUGH_LIBC)


def modes(names: str) -> tuple[Mode, ...]:
    """The modes with these space-separated names."""
    return tuple(mode for mode in CRASHY_MODES if mode.name in names.split())


SOME_MODES = modes("inlines library noreturn null_call static_chain tail_call templates threads virtual vla wild_call")
FEW_MODES = modes("inlines library null_call static_chain virtual vla")

PIE_O2 = Variant(
    "pie-O2",
    "crashy",
    CRASHY_SOURCES,
    OWN_MODES,
    (*OPTIMIZED, "-gdwarf-5"),
    libraries=CARGO,
    breakpad=True,
    cores=("threads",),
)
PIE_O0 = Variant(
    "pie-O0",
    "crashy",
    CRASHY_SOURCES,
    OWN_MODES,
    ("-O0", "-fno-omit-frame-pointer", "-gdwarf-4"),
    libraries=CARGO,
)
STATIC_O2 = Variant(
    "static-O2",
    "crashy",
    (*CRASHY_SOURCES, "cargo.c"),
    CRASHY_MODES,
    (*OPTIMIZED, "-gdwarf-5"),
    link_flags=("-static-pie",),
    compress_debug=True,
    pack=frozenset({"program"}),
    cores=("altstack", "threads"),
)
PLAIN_O1 = Variant(
    "plain-O1",
    "plain",
    ("plain.c",),
    (Mode("plain", ("tack", "sail", "main")),),
    ("-O1", "-gdwarf-4"),
    split=False,
)

# The architectures beside x86_64 have fewer modes where one would tell nothing new, and all their binaries packed.
PACKED = frozenset({"program", "debug"})
SMALL_PIE_O0 = replace(PIE_O0, modes=SOME_MODES, pack=PACKED, beyond_stack=1024)
SMALL_STATIC_O2 = replace(STATIC_O2, compress_debug=False, pack=PACKED, beyond_stack=1024, cores=("threads",))
SMALL_PLAIN_O1 = replace(PLAIN_O1, pack=PACKED)

NO_TABLES = ("-fno-asynchronous-unwind-tables", "-fno-unwind-tables")
FRAMES_O1 = replace(
    SMALL_PIE_O0,
    name="frames-O1",
    modes=FEW_MODES,
    compile_flags=("-O1", "-fno-omit-frame-pointer", *NO_TABLES, "-gdwarf-5"),
    drop=(".debug_frame",),
)
"""Nothing but frame pointers to unwind with."""

VARIANTS: Mapping[str, tuple[Variant, ...]] = {
    "x86_64": (PIE_O2, PIE_O0, STATIC_O2, PLAIN_O1),
    "x86": (SMALL_PIE_O0, SMALL_STATIC_O2, FRAMES_O1, SMALL_PLAIN_O1),
    "arm": (
        SMALL_PIE_O0,
        replace(SMALL_STATIC_O2, link_flags=("-static",)),
        replace(
            SMALL_PIE_O0,
            name="arm-O2",
            modes=modes("library noreturn null_call static_chain tail_call templates threads vla"),
            compile_flags=("-marm", *OPTIMIZED, "-gdwarf-5"),
        ),
        replace(
            SMALL_PIE_O0,
            name="exidx-O2",
            modes=modes("library noreturn null_call static_chain tail_call templates threads vla"),
            compile_flags=(*OPTIMIZED, *NO_TABLES[:1], "-funwind-tables", "-gdwarf-5"),
            drop=(".debug_frame",),
        ),
        replace(FRAMES_O1, compile_flags=("-marm", *FRAMES_O1.compile_flags)),
        replace(
            FRAMES_O1,
            name="apcs-O1",
            compile_flags=("-marm", "-mapcs-frame", "-Wno-deprecated", *FRAMES_O1.compile_flags),
        ),
        replace(
            FRAMES_O1,
            name="clang-O1",
            compiler="clang",
            compile_flags=("-mthumb", "-Wno-unknown-attributes", *FRAMES_O1.compile_flags),
        ),
        SMALL_PLAIN_O1,
    ),
    "arm64": (
        SMALL_PIE_O0,
        replace(SMALL_STATIC_O2, cores=("signal",)),
        replace(
            SMALL_PIE_O0,
            name="pac-O2",
            modes=modes("altstack interrupt library noreturn null_call static_chain tail_call templates threads vla"),
            compile_flags=("-mbranch-protection=standard", *OPTIMIZED, "-gdwarf-5"),
        ),
        FRAMES_O1,
        replace(SMALL_PLAIN_O1, old_context=True),
    ),
}
"""By architecture's name."""
