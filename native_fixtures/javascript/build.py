#!/usr/bin/env python3
"""Build the JavaScript fixtures: bundles with source maps, and the stacks of what they throw, in Node and in Chromium.

Needs node, npm (the bundlers of package.json are installed into a temporary directory, or taken from where
``--modules`` says) and Chromium. On Debian::

    apt-get install nodejs npm chromium

Made beside this file are, for each bundler, ``BUNDLER/app.js`` and ``app.js.map``, and ``stacks/ENGINE-BUNDLER.json``:
what the scenarios of ``src/main.js`` threw. ``stacks/ENGINE-truth.json`` is what they throw where the sources run as
they are. Addresses and directories of the machine are replaced by those of a shop that doesn't exist.

Minifiers may put one function into another where it is called once; then a stack has fewer frames than the sources
have calls, and no map tells. That is switched off, everything else is as each bundler minifies by default.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).resolve().parent
PLACES = {"node": "/srv/shop", "chromium": "https://shop.example"}
"""What stands for the directory that was served, by engine."""
SECONDS = 120

WEBPACK = """
const Terser = require("terser-webpack-plugin");
module.exports = {
  mode: "production", target: ["web", "es2022"], entry: "./src/main.js", devtool: "source-map",
  output: { path: __dirname + "/out/webpack", filename: "app.js" },
  // Left to itself, webpack maps statements. Projects have a loader, whose maps know every token.
  module: { rules: [{ test: /[.]js$/, use: __dirname + "/loader.cjs" }] },
  optimization: { minimizer: [new Terser({ terserOptions: { compress: { inline: 0, reduce_funcs: false } } })] },
};
"""
LOADER = """
const swc = require("@swc/core");
module.exports = function (code) {
  const done = this.async();
  swc.transform(code, { filename: this.resourcePath, sourceMaps: true, jsc: { target: "es2022" } })
    .then((made) => done(null, made.code, JSON.parse(made.map)), done);
};
"""
ROLLUP = """
import terser from "@rollup/plugin-terser";
export default {
  input: "src/main.js",
  output: { file: "out/rollup/app.js", format: "iife", sourcemap: true },
  plugins: [terser({ compress: { inline: 0, reduce_funcs: false } })],
};
"""
# swc minifies; what it minifies has to be bundled first.
SWC = """
const swc = require("@swc/core");
const minify = {
  name: "swc",
  renderChunk: (code) => swc.minify(code, {
    compress: { inline: 0, reduce_funcs: false, reduce_vars: false }, mangle: true, sourceMap: true, module: false,
  }),
};
module.exports = {
  input: "src/main.js", output: { file: "out/swc/app.js", format: "iife", sourcemap: true }, plugins: [minify],
};
"""
ESBUILD = ["node_modules/.bin/esbuild", "src/main.js", "--bundle", "--minify", "--sourcemap", "--charset=utf8"]
BUNDLERS: dict[str, list[str]] = {
    "esbuild": [*ESBUILD, "--target=es2022", "--outfile=out/esbuild/app.js"],
    # Fields, private methods and asynchronous functions become what older browsers have.
    "esbuild-es2016": [*ESBUILD, "--target=es2016", "--outfile=out/esbuild-es2016/app.js"],
    "webpack": ["node_modules/.bin/webpack", "--config", "webpack.config.cjs"],
    "rollup": ["node_modules/.bin/rollup", "-c", "rollup.config.mjs"],
    "swc": ["node_modules/.bin/rollup", "-c", "swc.config.cjs"],
}


class BuildError(Exception):
    """A tool failed, or what was made is not what it should be."""


def run(command: list[str], folder: Path) -> str:
    """Run a tool to its end and return what it printed. Raises BuildError."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=SECONDS)
    if done.returncode:
        raise BuildError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def bundle(root: Path) -> None:
    """Make every bundle."""
    (root / "webpack.config.cjs").write_text(WEBPACK)
    (root / "loader.cjs").write_text(LOADER)
    (root / "rollup.config.mjs").write_text(ROLLUP)
    (root / "swc.config.cjs").write_text(SWC)
    for name, command in BUNDLERS.items():
        run(command, root)
        made = json.loads((root / f"out/{name}/app.js.map").read_text())
        sources = " ".join(made["sources"])
        if str(root) in sources or not all(f"src/{s}.js" in sources for s in ("main", "ledger", "tasks")):
            raise BuildError(f"{name}: sources are {sources}")


def in_node(root: Path, script: str) -> str:
    """Run a script in Node; return what it printed."""
    return (
        run(["node", str(root / script)], root)
        .replace(f"file://{root}", PLACES["node"])
        .replace(str(root), PLACES["node"])
    )


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def in_chromium(root: Path, script: str) -> str:
    """Run a script in Chromium; return what it left in the page."""
    kind = ' type="module"' if script.startswith("src/") else ""
    page = f'<!DOCTYPE html><meta charset="utf-8"><body><script{kind} src="{script}"></script>'
    (root / "page.html").write_text(page)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        origin = f"http://127.0.0.1:{server.server_address[1]}"
        page = run(
            [
                *("chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={root / 'profile'}"),
                *("--virtual-time-budget=5000", "--dump-dom", f"{origin}/page.html"),
            ],
            root,
        )
    finally:
        server.shutdown()
    body = re.search(r"<body>(.*)</body>", page, re.DOTALL)
    if body is None or not body[1].startswith("["):
        raise BuildError(f"{script}: Chromium left {page[:200]}")
    return html.unescape(body[1]).replace(origin, PLACES["chromium"])


ENGINES: dict[str, Callable[[Path, str], str]] = {"node": in_node, "chromium": in_chromium}


def stacks(root: Path, engine: str, script: str) -> list[dict[str, Any]]:
    """Run the scenarios; return what each threw, in the order of their names."""
    thrown: list[dict[str, Any]] = json.loads(ENGINES[engine](root, script))
    return sorted(thrown, key=lambda each: each["scenario"])


def main() -> int:
    """Build all; exit 1 where a tool failed."""
    parser = argparse.ArgumentParser(description="Build the JavaScript fixtures.")
    parser.add_argument("--modules", type=Path, help="a node_modules that has what package.json asks for")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch).resolve()
        shutil.copytree(HERE / "src", root / "src")
        shutil.copy(HERE / "package.json", root)
        (root / "src/package.json").write_text('{"type": "module"}')
        try:
            if options.modules:
                (root / "node_modules").symlink_to(options.modules.resolve())
            else:
                run(["npm", "install", "--no-audit", "--no-fund"], root)
            bundle(root)
            versions = {"node": run(["node", "--version"], root), "chromium": run(["chromium", "--version"], root)}
            for engine in ENGINES:
                made = {"truth": stacks(root, engine, "src/main.js")}
                made |= {name: stacks(root, engine, f"out/{name}/app.js") for name in BUNDLERS}
                for name, found in made.items():
                    target = HERE / f"stacks/{engine}-{name}.json"
                    target.parent.mkdir(exist_ok=True)
                    whole = {"engine": versions[engine].strip(), "thrown": found}
                    target.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        except (BuildError, OSError, ValueError, subprocess.SubprocessError) as e:
            print(f"build.py: {e}", file=sys.stderr)
            return 1
        for name in BUNDLERS:
            (HERE / name).mkdir(exist_ok=True)
            for file in ("app.js", "app.js.map"):
                shutil.copy(root / "out" / name / file, HERE / name / file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
