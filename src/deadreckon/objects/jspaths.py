"""Paths of JavaScript: what engines print, what bundlers write into maps, and whose code a path is.

Bundlers give sources names of their own: ``webpack://app/./src/a.js``, ``turbopack:///[project]/src/a.ts``,
``ng:///AppModule/a.html``, ``app:///_next/static/a.js``. What is shown is the path in the project.
"""

from __future__ import annotations

from urllib.parse import unquote

__all__ = ["has_scheme", "in_app", "joined", "project_path", "readable", "scheme"]

_BUNDLERS = (
    "webpack",
    "webpack-internal",
    "turbopack",
    "rsc",
    "ng",
    "next",
    "app",
    "vite",
    "parcel",
    "parcel-runtime",
    "rollup",
    "rspack",
    "metro",
    "meteor",
    "sveltekit-internal",
)
_LOCAL = ("file", "capacitor", "ionic", "tauri", "asset")
_FOREIGN = (
    "node",
    "bun",
    "deno",
    "ext",
    "native",
    "internal",
    "self-hosted",
    "chrome",
    "chrome-extension",
    "moz-extension",
    "safari-extension",
    "safari-web-extension",
    "ms-browser-extension",
    "webkit-masked-url",
    "user-script",
    "extensions",
)
"""Schemes of code that is nobody's application."""
_FOREIGN_PARTS = ("/node_modules/", "/bower_components/", "/.yarn/", "/.pnpm/", "/~/", "/webpack/runtime/")
_FOREIGN_BEGINNINGS = (
    "node_modules/",
    "internal/",
    "webpack/runtime/",
    "webpack/bootstrap",
    "webpack/universalModuleDefinition",
    "(webpack)/",
    "[turbopack]/",
    "vite/preload-helper",
    "vite/modulepreload-polyfill",
    "resource://gre/",
    "resource://devtools/",
    "resource:///",
    "~/",
)
_FOREIGN_NAMES = ("InternalBytecode.js", "<anonymous>", "<native>", "__prelude__")
_MADE_UP = "\0"
"""Begins the names of modules that Rollup's and Vite's plugins make up."""
_MOST = 4096
"""Characters of a path that are looked at."""


def scheme(path: str) -> str:
    """Return a URL's scheme in lower case, empty for a path: a drive's letter is none."""
    head, colon, _ = path[:40].partition(":")
    if not colon or len(head) < 2 or not head[0].isalpha() or not head.isascii():
        return ""
    return head.lower() if head.replace("+", "a").replace("-", "a").replace(".", "a").isalnum() else ""


def has_scheme(path: str) -> bool:
    """Tell whether a path is a URL of its own, as opposed to one relative to something."""
    return bool(scheme(path))


def in_app(path: str | None) -> bool:
    """Tell whether code is the application's own by where it lies.

    Engines' and runtimes' own code is not, nor are packages and extensions of browsers. Code without a place is not.
    """
    if not path:
        return False
    text = path[:_MOST].replace("\\", "/")
    if scheme(text) in _FOREIGN or _MADE_UP in text or text.endswith(_FOREIGN_NAMES):
        return False
    if text.startswith(("[native", "native code")):
        return False
    rest = text.split("://", 1)[-1] if "://" in text else text
    rest = rest.removeprefix("/").removeprefix("./")
    return not (
        text.startswith(_FOREIGN_BEGINNINGS)
        or rest.startswith(_FOREIGN_BEGINNINGS)
        or any(part in text for part in _FOREIGN_PARTS)
    )


def readable(path: str) -> str:
    """Return a path for people: without host, query and fragment, escapes decoded. Other texts stay as they are."""
    kind = scheme(path)
    if kind == "data":
        return f"<data:{path[5:].partition(',')[0].partition(';')[0]}>"
    if kind in _BUNDLERS:
        return project_path(path)
    text = path
    if "://" in path[:40]:
        text = path.split("://", 1)[1]
        host, slash, tail = text.partition("/")
        text = slash + tail if slash else host
        text = text.partition("?")[0].partition("#")[0] if kind not in {"file", "node"} else text
        if kind == "file" and text[2:3] == ":":  # file:///C:/x.js
            text = text[1:]
    if "%" in text and (kind or text.startswith("/")):
        text = unquote(text, errors="replace")
    return text or path


def project_path(source: str) -> str:
    """Return a map's source as a path in the project: what a bundler puts before and behind it goes.

    ``webpack://ns/./src/a.js?ab12`` is ``src/a.js``, ``webpack:///../x.js`` stays ``../x.js``; a package's directory
    that bundlers abbreviate (``/~/react``) is ``node_modules`` again.
    """
    text = source = source.replace(_MADE_UP, "") or source
    while (kind := scheme(text)) in _BUNDLERS:
        rest = text[len(kind) + 1 :]
        if rest.startswith("//"):
            rest = rest[2:]
            host, slash, path = rest.partition("/")
            # What stands before the path is a name space, except that React's server names another URL.
            if kind == "rsc" and host == "React":
                rest = path.partition("/")[2]
            elif slash and not _nested(rest):
                rest = rest.partition("/./")[2] or path
        text = rest
        if not text:
            return source
    if text is not source:
        text = _without_query(text)
    if text.startswith("(") and ")/" in text:  # Next: webpack-internal:///(rsc)/./app/page.tsx
        text = text.partition(")/")[2]
    if text.startswith("[project]/"):
        text = text.removeprefix("[project]/")
    text = text.lstrip("/") if kind != scheme(source) else text
    while text.startswith("./"):
        text = text[2:]
    if text.startswith("~/"):
        text = "node_modules/" + text[2:]
    return text.replace("/~/", "/node_modules/") or source


def _nested(text: str) -> bool:
    return scheme(text) in _BUNDLERS


def _without_query(text: str) -> str:
    """Return a module's path without webpack's ``?hash`` and with what a loader was told taken off."""
    path, mark, query = text.rpartition("?")
    if mark and "/" not in query and "\\" not in query:
        text = path
    # A loader's own chain ends with the module: css-loader!./a.css
    return text.rpartition("!")[2] or text


def joined(base: str | None, source: str) -> str:
    """Return a source as a whole URL or path: relative ones are relative to the map (or the script) they are from.

    A source with a scheme stands alone; ``//host/x`` keeps the base's scheme, ``/x`` its host.
    """
    if has_scheme(source) or not base or scheme(base) == "data" or source[1:3] in {":\\", ":/"}:
        return source
    head, separator, tail = base.partition("://")
    if not separator:
        head, tail = "", base.replace("\\", "/") if "\\" in base and "/" not in base else base
    else:
        head += separator
        tail = tail.partition("?")[0].partition("#")[0]
    if source.startswith("//") and head:
        return head + source[2:]
    host, slash, path = tail.partition("/") if head else ("", "", tail)
    if source.startswith("/"):
        return head + host + source
    directory = path.rpartition("/")[0]
    slash = "/" if head else slash
    pieces = [] if not directory else directory.split("/")
    for piece in source.split("/"):
        if piece == ".." and pieces and pieces[-1] not in {"", ".."}:
            pieces.pop()
        elif piece == ".." and (head or pieces == [""]):
            continue
        elif piece not in {"", "."}:
            pieces.append(piece)
    return head + host + slash + "/".join(pieces)
