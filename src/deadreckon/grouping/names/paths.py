"""Names of source files: what is left when build roots, versions and content hashes are gone."""

from __future__ import annotations

import re

__all__ = ["file_name"]

_SCHEME = r"^(?:webpack-internal|webpack|app|file|capacitor|ionic|turbopack|https?|blob|chrome-extension|rsc)://+"
_QUERY = re.compile(r"[?#].*$", re.DOTALL)
_VERSION = re.compile(
    r"[-_.@]v?\d+(?:\.\d+){1,3}(?:[-.+](?:alpha|beta|rc|dev|post|snapshot)[\d.]*)?(?=[./_-]|$)", re.IGNORECASE
)
_HEX = re.compile(r"[-_.~](?=[0-9a-f]*\d)[0-9a-f]{6,64}(?=[._-]|$)", re.IGNORECASE)
_BASE64 = re.compile(r"-(?=[\w-]*\d)(?=[\w-]*[a-z])(?=[\w-]*[A-Z_-])[\w-]{8}(?=\.)")
_NUMBERED = re.compile(r"^\d+(?=\.)")
_INTERACTIVE = re.compile(r"^<ipython-input-\d+-[0-9a-f]+>$")
_SCRIPTS = frozenset({"javascript", "python", "ruby", "php"})
_ANCHORS = ("/site-packages/", "/dist-packages/", "/node_modules/", "/gems/", "/vendor/")
_PYTHON_LIBRARY = re.compile(r"/(?:lib|Lib)/(?:python\d(?:\.\d+)?|pypy[\d.]*)/")


def file_name(path: str, platform: str | None = None) -> str:
    """Return a file's stable name: for compiled code the last part; for scripts without the marks of one build.

    A library's file keeps its path from the library on (``react/cjs/react.js``), the application's own its last part:
    what stands before is where it was built or installed. Upper case is lowered: Windows doesn't tell them apart.
    """
    text = path[:4096].replace("\\", "/").strip()
    if _INTERACTIVE.match(text):
        return "<ipython-input>"
    if text.startswith("<") and text.endswith(">"):
        return text
    if platform not in _SCRIPTS:
        return text.rstrip("/").rpartition("/")[2].lower()
    text = _QUERY.sub("", re.sub(_SCHEME, "/", text))
    for anchor in _ANCHORS:
        if anchor in text:
            return _without_versions(text.rpartition(anchor)[2]).lower()
    if match := _PYTHON_LIBRARY.search(text):
        return text[match.end() :].lower()
    return _without_marks(text.rstrip("/").rpartition("/")[2]).lower()


def _without_versions(text: str) -> str:
    return _VERSION.sub("", text)


def _without_marks(name: str) -> str:
    """Take a bundler's marks off a file's name: hashes, versions, the numbers of chunks."""
    stem = _NUMBERED.sub("chunk", name) if name.count(".") > 1 else name
    stem = _BASE64.sub("", _HEX.sub("", _VERSION.sub("", stem)))
    return stem if stem.strip(".-_") else name
