"""Finding scripts and their maps."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import struct
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from deadreckon.config import Config, MapLimits
from deadreckon.errors import DeadreckonError, LimitExceeded, Malformed, SourceUnavailable
from deadreckon.objects.artifactbundle import ArtifactBundle, kind_of_name
from deadreckon.symbols.maps import MapStore
from deadreckon.symbols.scriptplaces import Place, open_place, url_candidates
from deadreckon.symbols.scripts import Found, Scripts, Wanted
from deadreckon.symbols.store import SymbolStore
from synth.sourcemap import source_map

if TYPE_CHECKING:
    from pathlib import Path

ONE, TWO = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"
URL = "https://example.com/static/js/app.js"


def named(name: str, **members: Any) -> bytes:
    """Return a map that can be told from others by its file."""
    return source_map([(0, 0, 0, 0, 0)], file=name, **members)


def scripts(*paths: Path | str, store: SymbolStore | None = None) -> Scripts:
    config = Config()
    return Scripts([open_place(str(path), config) for path in paths], MapStore(config), store, config)


def found_name(found: Found) -> str | None:
    """Return the file that the found map is of."""
    return found.table.info["file"] if found.table is not None else None


def write(root: Path, **files: bytes | str) -> Path:
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("_map", ".map").replace("_js", ".js")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def test_url_candidates() -> None:
    assert url_candidates("https://a.b/c/d.js?q=1#f") == [
        *("https://a.b/c/d.js?q=1", "https://a.b/c/d.js", "~/c/d.js?q=1", "~/c/d.js"),
    ]
    assert url_candidates("/c/d.js") == ["/c/d.js", "~/c/d.js"]
    assert url_candidates("app:///main.js") == ["app:///main.js", "~/main.js"]
    assert url_candidates("~/c/d.js") == ["~/c/d.js"]
    assert url_candidates("") == [""]


# --- Directories ----------------------------------------------------------------------------------------------------


def test_by_the_reports_debug_id(tmp_path: Path) -> None:
    root = write(tmp_path / "d", a_map=named("a", debugId=ONE), x__b_map=named("b", debug_id=TWO), c_map=named("c"))
    found = scripts(root).find(Wanted(URL, debug_id=TWO.upper().replace("-", "")))
    assert (found_name(found), found.key, found.state) == ("b", "debug_id", "found")
    assert found.map_name == str(root / "x" / "b.map")
    assert found.script is None


def test_by_chunk_id(tmp_path: Path) -> None:
    root = write(tmp_path / "d", a_js_map=named("a", chunk_id="0190"), a_js="x()\n//# chunkId=0190\n")
    found = scripts(root).find(Wanted("https://other/z.js", chunk_id="0190"))
    assert (found_name(found), found.key) == ("a", "chunk_id")
    assert found.script == b"x()\n//# chunkId=0190\n"


def test_by_the_scripts_own_ids(tmp_path: Path) -> None:
    root = write(
        tmp_path / "d",
        static__js__app_js=f"x()\n//# debugId={ONE}\n//# sourceMappingURL=wrong.map\n",
        static__js__wrong_map=named("wrong"),
        maps__a_map=named("a", debugId=ONE),
        b_js="x()\n//# chunkId=77\n",
        maps__b_map=named("b", chunk_id="77"),
    )
    found = scripts(root).find(Wanted(URL))
    assert (found_name(found), found.key, found.script_name) == ("a", "debug_id", str(root / "static/js/app.js"))
    assert found_name(scripts(root).find(Wanted("/b.js"))) == "b"


@pytest.mark.parametrize(
    ("reference", "key", "name"),
    [
        *(("app.map", "comment", "beside"), ("app.map?v=1", "comment", "beside"), ("./app.map#x", "comment", "beside")),
        *(("../maps/app.map", "comment", "up"), ("/maps/app.map", "comment", "top"), ("gone.map", "name", "by name")),
        ("https://cdn.example/maps/app.map", "comment", "top"),
    ],
)
def test_by_the_scripts_comment(tmp_path: Path, reference: str, key: str, name: str) -> None:
    root = write(
        tmp_path / "d",
        static__js__app_js=f"x()\n//# sourceMappingURL={reference}\n",
        static__js__app_map=named("beside"),
        static__js__app_js_map=named("by name"),
        static__maps__app_map=named("up"),
        maps__app_map=named("top"),
    )
    found = scripts(root).find(Wanted(URL))
    assert (found_name(found), found.key) == (name, key)


def test_embedded_maps(tmp_path: Path) -> None:
    data = base64.b64encode(named("inside")).decode()
    root = write(tmp_path / "d", app_js=f"x()\n//# sourceMappingURL=data:application/json;base64,{data}\n")
    found = scripts(root).find(Wanted(URL))
    assert (found_name(found), found.key, found.map_name) == ("inside", "data_url", "data URL")
    write(root, app_js="x()\n//# sourceMappingURL=data:application/json;base64,AAAA\n")
    found = scripts(root).find(Wanted(URL))
    assert (found.table, found.state) == (None, "bad_map")
    assert found.problem is not None
    assert found.problem.startswith("data URL: ")


def test_a_map_without_its_script(tmp_path: Path) -> None:
    found = scripts(write(tmp_path / "d", js__app_js_map=named("a"))).find(Wanted(URL + "?v=2#x"))
    assert (found_name(found), found.key, found.script) == ("a", "name", None)


def test_no_map(tmp_path: Path) -> None:
    root = write(tmp_path / "d", app_js="x()\n//# sourceMappingURL=m/gone.map\n", z_map=named("z", debugId=TWO))
    found = scripts(root).find(Wanted(URL, debug_id=ONE, chunk_id="c"))
    assert (found.table, found.state, found.problem) == (None, "no_map", None)
    assert found.script is not None
    assert found.tried == [
        *(f"debug id {ONE}", "chunk id c", "https://example.com/static/js/m/gone.map", f"{URL}.map"),
    ]


def test_bad_maps(tmp_path: Path) -> None:
    root = write(tmp_path / "d", app_js_map=source_map(mappings=4))
    found = scripts(root).find(Wanted(URL))
    assert found.state == "bad_map"
    assert found.problem == f"{root / 'app.js.map'}: source map: mappings: expected a string, got a number"


def test_a_bad_map_is_not_the_end(tmp_path: Path) -> None:
    root = write(tmp_path / "d", app_js="//# sourceMappingURL=bad.map\n", bad_map=b"{", app_js_map=named("good"))
    found = scripts(root).find(Wanted(URL))
    assert (found_name(found), found.state, found.problem) == ("good", "found", None)


def test_maps_of_other_builds(tmp_path: Path) -> None:
    root = write(tmp_path / "d", app_js_map=named("old", debugId=TWO))
    found = scripts(root).find(Wanted(URL, debug_id=ONE))
    assert (found.table, found.state) == (None, "mismatch")
    assert found.problem == f"{root / 'app.js.map'}: debug id {TWO}, not {ONE}"
    write(root, app_js=f"//# debugId={ONE}\n//# sourceMappingURL=app.js.map\n")
    assert scripts(root).find(Wanted(URL)).state == "mismatch"
    assert scripts(root).find(Wanted(URL, debug_id=TWO)).state == "found"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["app.js.map"], "app.js.map"),
        (["js/app.js.map"], "js/app.js.map"),
        (["static/js/app.js.map", "js/app.js.map"], "static/js/app.js.map"),
        (["other/app.js.map"], None),
        (["build/static/js/app.js.map"], "build/static/js/app.js.map"),
        (["a/static/js/app.js.map", "b/static/js/app.js.map"], None),
        (["static/js/APP.js.map"], None),
        (["static/js/app.js.map.json"], None),
    ],
)
def test_which_file_a_url_means(tmp_path: Path, files: list[str], expected: str | None) -> None:
    for file in files:
        path = tmp_path / "d" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(named(file))
    assert found_name(scripts(tmp_path / "d").find(Wanted(URL))) == expected


@pytest.mark.parametrize(
    "url", ["file:///srv/dist/app.js", "/srv/dist/app.js", "C:\\srv\\dist\\app.js", "app:///dist/app.js"]
)
def test_paths_of_all_kinds(tmp_path: Path, url: str) -> None:
    root = write(tmp_path / "d", dist__app_js_map=named("a"))
    assert found_name(scripts(root).find(Wanted(url))) == "a"


def test_a_path_on_this_machine(tmp_path: Path) -> None:
    root = write(
        tmp_path / "d", x__app_js="//# sourceMappingURL=app.map\n", x__app_map=named("x"), y__app_map=named("y")
    )
    assert found_name(scripts(root).find(Wanted(str(root / "x" / "app.js")))) == "x"
    outside = write(tmp_path / "e", app_js_map=named("outside"))
    assert scripts(root).find(Wanted(str(outside / "app.js"))).table is None


def test_one_file(tmp_path: Path) -> None:
    root = write(tmp_path / "d", app_js_map=named("a"))
    assert found_name(scripts(root / "app.js.map").find(Wanted(URL))) == "a"
    assert scripts(root / "app.js.map").find(Wanted("https://x/other.js")).table is None


def test_maps_without_a_suffix_are_told_by_their_content(tmp_path: Path) -> None:
    root = write(tmp_path / "d", **{"0": named("a", debugId=ONE), "1": b"no map", "x.json": named("b", debugId=TWO)})
    assert found_name(scripts(root).find(Wanted(URL, debug_id=ONE))) == "a"
    assert found_name(scripts(root / "0").find(Wanted(URL, debug_id=ONE))) == "a"
    assert scripts(root).find(Wanted(URL, debug_id=TWO)).state == "no_map"


def test_several_places_in_order(tmp_path: Path) -> None:
    first, second = (
        write(tmp_path / "1", b_js_map=named("b1")),
        write(tmp_path / "2", app_js_map=named("a2"), b_js_map=named("b2")),
    )
    both = scripts(first, second)
    assert found_name(both.find(Wanted(URL))) == "a2"
    assert found_name(both.find(Wanted("https://x/b.js"))) == "b1"


def test_the_store_has_what_was_imported(tmp_path: Path) -> None:
    path = tmp_path / "app.js.map"
    path.write_bytes(named("imported", debugId=ONE))
    store = SymbolStore(Config())
    try:
        store.add(str(path))
        path.unlink()
        found = scripts(store=store).find(Wanted(URL, debug_id=ONE))
        assert (found_name(found), found.key, found.map_name) == ("imported", "debug_id", f"the store, debug id {ONE}")
        assert scripts(store=store).find(Wanted(URL, debug_id=TWO)).state == "no_map"
    finally:
        store.close()


def test_answers_are_kept(tmp_path: Path) -> None:
    root = write(tmp_path / "d", app_js_map=named("a"))
    look = scripts(root)
    assert look.find(Wanted(URL)) is look.find(Wanted(URL))


def test_limits(tmp_path: Path) -> None:
    root = write(tmp_path / "d", app_js="x" * 5000, app_js_map=named("a", sources=["y" * 5000]))
    config = Config(maps=MapLimits(max_bytes=1000))
    look = Scripts([open_place(str(root), config)], MapStore(config), None, config)
    found = look.find(Wanted(URL))
    assert found.state == "bad_map"
    assert found.script is None
    assert any("maps.max_bytes" in what for what in found.tried)


def test_places_that_are_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "gone", "a\0b"):
        with pytest.raises(SourceUnavailable):
            open_place(str(path), Config())


def test_files_that_vanish(tmp_path: Path) -> None:
    root = write(tmp_path / "d", app_js="x()", app_js_map=named("a"))
    look = scripts(root)
    look.find(Wanted("https://x/none.js"))
    for file in root.iterdir():
        file.unlink()
    found = look.find(Wanted(URL))
    assert (found.table, found.state) == (None, "bad_map")


# --- Bundles --------------------------------------------------------------------------------------------------------


def archive(files: dict[str, bytes], manifest: Any = None, prefix: bytes = b"") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
        if manifest is not None:
            packed.writestr("manifest.json", json.dumps(manifest))
    return prefix + out.getvalue()


MANIFEST = {
    "files": {
        "files/1": {
            "type": "minified_source",
            "url": "~/static/js/app.js",
            "headers": {"Debug-Id": ONE, "Sourcemap": "m.map"},
        },
        "files/2": {"type": "source_map", "url": "~/static/js/m.map", "headers": {"debug-id": ONE}},
        "files/3": {
            "type": "minified_source",
            "url": "https://example.com/b.js?v=1",
            "headers": {"sourcemap": "b.map"},
        },
        "files/4": {"type": "source_map", "url": "~/b.map"},
        "files/5": {"type": "source", "url": "~/src/a.ts"},
        "files/gone": {"type": "source_map", "url": "~/gone.map"},
        "files/odd": 5,
    },
    "release": "1.2",
    "dist": "x",
}
CONTENT = {
    "files/1": b"x()",
    "files/2": named("m"),
    "files/3": b"y()",
    "files/4": named("b", debugId=TWO),
    "files/5": b"",
    "files/odd": b"?",
}


@pytest.fixture(params=[b"", b"SYSB" + struct.pack("<I", 2)], ids=["zip", "sysb"])
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "bundle.zip"
    path.write_bytes(archive(CONTENT, MANIFEST, request.param))
    return path


def test_artifact_bundles(bundle: Path) -> None:
    with bundle.open("rb") as stream:
        read = ArtifactBundle(stream)
        assert (read.release, read.dist) == ("1.2", "x")
        assert [(a.entry, a.kind) for a in read.artifacts] == [
            *(("files/1", "script"), ("files/2", "map"), ("files/3", "script"), ("files/4", "map")),
            *(("files/5", "other"), ("files/odd", "other")),
        ]
        assert read.artifacts[0].debug_id == ONE
        assert read.read("files/1", 3) == b"x()"
        with pytest.raises(LimitExceeded):
            read.read("files/1", 2)
        with pytest.raises(Malformed):
            read.read("files/gone", 2)


def test_maps_in_bundles(bundle: Path) -> None:
    look = scripts(bundle)
    found = look.find(Wanted("https://nowhere/z.js", debug_id=ONE))
    assert (found_name(found), found.key, found.script) == ("m", "debug_id", b"x()")
    found = look.find(Wanted(URL))
    assert (found_name(found), found.key, found.script_name) == ("m", "debug_id", f"{bundle}:~/static/js/app.js")
    found = look.find(Wanted("https://example.com/b.js?v=1"))
    assert (found_name(found), found.key) == ("b", "header")
    assert found_name(look.find(Wanted("https://example.com/b.js"))) is None
    assert found_name(look.find(Wanted("https://example.com/z.js", debug_id=TWO))) == "b"


def test_archives_without_a_list(tmp_path: Path) -> None:
    path = tmp_path / "dist.zip"
    path.write_bytes(
        archive(
            {
                "static/js/app.js": b"x()\n//# sourceMappingURL=app.js.map",
                "static/js/app.js.map": named("a", debugId=ONE),
            }
        )
    )
    assert found_name(scripts(path).find(Wanted(URL))) == "a"
    assert found_name(scripts(path).find(Wanted("https://x/y.js", debug_id=ONE))) == "a"


def test_damaged_bundles(tmp_path: Path) -> None:
    rng = random.Random(2)
    good = archive(CONTENT, MANIFEST)
    opened = 0
    for number in range(150):
        data = bytearray(good)
        for _ in range(rng.choice([1, 5, 30])):
            data[rng.randrange(4, len(data))] = rng.randrange(256)
        if rng.random() < 0.2:
            del data[rng.randrange(30, len(data)) :]
        path = tmp_path / f"{number}.zip"
        path.write_bytes(data)
        try:
            look = scripts(path)
        except DeadreckonError:
            continue
        opened += 1
        for wanted in (Wanted(URL, debug_id=ONE), Wanted("https://example.com/b.js?v=1", TWO, "c")):
            assert look.find(wanted).state in {"found", "no_map", "bad_map", "mismatch"}
    assert opened > 20


@pytest.mark.parametrize("manifest", [[], {"files": []}, {"files": {"files/2": {"url": 5, "headers": []}}}, 7, None])
def test_odd_lists(tmp_path: Path, manifest: Any) -> None:
    path = tmp_path / "odd.zip"
    path.write_bytes(archive(CONTENT, manifest))
    assert scripts(path).find(Wanted(URL)).state == "no_map"


def test_a_bundle_that_vanishes(bundle: Path) -> None:
    look = scripts(bundle)
    bundle.unlink()
    assert look.find(Wanted(URL)).state == "bad_map"


def test_kinds_of_names() -> None:
    kinds = {name: kind_of_name(name) for name in ("a.js", "A.MJS", "a.js.map", "a.js?x", "a.ts", "map", "a.jsbundle")}
    assert list(kinds.values()) == ["script", "script", "map", "script", "other", "other", "script"]


def test_symbolic_links_do_not_lead_in_circles(tmp_path: Path) -> None:
    root = write(tmp_path / "d", js__app_js_map=named("a"))
    os.symlink(root, root / "js" / "loop")
    assert found_name(scripts(root).find(Wanted(URL))) == "a"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return open_place(str(write(tmp_path / "d", app_js_map=named("a"))), Config())


def test_urls_of_nothing(place: Place) -> None:
    for url in ("", "/", "https://", "https://example.com", "?", "#", "..", "~", "a/../..", "x" * 10_000):
        assert place.by_url("map", url) is None
    assert place.by_id("map", "") is None
