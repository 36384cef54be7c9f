"""Paths of engines and bundlers."""

from __future__ import annotations

import pytest

from deadreckon.objects.jspaths import in_app, joined, project_path, readable, scheme


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("webpack:///./src/a.js", "src/a.js"),
        ("webpack://shop/./src/a.tsx?3f1a", "src/a.tsx"),
        ("webpack://shop/../lib/a.js", "../lib/a.js"),
        ("webpack://@scope/shop/./src/a.js", "src/a.js"),
        ("webpack:///./~/react/index.js", "node_modules/react/index.js"),
        ("webpack:////abs/src/a.js", "abs/src/a.js"),
        ('webpack:///external "x"', 'external "x"'),
        ("webpack-internal:///(rsc)/./app/page.tsx", "app/page.tsx"),
        ("rsc://React/Server/webpack-internal:///(rsc)/./app/page.tsx?12", "app/page.tsx"),
        ("turbopack:///[project]/src/a.ts", "src/a.ts"),
        ("turbopack:///src/a.ts", "src/a.ts"),
        ("ng:///AppModule/AppComponent.html", "AppModule/AppComponent.html"),
        ("app:///_next/static/a.js", "_next/static/a.js"),
        ("../src/a.ts", "../src/a.ts"),
        ("./src/a.ts", "src/a.ts"),
        ("/home/u/src/a.ts", "/home/u/src/a.ts"),
        ("https://host/a.js?v=1", "https://host/a.js?v=1"),
        ("C:\\src\\a.ts", "C:\\src\\a.ts"),
        ("\0commonjsHelpers.js", "commonjsHelpers.js"),
        ("webpack://_N_E/./src/a.ts?ab12", "src/a.ts"),
        ("webpack://_N_E/src/a.ts?ab12", "src/a.ts"),
        ("webpack-internal:///(app-pages-browser)/./app/x.tsx", "app/x.tsx"),
        ("", ""),
        ("webpack://", "webpack://"),
    ],
)
def test_project_path(source: str, expected: str) -> None:
    assert project_path(source) == expected


@pytest.mark.parametrize(
    ("base", "source", "expected"),
    [
        ("https://cdn.net/js/app.js", "../src/a.ts", "https://cdn.net/src/a.ts"),
        ("https://cdn.net/js/app.js?v=1#x", "./a.ts", "https://cdn.net/js/a.ts"),
        ("https://cdn.net/js/app.js", "../../../a.ts", "https://cdn.net/a.ts"),
        ("https://cdn.net/js/app.js", "/src/a.ts", "https://cdn.net/src/a.ts"),
        ("https://cdn.net/js/app.js", "//other.net/a.ts", "https://other.net/a.ts"),
        ("https://cdn.net/js/app.js", "webpack:///./a.ts", "webpack:///./a.ts"),
        ("https://cdn.net/js/app.js", "C:/src/a.ts", "C:/src/a.ts"),
        ("https://cdn.net", "a.ts", "https://cdn.net/a.ts"),
        ("/srv/app/dist/app.js", "../src/a.ts", "/srv/app/src/a.ts"),
        ("/srv/app.js", "../../a.ts", "/a.ts"),
        ("app.js", "src/a.ts", "src/a.ts"),
        ("dist/app.js", "../../a.ts", "../a.ts"),
        ("data:application/json,x", "a.ts", "a.ts"),
        (None, "a.ts", "a.ts"),
    ],
)
def test_joined(base: str | None, source: str, expected: str) -> None:
    assert joined(base, source).removeprefix("//") == expected.removeprefix("//")


@pytest.mark.parametrize(
    "path",
    [
        "https://cdn.net/static/app.js",
        "/srv/app/index.js",
        "C:\\app\\main.js",
        "webpack:///./src/a.js",
        "src/a.ts",
        "app:///main.jsbundle",
        "index.android.bundle",
        "file:///data/user/0/com.x/files/bundle",
        "blob:https://x.com/1",
    ],
)
def test_the_application_s_own(path: str) -> None:
    assert in_app(path)


@pytest.mark.parametrize(
    "path",
    [
        None,
        "",
        "<anonymous>",
        "node:internal/modules/cjs/loader",
        "internal/process/task_queues.js",
        "/srv/app/node_modules/react/index.js",
        "C:\\app\\node_modules\\react\\index.js",
        "webpack:///./node_modules/react/index.js",
        "webpack:///./~/react/index.js",
        "webpack:///webpack/runtime/jsonp chunk loading",
        "webpack/bootstrap",
        "chrome-extension://abc/content.js",
        "moz-extension://abc/content.js",
        "safari-web-extension://abc/content.js",
        "webkit-masked-url://hidden/",
        "InternalBytecode.js",
        "/hermes/build/lib/InternalBytecode/InternalBytecode.js",
        "ext:core/01_core.js",
        "resource://gre/modules/Foo.sys.mjs",
        "[native code]",
        "../\0commonjsHelpers.js",
        "\0vite/preload-helper.js",
        "vite/preload-helper",
    ],
)
def test_somebody_else_s(path: str | None) -> None:
    assert not in_app(path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("https://cdn.net/static/app.js?v=1:2", "/static/app.js"),
        ("https://cdn.net", "cdn.net"),
        ("file:///srv/app%20x/index.mjs", "/srv/app x/index.mjs"),
        ("file:///C:/app/main.js", "C:/app/main.js"),
        ("/srv/my%20file.js", "/srv/my file.js"),
        ("data:text/javascript,export function f(){}", "<data:text/javascript>"),
        ("webpack-internal:///(rsc)/./src/app/page.tsx", "src/app/page.tsx"),
        ("node:internal/x", "node:internal/x"),
        ("eval code", "eval code"),
        ("100%.js", "100%.js"),
    ],
)
def test_readable(path: str, expected: str) -> None:
    assert readable(path) == expected


def test_scheme() -> None:
    assert [scheme(p) for p in ("http://a", "C:/a", "node:fs", "a/b:c", "x" * 50 + ":", "a b:c", "", ":")] == [
        *("http", "", "node", "", "", "", "", ""),
    ]
