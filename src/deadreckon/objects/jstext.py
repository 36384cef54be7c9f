"""Positions in a script's text: lines as ECMA-262 ends them, columns in UTF-16 units."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deadreckon.kernels.lines import in_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NO_NAME", "ScriptText"]

NO_NAME = -2
"""In the place of a name's column: a parenthesis follows no name."""

_MOST_NAME = 1024


class ScriptText:
    """A script in UTF-8. Lines and columns are 0-based."""

    def __init__(self, text: NDArray[np.uint8]) -> None:
        self.text = text
        self._starts: NDArray[np.int64] | None = None
        self._wide: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]] | None = None

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where each line begins, and behind them where the text ends."""
        if self._starts is None:
            self._starts = in_text(self.text)
        return self._starts

    def __len__(self) -> int:
        """Return how many lines there are."""
        return len(self.starts) - 1

    def widths(self, lines: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many columns each of some lines of the text has, its end included."""
        start, end = self.starts[lines], self.starts[lines + 1]
        places, units, _ = self._beyond()
        if not len(places):
            return end - start
        return end - start + units[places.searchsorted(end)] - units[places.searchsorted(start)]

    def offsets(self, lines: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the place in bytes of each position, -1 for one outside of the text."""
        inside = (lines >= 0) & (lines < len(self)) & (columns >= 0)
        line = np.where(inside, lines, 0)
        inside &= columns <= self.widths(line)
        start = self.starts[line]
        places, units, unit = self._beyond()
        if not len(places):
            at = start + columns
        else:
            wanted = start + units[places.searchsorted(start)] + columns
            # The last byte beyond ASCII that is at the column or before it.
            last = unit.searchsorted(wanted, side="right") - 1
            at = wanted - units[last + 1]
            exact = (last >= 0) & (unit[last] == wanted) & (self.text[places[last]] >= 0xC0)
            at = np.where(exact, places[last], at)
        return np.where(inside, at, -1)

    def names_before(self, lines: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the column at which the name begins that ends at an opening parenthesis.

        -1 where no parenthesis is, NO_NAME where none ends.
        """
        places = self.offsets(lines, columns)
        found = np.full(len(places), -1, np.int64)
        known = np.flatnonzero((places >= 0) & (places < len(self.text)))
        for i in known[self.text[places[known]] == ord("(")].tolist():
            at = int(places[i])
            start = max(at - _MOST_NAME, int(self.starts[lines[i]]))
            before = self.text[start:at].tobytes().decode("utf-8", "ignore")
            length = 0
            while length < len(before) and (before[-1 - length].isalnum() or before[-1 - length] in "_$"):
                length += 1
            units = len(before[len(before) - length :].encode("utf-16-le")) // 2
            found[i] = columns[i] - units if length else NO_NAME
        return found

    def _beyond(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return places of bytes beyond ASCII, units minus bytes before each of them and the end, and their units.

        The latter count from where the text begins.
        """
        if self._wide is None:
            wide = len(self.text) and self.text.max() >= 0x80
            places = np.flatnonzero(self.text >= 0x80) if wide else np.zeros(0, np.int64)
            high = self.text[places]
            units = np.zeros(len(places) + 1, np.int64)
            np.cumsum(np.where(high < 0xC0, -1, np.where(high >= 0xF0, 1, 0)), out=units[1:])
            self._wide = places, units, places + units[:-1]
        return self._wide
