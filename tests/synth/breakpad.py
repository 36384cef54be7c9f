"""Writes Breakpad symbol files, from Breakpad's docs/symbol_files.md."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class SymFile:
    """A symbol file; ``lines`` are its records after MODULE."""

    os: str = "Linux"
    arch: str = "x86_64"
    id: str = "0123456789ABCDEF0123456789ABCDEF0"
    name: str = "app"
    lines: list[str] = field(default_factory=list)

    def function(
        self, address: int, size: int, name: str, lines: list[tuple[int, int, int, int]] | None = None
    ) -> None:
        """Add a FUNC with its lines, each (address, size, line, file)."""
        self.lines.append(f"FUNC {address:x} {size:x} 0 {name}")
        self.lines += [f"{a:x} {s:x} {line} {file}" for a, s, line, file in lines or []]

    def cfi(self, address: int, size: int, rules: str, *changes: tuple[int, str]) -> None:
        """Add a STACK CFI INIT record and the changes after it."""
        self.lines.append(f"STACK CFI INIT {address:x} {size:x} {rules}")
        self.lines += [f"STACK CFI {a:x} {text}" for a, text in changes]

    def __bytes__(self) -> bytes:
        return "\n".join([f"MODULE {self.os} {self.arch} {self.id} {self.name}", *self.lines, ""]).encode()
