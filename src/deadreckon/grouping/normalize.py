"""What stays the same when one bug crashes twice: function names without their details, and whose code a frame is.

A name keeps what a programmer would say aloud: its namespaces, classes and the function. It loses what differs between
builds of one source (clone suffixes, hashes, numbers of lambdas, the spelling of the anonymous namespace) and what
differs between uses of one template (its arguments).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from deadreckon.symbols.demangle import brackets, strip_arguments

if TYPE_CHECKING:
    from deadreckon.model.event import Frame

__all__ = ["STARTERS", "TERMINATORS", "in_app", "module_name", "normalize_function"]

_MAX_NAME = 4096

STARTERS = frozenset(
    """
    _start __libc_start_main __libc_start_main_impl __libc_start_call_main __libc_csu_init call_init
    start_thread clone __clone clone3 __clone3 thread_start _pthread_start _pthread_body start __libc_init
    mainCRTStartup wmainCRTStartup WinMainCRTStartup __scrt_common_main __scrt_common_main_seh __tmainCRTStartup
    invoke_main BaseThreadInitThunk RtlUserThreadStart _RtlUserThreadStart __RtlUserThreadStart
    """.split()
)
"""Functions that start every thread: they tell no two stacks apart, and a static program has them as its own."""

TERMINATORS = frozenset(
    """
    abort raise gsignal __GI_raise __GI_abort kill tgkill __pthread_kill_implementation __pthread_kill_internal
    __pthread_kill pthread_kill __assert_fail __assert_fail_base __assert_perror_fail __assert_rtn
    __libc_message __libc_message_impl __libc_fatal __fortify_fail __stack_chk_fail __chk_fail malloc_printerr
    __restore_rt __cxa_throw __cxa_rethrow __cxa_call_unexpected __cxa_call_terminate std::terminate
    __cxxabiv1::__terminate rust_panic __rust_start_panic rust_begin_unwind _exit __abort_with_payload
    abort_with_reason abort_message demangling_terminate_handler std::__terminate _objc_terminate
    __exceptionPreprocess objc_exception_throw objc_exception_rethrow _CFThrowFormattedException
    _CxxThrowException RaiseException RtlRaiseException KiRaiseUserExceptionDispatcher
    """.split()
) | {"-[NSException raise]", "+[NSException raise:format:]", "+[NSException raise:format:arguments:]"}
"""Functions a program dies in once it has found out that it must: how it ended, not why."""

# Patterns stay text until a name needs them: compiling all of them would cost each short-lived process 10 ms.
_LAMBDA = r"\{lambda\(.*?\)(?:#\d+)?\}|<lambda(?:\(.*?\)|_[0-9a-f]+|_\d+)?>|\{\{closure\}\}|\$_\d+|'lambda\d*'"
_ANONYMOUS = r"\(anonymous namespace\)|`anonymous[ -]namespace'|\{anonymous\}|_GLOBAL__N_\w*|anonymous-namespace"
_CLONE = (
    r"(?:\.(?:cold|part|isra|constprop|llvm|lto_priv|localalias|warm|hot|unlikely|__uniq|\d+)\b(?:\.\d+)*)+$"
    r"| \[clone [^\]]*\]| \(\.[^()]*\)$"
)
_ABI_TAG = r"\[abi:[^\]]*\]"
_RUST_HASH = r"::h[0-9a-f]{16}$"
_RUST_CRATE_HASH = r"\[[0-9a-f]{8,16}\](?=::|$|>)"


@lru_cache(maxsize=65_536)
def normalize_function(name: str) -> str:
    """Return a readable function name without arguments, template arguments, clone marks, hashes and numbering."""
    if name.isidentifier() and "_GLOBAL__N_" not in name and len(name) <= _MAX_NAME:
        return name  # As those of most languages are.
    text = name[:_MAX_NAME]
    if text.startswith(("-[", "+[")):  # Objective-C: -[Class(Category) selector:with:], all of it counts.
        return text
    if "." in text or " [clone" in text:
        text = re.sub(_CLONE, "", text)
    if "[" in text:
        text = re.sub(_RUST_CRATE_HASH, "", re.sub(_ABI_TAG, "", text))
    if "::h" in text:
        text = re.sub(_RUST_HASH, "", text)
    if "lambda" in text or "closure" in text or "$_" in text:
        text = re.sub(_LAMBDA, "lambda", text)
    if "nonymous" in text or "GLOBAL__N" in text:
        text = re.sub(_ANONYMOUS, "anonymous", text)
    return _without_templates(strip_arguments(text)).strip() or name


def _without_templates(text: str) -> str:
    """Replace template arguments by ``<>``; a Rust ``<T as Trait>::f`` at the beginning keeps what is inside it."""
    kept: list[str] = []
    at = 0
    for bracket in brackets(text):
        if bracket.kind != "<" or bracket.start == 0:
            continue
        kept += (text[at : bracket.start], "<>")
        at = bracket.end
    return "".join((*kept, text[at:]))


_SYSTEM_PREFIXES = (
    "/lib/", "/lib32/", "/lib64/", "/libx32/", "/usr/lib/", "/usr/lib32/", "/usr/lib64/", "/usr/libx32/",
    "/usr/libexec/", "/system/", "/library/apple/", "/apex/", "/vendor/lib", "c:/windows/", "linux-gate", "linux-vdso",
    "[vdso]",
)  # fmt: skip
_RUNTIMES = frozenset(
    """
    libc libm libdl librt libpthread libstdc++ libgcc_s libc++ libc++abi libunwind libdispatch libobjc dyld ld ld64
    linux-gate linux-vdso ntdll kernel32 kernelbase user32 gdi32 win32u ucrtbase msvcrt combase rpcrt4 ole32
    """.split()
)
_RUNTIME_PREFIXES = ("ld-linux", "ld-musl", "libsystem_", "msvcp", "vcruntime")


def in_app(frame: Frame) -> bool | None:
    """Tell whether a native frame is the application's own code by where its module lies; None if it has no module.

    The C and C++ run-time libraries are nobody's own code, wherever they were installed; neither are the functions that
    start threads and end programs, which a statically linked program contains.
    """
    if frame.package is None:
        return None
    if _system_package(frame.package):
        return False
    return frame.function not in STARTERS and frame.function not in TERMINATORS


_SIMULATED = (".sdk/system/", ".sdk/usr/lib/", "/runtimeroot/system/", "/runtimeroot/usr/lib/")
"""Where Apple's simulators keep the frameworks of the system they simulate, inside Xcode."""


@lru_cache(maxsize=8192)
def _system_package(package: str) -> bool:
    path = package.replace("\\", "/").lower()
    if path.startswith(_SYSTEM_PREFIXES) or any(part in path for part in _SIMULATED):
        return True
    name = module_name(path)
    # libc.so.6, libc-2.23.so, libobjc.A.dylib, libstdc++.so.6.0.30: what stands before version and suffix.
    return name.startswith(_RUNTIME_PREFIXES) or re.split(r"\.(?:so|dylib|dll|a\.|\d)|-\d", name)[0] in _RUNTIMES


def module_name(package: str) -> str:
    """Return a module's file name without its directories, POSIX or Windows, wherever this runs."""
    return package.replace("\\", "/").rsplit("/", 1)[-1]
