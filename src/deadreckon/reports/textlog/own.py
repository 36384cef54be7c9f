"""Whose code a frame of a log is, by its name and its source's path: run-time libraries and tools are nobody's own."""

from __future__ import annotations

import re

__all__ = ["in_app"]

_FUNCTIONS = re.compile(
    r"_{2,3}(?:interceptor|asan|hwasan|msan|tsan|lsan|ubsan|sanitizer|cfi|libc|GI|cxa|rust|gnu_cxx)|fuzzer::"
    r"|(?:<|_\$LT\$)?(?:&|\(|dyn |impl |\w+ as )*(?:std|core|alloc|backtrace|panic_unwind)(?:::|\.\.)|rust_begin_unwind"
    r"|(?:non-virtual thunk to )?std::|operator (?:new|delete)\b|Swift\.|_swift_"
)
_PATHS = re.compile(
    r"(?:^|[/\\])(?:e?glibc[-/]|sysdeps[/\\]|csu[/\\]|nptl[/\\]|musl[/\\]|bionic[/\\]libc[/\\]|compiler-rt[/\\]|libsanitizer[/\\]"
    r"|libfuzzer[/\\]|libFuzzer[/\\]|c\+\+[/\\]|libc\+\+[/\\]|libcxx[/\\]|libstdc\+\+|rustc[/\\]|rustlib[/\\]|\.cargo[/\\]registry[/\\]"
    r"|library[/\\](?:std|core|alloc|test)[/\\]|vcstartup[/\\]|vctools[/\\]|signal-|string-|malloc-|_asan_rtl_)"
)


def in_app(function: str | None, path: str | None) -> bool | None:
    """Tell whether a frame is the program's own code; None where neither name nor path says so."""
    if function is not None and _FUNCTIONS.match(function):
        return False
    if path is None or function is None:
        return None
    return _PATHS.search(path) is None
