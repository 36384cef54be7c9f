"""A scanner for Itanium names that tallies what the text read so far prints, without printing it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import re

__all__ = ["Refused", "Tally"]

Size = tuple[int, int]
"""Bytes, and how many times ``T_`` comes on top: a template parameter means something else in each template."""

_COST = 20
"""What a character outside identifiers prints at most: ``y``, ``unsigned long long`` and a separator."""


class Refused(Exception):
    """The symbol is not of the grammar, is nested too deeply or expands too far."""


class Tally:
    """A place in a symbol, and the sizes that references to the text before it stand for.

    ``argument`` is the largest that a template parameter can mean. Packs repeat ``pack`` times. ``every_list``: what
    parameters mean may stand in any list of arguments, not only in those of the function's own name.
    """

    def __init__(self, text: str, limit: int, pack: int = 1, *, every_list: bool = False) -> None:
        self.text = text + "\0\0\0"  # So that codes can be looked at without looking for the end.
        self.at = 0
        self.limit = limit
        self.pack = pack
        self.every_list = every_list
        self.extra = self.parameters = 0
        self.candidates: list[Size] = []
        self.slack = 0
        self.argument, self.arguments_bound, self.chain = 0, 0, 1

    # Tokens.

    def next(self, characters: str) -> bool:
        """Tell whether one of these characters comes next; the end is a NUL."""
        return self.text[self.at] in characters

    def take(self, token: str) -> bool:
        """Read this if it comes next, and tell whether it did."""
        if self.text.startswith(token, self.at):
            self.at += len(token)
            return True
        return False

    def need(self, token: str) -> None:
        """Read this or refuse the symbol."""
        if not self.take(token):
            raise Refused

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Read what matches if something does."""
        if found := pattern.match(self.text, self.at):
            self.at = found.end()
        return found

    def token(self, pattern: re.Pattern[str]) -> re.Match[str]:
        """Read what matches or refuse the symbol."""
        found = self.match(pattern)
        if not found:
            raise Refused
        return found

    # Sizes.

    def mark(self) -> Size:
        """Return the size of everything read so far."""
        return self.at * _COST + self.extra, self.parameters

    def since(self, mark: Size) -> Size:
        """Return the size of what was read since a mark."""
        return self.at * _COST + self.extra - mark[0], self.parameters - mark[1]

    def print(self, size: int, parameters: int = 0) -> None:
        """Add to what the text at hand prints."""
        self.extra += size
        self.parameters += parameters
        if self.extra > self.limit or self.parameters > self.limit:
            raise Refused

    def identifier(self, length: int) -> None:
        """Read so many characters that print as themselves."""
        self.at += length
        if self.at > len(self.text) - 3:
            raise Refused
        self.print(length - length * _COST)

    def repeat(self, mark: Size, times: int) -> None:
        """Make what was read since ``mark`` print so many times."""
        size, parameters = self.since(mark)
        self.print(size * (times - 1), parameters * (times - 1))

    # References.

    def candidate(self, mark: Size, *, certain: bool = True) -> None:
        """Number what was read since ``mark``. Where demanglers differ in whether it is one, references have slack."""
        self.candidates.append(self.since(mark))
        self.slack += not certain

    def doubt(self, first: int) -> None:
        """Make all candidates from this one uncertain."""
        self.slack += len(self.candidates) - first

    def refer(self, index: int) -> None:
        """Print a candidate."""
        if index >= len(self.candidates):
            raise Refused
        sizes = self.candidates[index : index + self.slack + 1]
        self.print(max(size for size, _ in sizes), max(parameters for _, parameters in sizes))

    def bind(self, mark: Size) -> None:
        """Make what was read since ``mark`` an argument that template parameters can mean."""
        size, parameters = self.since(mark)
        self.argument = max(self.argument, size + parameters * self.argument)  # To libc++abi later ones name earlier.
        self.arguments_bound += 1
        self.chain *= parameters + 1
        if self.argument > self.limit or self.chain > self.limit:
            raise Refused

    def close(self, mark: Size) -> None:
        """Give the template parameters since ``mark`` their meaning.

        Arguments that hold parameters themselves stand in no sound name, but libiberty can be brought to print some
        (``_Z1fIR1gIRT0_ERiERT_v``): each is then resolved inside of the others, in any order and up to twice.
        """
        parameters = self.since(mark)[1]
        meaning = self.argument if self.chain == 1 else self.argument * self.arguments_bound * 2 * self.chain**2
        self.print(parameters * meaning, -parameters)
