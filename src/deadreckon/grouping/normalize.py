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
    abort_with_reason
    """.split()
)
"""Functions a program dies in once it has found out that it must: how it ended, not why."""

_LAMBDA = re.compile(
    r"\{lambda\(.*?\)(?:#\d+)?\}|<lambda(?:\(.*?\)|_[0-9a-f]+|_\d+)?>|\{\{closure\}\}|\$_\d+|'lambda\d*'"
)
_ANONYMOUS = re.compile(
    r"\(anonymous namespace\)|`anonymous[ -]namespace'|\{anonymous\}|_GLOBAL__N_\w*|anonymous-namespace"
)
_CLONE = re.compile(
    r"(?:\.(?:cold|part|isra|constprop|llvm|lto_priv|localalias|warm|hot|unlikely|__uniq|\d+)\b(?:\.\d+)*)+$"
    r"| \[clone [^\]]*\]| \(\.[^()]*\)$"
)
_ABI_TAG = re.compile(r"\[abi:[^\]]*\]")
_RUST_HASH = re.compile(r"::h[0-9a-f]{16}$")
_RUST_CRATE_HASH = re.compile(r"\[[0-9a-f]{8,16}\](?=::|$|>)")
_OPERATOR = re.compile(r"operator\s*(?:<=>|<<=|>>=|->\*|->|<<|>>|<=|>=|<|>|\(\))")


@lru_cache(maxsize=65_536)
def normalize_function(name: str) -> str:
    """Return a readable function name without arguments, template arguments, clone marks, hashes and numbering."""
    text = name[:_MAX_NAME]
    text = _RUST_CRATE_HASH.sub("", _RUST_HASH.sub("", _ABI_TAG.sub("", _CLONE.sub("", text))))
    if text.startswith(("-[", "+[")):  # Objective-C: -[Class(Category) selector:with:], all of it counts.
        return text
    text = _LAMBDA.sub("lambda", _ANONYMOUS.sub("anonymous", text))
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


_SYSTEM_PATHS = re.compile(
    r"/(?:usr/)?lib(?:x?32|64|exec)?/|/(?:usr/)?s?bin/ld|/System/|/Library/Apple/|/apex/|/system/|/vendor/lib|/data/app/webview"
    r"|[a-z]:/windows/|linux-(?:gate|vdso)|\[v(?:dso|syscall)\]",
    re.IGNORECASE,
)
_SYSTEM_MODULES = re.compile(
    r"(?:lib(?:c|m|dl|rt|pthread|stdc\+\+|gcc_s|c\+\+|c\+\+abi|unwind|system_\w+|dispatch|objc\.A)|ld(?:-linux[\w-]*|64|-musl[\w-]*)?)"
    r"(?:[-.][\w.-]*)?\.(?:so|dylib)(?:\.[\d.]+)?"
    r"|(?:ntdll|kernel32|kernelbase|user32|gdi32|win32u|ucrtbase|msvcrt|msvcp\d+\w*|vcruntime\d+\w*|combase|rpcrt4|ole32)\.dll"
    r"|dyld|linux-(?:gate|vdso)[\w.]*",
    re.IGNORECASE,
)


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


@lru_cache(maxsize=8192)
def _system_package(package: str) -> bool:
    return bool(_SYSTEM_PATHS.match(package.replace("\\", "/")) or _SYSTEM_MODULES.fullmatch(module_name(package)))


def module_name(package: str) -> str:
    """Return a module's file name without its directories, POSIX or Windows, wherever this runs."""
    return package.replace("\\", "/").rsplit("/", 1)[-1]
