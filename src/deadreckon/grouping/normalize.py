"""What stays the same when one bug crashes twice: names without their details, and whose code a frame is.

A name keeps what a programmer would say aloud: its namespaces, classes and the function. It loses what differs between
builds of one source (clone suffixes, hashes, numbers of lambdas, the spelling of the anonymous namespace) and what
differs between uses of one template (its arguments). names/ has the languages.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from deadreckon.grouping.names import managed, native
from deadreckon.grouping.names.paths import file_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from deadreckon.model.event import Frame

__all__ = ["STARTERS", "TERMINATORS", "frame_text", "in_app", "module_name", "normalize_function"]

_MAX_NAME = 4096
_MAX_CACHED = 1024
"""Characters of a name that is kept: 65,536 of them bound what the cache may take."""

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

_LANGUAGES: dict[str, Callable[[str], str]] = {
    "csharp": managed.dotnet,
    "dotnet": managed.dotnet,
    "go": native.go,
    "java": managed.java,
    "javascript": managed.javascript,
    "kotlin": managed.java,
    "node": managed.javascript,
    "php": managed.php,
    "python": managed.python,
    "ruby": managed.ruby,
}
_SCRIPTS = frozenset({"javascript", "node", "php", "python", "ruby"})


def normalize_function(name: str, platform: str | None = None) -> str:
    """Return a readable function name without arguments, template arguments, clone marks, hashes and numbering.

    ``platform`` is the event's: native, javascript, python, java ...; without one a name is taken for a compiled one.
    """
    if len(name) > _MAX_CACHED:
        return _normalize(name[:_MAX_NAME], platform)
    return _remembered(name, platform)


def _normalize(name: str, platform: str | None) -> str:
    return _LANGUAGES.get(platform or "", native.compiled)(name) or name


_remembered = lru_cache(maxsize=65_536)(_normalize)


def frame_text(frame: Frame, platform: str | None = None) -> str:
    """Return what a frame is in a fingerprint: its class or module and function; for scripts its file as well.

    Without a name it is the module's file name and the offset in it.
    """
    if frame.function is not None:
        name = normalize_function(frame.function, platform)
        if frame.module:
            module = normalize_function(frame.module, platform) if platform in {"java", "csharp"} else frame.module
            return f"{module}.{name}"
        path = frame.abs_path or frame.filename
        return f"{name} in {file_name(path, platform)}" if path and platform in _SCRIPTS else name
    if frame.package is not None:
        return f"{module_name(frame.package).lower()}+{frame.rva}"
    return "address in no module"


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
