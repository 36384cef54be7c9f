"""Libraries inside Android packages: found by offset, by name and architecture, or not at all."""

from __future__ import annotations

import lzma
import zipfile
from pathlib import Path

import pytest

from deadreckon import Engine
from deadreckon.errors import SymbolError
from deadreckon.model.crash import Module
from deadreckon.model.ids import Arch
from deadreckon.symbols import apk

LIBRARIES = {
    "classes.dex": b"dex\n" + bytes(3000),
    "lib/arm64-v8a/liba.so": b"arm64 a" * 500,
    "lib/x86_64/liba.so": b"x86_64 a" * 500,
    "lib/arm64-v8a/libb.so": b"arm64 b" * 500,
    "lib/mips/libc.so": b"mips c",
    "lib/sparc/libc.so": b"sparc c",
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    path = tmp_path / "base.apk"
    with zipfile.ZipFile(path, "w") as out:
        for name, data in LIBRARIES.items():
            out.writestr(name, data)
    return path


def extracted(package: Path, module: Module, scratch: Path) -> list[bytes]:
    return [Path(path).read_bytes() for path in apk.extract(str(package), module, str(scratch))]


def module(name: str, **more: object) -> Module:
    return Module(0, 1, code_file=f"/data/app/base.apk{name}", **more)  # type: ignore[arg-type]


def test_by_offset(package: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(package) as opened:
        for info in opened.infolist():
            data = info.header_offset + 30 + len(info.filename)
            for offset in (info.header_offset, data, data + info.file_size - 1):
                if offset:
                    assert extracted(package, module("", file_offset=offset), tmp_path) == [LIBRARIES[info.filename]]
        directory = opened.start_dir
    assert extracted(package, module("", file_offset=directory), tmp_path) == []
    assert extracted(package, module("", file_offset=1 << 40), tmp_path) == []


def test_by_name(package: Path, tmp_path: Path) -> None:
    arm, x86 = LIBRARIES["lib/arm64-v8a/liba.so"], LIBRARIES["lib/x86_64/liba.so"]
    assert extracted(package, module("!liba.so", arch=Arch.ARM64), tmp_path) == [arm]
    assert extracted(package, module("!lib/x86_64/liba.so", arch=Arch.X86_64), tmp_path) == [x86]
    assert extracted(package, module("!libb.so"), tmp_path) == [LIBRARIES["lib/arm64-v8a/libb.so"]]
    assert extracted(package, module("!libnone.so"), tmp_path) == []
    # Of several, only an id tells.
    assert extracted(package, module("!libc.so"), tmp_path) == []
    assert len(extracted(package, module("!libc.so", code_id="ab"), tmp_path)) == 2


def test_damaged_packages(package: Path, tmp_path: Path) -> None:
    data = package.read_bytes()
    for case in (data[:-30], b"PK\3\4" + bytes(100), b"", data.replace(b"PK\3\4", rb"PK\9\9")):
        package.write_bytes(case)
        with pytest.raises(SymbolError):
            apk.extract(str(package), module("", file_offset=100), str(tmp_path))


def test_symbols_out_of_a_package(fixtures: Path, tmp_path: Path) -> None:
    """A library of ours in a package: named by offset, by name, by the package itself and by a folder with it."""
    library = tmp_path / "libours.so"
    library.write_bytes(lzma.decompress((fixtures / "linux/arm64/pie-O0/crashy.debug.xz").read_bytes()))
    path = tmp_path / "symbols" / "base.apk"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("AndroidManifest.xml", b"<x/>")
        out.write(library, "lib/arm64-v8a/libours.so")
    with zipfile.ZipFile(path) as opened:
        offset = opened.getinfo("lib/arm64-v8a/libours.so").header_offset + 64
    with Engine() as engine:
        table = engine.store.open(engine.store.tables_of(str(library))[0]["table"])
        assert table is not None
        rva = int(table.sym.range_start[len(table.sym.range_start) // 2])
        lines = (f"#00 pc {rva:08x}  base.apk (offset {offset:#x})", f"#01 pc {rva:08x}  base.apk!libours.so")
        expected = engine.process(f"#00 pc {rva:08x}  {library.name}\n".encode(), symbols=[str(library)])
        outer = [f.function for f in (expected.threads or [])[0].frames or () if not f.inline]
        assert outer[0]
        for symbols in (path, path.parent):
            event = engine.process("\n".join(lines).encode(), symbols=[str(symbols)])
            found = [f.function for f in (event.threads or [])[0].frames or () if not f.inline]
            assert found == outer * 2
            assert {d.code for d in event.diagnostics or ()} == {"symbols_by_name"}
