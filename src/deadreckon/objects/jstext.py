"""Positions in a script's text: lines as ECMA-262 ends them, columns in UTF-16 units."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ScriptText"]

_LF, _CR = 10, 13
_MOST_NAME = 1024
_KEPT = 64


class ScriptText:
    """A script in UTF-8. Lines and columns are 0-based."""

    def __init__(self, text: NDArray[np.uint8]) -> None:
        self.text = text
        self._starts: NDArray[np.int64] | None = None
        self._wide: dict[int, tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]] = {}

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where each line begins, and behind them where the text ends."""
        if self._starts is None:
            text = self.text
            ends = [np.flatnonzero(text == _LF) + 1]
            returns = np.flatnonzero(text == _CR)
            if len(returns):
                followed = text[np.minimum(returns + 1, len(text) - 1)] == _LF
                ends.append(returns[~followed] + 1)
            separators = np.flatnonzero(text[:-2] == 0xE2) if len(text) > 2 else np.zeros(0, np.int64)
            if len(separators):
                found = (text[separators + 1] == 0x80) & (text[separators + 2] & 0xFE == 0xA8)
                ends.append(separators[found] + 3)
            self._starts = np.concatenate([[0], np.sort(np.concatenate(ends)), [len(text)]])
        return self._starts

    def __len__(self) -> int:
        """Return how many lines there are."""
        return len(self.starts) - 1

    def width(self, line: int) -> int:
        """Return how many columns a line has, its end included."""
        start, end = self._span(line)
        places, _, units = self._units(line)
        return end - start + int(units[-1]) if len(places) else end - start

    def offset(self, line: int, column: int) -> int | None:
        """Return the place in bytes of a position, None for one outside of the text."""
        if not 0 <= line < len(self) or column < 0:
            return None
        start, end = self._span(line)
        places, columns, units = self._units(line)
        at = column
        if len(places):
            # The last byte beyond ASCII that is at the column or before it.
            last = int(columns.searchsorted(column, side="right")) - 1
            if last >= 0 and columns[last] == column and self.text[start + places[last]] >= 0xC0:
                at = int(places[last])
            elif last >= 0:
                at = column - int(units[last])
        return start + at if start + at <= end else None

    def name_before(self, line: int, column: int) -> int | None:
        """Return the column at which the name begins that ends at an opening parenthesis, None without either."""
        at = self.offset(line, column)
        if at is None or at >= len(self.text) or self.text[at] != ord("("):
            return None
        start = max(at - _MOST_NAME, self._span(line)[0])
        before = self.text[start:at].tobytes().decode("utf-8", "ignore")
        length = 0
        while length < len(before) and (before[-1 - length].isalnum() or before[-1 - length] in "_$"):
            length += 1
        name = before[len(before) - length :]
        return column - len(name.encode("utf-16-le")) // 2 if name else None

    def _span(self, line: int) -> tuple[int, int]:
        start, end = self.starts[line : line + 2].tolist()
        return start, end

    def _units(self, line: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return places of bytes beyond ASCII in a line, their columns, and units minus bytes up to each of them."""
        known = self._wide.get(line)
        if known is None:
            start, end = self._span(line)
            places = np.flatnonzero(self.text[start:end] >= 0x80)
            high = self.text[start:end][places]
            more = np.where(high < 0xC0, -1, np.where(high >= 0xF0, 1, 0))
            if len(self._wide) >= _KEPT:
                self._wide.clear()
            units = np.cumsum(more)
            known = self._wide[line] = places, places + units - more, units
        return known
