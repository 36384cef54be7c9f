"""What a frame gives to Sentry's hashes: of its module, file, function and line of source those parts that count.

Looked at once for each distinct frame and kept, with the tests of the stack-trace rules it passes. Specification:
sentry's ``frame:v1`` strategy of 2023-02 (facts about Java's proxies, JavaScript's origins and others are its own).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from deadreckon.grouping.families.sentry.functions import trim_function
from deadreckon.grouping.rules import StackRules, Symbol, family_of

if TYPE_CHECKING:
    from deadreckon.grouping.families.sentry.payload import Frame

__all__ = ["Counted", "Frames", "Options", "Part", "has_url_origin", "parts_of"]

MAX_PLATFORMS = 64
MAX_FRAMES = 1 << 17
"""Distinct frames that are kept; when there are more, all are forgotten and looked at anew."""

_CONTEXT_PLATFORMS = frozenset({"javascript", "node", "python", "php", "ruby"})
"""Platforms whose lines of source are of use: mostly there, and mostly the source that ran."""
_NO_FUNCTION = frozenset({"?", "<anonymous function>", "<anonymous>", "Anonymous function"})
_NO_SCRIPT = frozenset({"[native code]", "native code", "eval code", "<anonymous>"})
_MAX_LINE = 120

_SEPARATOR = re.compile(r"[/\\]")
_ERB = re.compile(r"__\d{4,}_\d{4,}$")
_JAVASSIST = re.compile(r"(\$\$_javassist)(?:_seam)?(?:_[0-9]+)?")
_GENERATED = [
    re.compile(r"(sun\.reflect\.Generated(?:Serialization)?ConstructorAccessor)\d+"),
    re.compile(r"(\$\$\w+?CGLIB\$\$)[a-fA-F0-9]+(?:_[0-9]+)?"),
    _JAVASSIST,
    re.compile(r"(\$fn__)\d+"),
]
"""Java's classes made at run time: reflection, CGLIB, Javassist, Clojure's functions."""
_ACCESSORS = ("sun.reflect.GeneratedMethodAccessor", "jdk.internal.reflect.GeneratedMethodAccessor")


@dataclass(frozen=True, slots=True)
class Options:
    """In what the configurations differ."""

    name: str
    hierarchical: bool = False
    """The variants are the nearest frame, the nearest two and so on, not the application's frames and all."""
    no_native_filename: bool = False
    package_fallback: bool = False
    same_anonymous: bool = False
    """One spelling of C++'s anonymous namespace for all compilers."""
    detect_synthetic: bool = False
    """Types that are codes of the operating system don't count."""


class Part(NamedTuple):
    """One part of a frame, whether it counts, and why (or why not)."""

    kind: str
    value: str | None
    contributes: bool
    why: str = ""


class Counted(NamedTuple):
    """A frame as it is counted: the rules' tests it passes, its bytes for the hash, and what decides about it."""

    tests: tuple[int, ...]
    data: bytes
    contributes: str
    """``1`` or ``0``, as ``in_app``: of a stack they are one number in binary."""
    in_app: str
    identity: tuple[object, ...]
    """Frames that follow each other and have the same are one, called again. Equal ones are the same object."""
    lonely: bool
    """JavaScript without a function and from a URL: alone it says nothing."""


class Frames:
    """The distinct frames of events, for one set of options and rules.

    Without ``modify`` frames are taken as they came: rules don't change them, names are not trimmed before recursion is
    looked for.
    """

    def __init__(self, options: Options, rules: StackRules, *, modify: bool = True) -> None:
        self.options = options
        self.rules = rules
        self.modify = modify
        self._known: dict[str | None, dict[Frame, Counted]] = {}
        self._count_of_frames = 0
        self._identities: dict[tuple[object, ...], tuple[object, ...]] = {}

    def counted(self, frames: list[Frame], platform: str | None) -> list[Counted]:
        """Return what frames give, in an event of a platform."""
        if len(self._known) >= MAX_PLATFORMS or self._count_of_frames >= MAX_FRAMES:
            self._known.clear()
            self._identities.clear()
            self._count_of_frames = 0
        known = self._known.setdefault(platform, {})
        try:
            return [known[f] for f in frames]
        except KeyError:
            return [known.get(f) or known.setdefault(f, self._count(f, platform)) for f in frames]

    def _count(self, frame: Frame, event_platform: str | None) -> Counted:
        self._count_of_frames += 1
        platform = frame.platform or event_platform
        function, _ = names_of(frame, platform)
        family = family_of(platform)
        parts, contributes = parts_of(frame, platform, self.options)
        called = function if self.modify else frame.function
        place = (frame.abs_path, frame.package, frame.module, frame.filename, called, frame.lineno, frame.colno)
        symbol = Symbol(family, function, frame.module, frame.package, frame.abs_path or frame.filename)
        told = frame.in_app
        if frame.data is not None and frame.data.orig_in_app is not None:  # Rules were applied before.
            told = None if frame.data.orig_in_app == -1 else bool(frame.data.orig_in_app)
        return Counted(
            self.rules.tests(symbol),
            "".join(p.value for p in parts if p.contributes and p.value is not None).encode("utf-8", "replace"),
            "1" if contributes else "0",
            "1" if told else "0",
            self._identities.setdefault(place, place),
            family == "javascript" and not function and is_url(frame.abs_path),
        )


def names_of(frame: Frame, platform: str | None) -> tuple[str | None, str | None]:
    """Return a frame's function and raw function; one that comes without its raw one is trimmed here."""
    if frame.raw_function is None and frame.function:
        trimmed = trim_function(frame.function, platform)
        if trimmed != frame.function:
            return trimmed, frame.function
    return frame.function, frame.raw_function


def has_url_origin(path: str | None, *, files_too: bool = True) -> bool:
    """Tell whether a script comes from a web page."""
    schemes = ("http:", "https:", "applewebdata:", "blob:")
    return bool(path) and path.startswith((*schemes, "file:") if files_too else schemes)  # type: ignore[union-attr]


def is_url(path: str | None) -> bool:
    """Tell whether a path is a URL."""
    return bool(path) and path.startswith(("blob:", "file:", "http:", "https:", "applewebdata:"))  # type: ignore[union-attr]


def parts_of(frame: Frame, platform: str | None, options: Options) -> tuple[list[Part], bool]:
    """Return the parts of a frame in the order they are hashed, and whether the frame counts."""
    function, raw_function = names_of(frame, platform)
    family = family_of(platform)
    file, module = _file(frame, platform), _module(frame, platform)
    if module.contributes and file.contributes:
        file = Part("filename", file.value, False, "the module takes precedence")
    line = _line(frame, function, family) if platform in _CONTEXT_PLATFORMS else None
    sourcemap = frame.data is not None and frame.data.sourcemap is not None
    named = _function(function, raw_function, platform, family, options)
    if family == "javascript" and named.contributes and sourcemap and line is not None and line.contributes:
        named = Part("function", named.value, False, "source maps name functions badly, and there is a line of source")
    if options.no_native_filename and family == "native" and named.contributes and file.contributes:
        file = Part("filename", file.value, False, "files of native code differ between platforms")
    parts = [module, file, named, *([line] if line is not None else [])]
    if options.package_fallback and frame.package and platform == "native":
        base = _SEPARATOR.split(frame.package)[-1].lower()
        fallback = not any(p.contributes for p in parts)
        why = "nothing else is known" if fallback else "more is known than the package"
        parts.append(Part("package", base, fallback, why))
    contributes = any(p.contributes for p in parts)
    if family == "javascript":
        # What is decided here comes after the frame was found to count: it counts with nothing to show for it.
        called = (raw_function or function or "").rsplit(".", 1)[-1]
        if not called or called in _NO_FUNCTION or called.endswith("/<"):
            parts[2] = Part("function", named.value, False, "an unknown function")
        if called == "eval" or frame.abs_path in _NO_SCRIPT:
            contributes = False
    return parts, contributes


def _file(frame: Frame, platform: str | None) -> Part:
    if frame.filename is None:
        return Part("filename", None, False)
    name = _SEPARATOR.split(frame.filename)[-1].lower()
    if has_url_origin(frame.abs_path, files_too=False):
        return Part("filename", name, False, "the frame points to a URL")
    if name == "<anonymous>":
        return Part("filename", name, False, "an anonymous file")
    if name == "[native code]":
        return Part("filename", name, False, "the engine's own code")
    if platform == "java" and (cleaned := _JAVASSIST.sub(r"\1<auto>", name)) != name:
        return Part("filename", cleaned, True, "without Javassist's number")
    return Part("filename", name, True)


def _module(frame: Frame, platform: str | None) -> Part:
    module = frame.module
    if module is None:
        return Part("module", None, False)
    if platform == "javascript" and "/" in module and frame.abs_path and frame.abs_path.endswith(module):
        return Part("module", module, False, "it is the script's path")
    if platform != "java":
        return Part("module", module, True)
    for accessor in _ACCESSORS:
        if module.startswith(accessor):
            return Part("module", accessor, True, "without reflection's number")
    cleaned = module
    for pattern in _GENERATED:
        cleaned = pattern.sub(r"\1<auto>", cleaned)
    if cleaned != module:  # This also brings back what a lambda in the name would put aside.
        return Part("module", cleaned, True, "without the marks of generated code")
    return Part("module", module, "$$Lambda$" not in module, "a lambda" if "$$Lambda$" in module else "")


def _function(function: str | None, raw: str | None, platform: str | None, family: str, options: Options) -> Part:
    name = (raw or function) if platform == "csharp" else (function or raw)
    if not name:
        return Part("function", None, False)
    if platform == "ruby":
        if name.startswith("block "):
            return Part("function", "block", True, "a block")
        return Part("function", _ERB.sub("", name), True)
    if platform == "php":
        ignored = name.startswith(("[Anonymous", "class@anonymous\0"))
        if name.startswith("class@anonymous") and (method := name.rsplit("::", 1)[-1]) != name:
            return Part("function", method, True, "of an anonymous class")
        return Part("function", name, not ignored, "an anonymous function" if ignored else "")
    if platform == "java":
        ignored = name.startswith("lambda$")
        return Part("function", name, not ignored, "a lambda" if ignored else "")
    if family == "native":
        if options.same_anonymous:
            same = name.replace("(anonymous namespace)", "`anonymous namespace'")
            if same != name:
                return Part("function", same, True)
        ignored = name in {"<redacted>", "<unknown>"}
        return Part("function", name, not ignored, "an unknown function" if ignored else "")
    if family == "javascript":  # Object.f in one browser is f in another.
        return Part("function", name.rsplit(".", 1)[-1], True)
    return Part("function", name, True)


def _line(frame: Frame, function: str | None, family: str) -> Part:
    line = " ".join((frame.context_line or "").expandtabs(2).split())
    if not line:
        return Part("context-line", None, False)
    if len(frame.context_line or "") > _MAX_LINE:
        return Part("context-line", line, False, "the line is too long")
    if family == "javascript" and not function and has_url_origin(frame.abs_path):
        return Part("context-line", line, False, "from a URL, and no function")
    return Part("context-line", line, True)
