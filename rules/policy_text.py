"""Texts of policies: wildcards and variables in them.

A text of a policy is kept as its parts: literal text, and variables such as `${aws:PrincipalAccount}` that the context
of a request fills in. What a variable brings along is literal, so that nobody can slip a wildcard into a policy through
a value of his own; `${*}`, `${?}` and `${$}` write the characters themselves.

A wildcard text is matched piece by piece between its stars, leftmost occurrence first, which is always right and takes
no backtracking; a policy of thousands of stars costs no more than its length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

Context = Mapping[str, Sequence[str]]
"""What is known of a request: condition keys in lower case, each with its values."""

Marked = tuple[tuple[str, bool], ...]
"""Texts in order, each with whether its stars and question marks are wildcards."""

LONGEST_VALUE = 1024
"""Characters of a value that may stand for a variable; a longer one counts as unknown."""

_VARIABLE = re.compile(r"\$\{([^{}]*)\}")
_SELF = frozenset("*?$")


@dataclass(frozen=True, slots=True)
class Variable:
    """`${name}` or `${name, 'default'}`; ``name`` is in lower case."""

    name: str
    default: str | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """A text of a policy, read once."""

    parts: tuple[str | Variable, ...]

    @staticmethod
    def read(text: str, *, variables: bool = True) -> Text:
        """Take a text apart; without ``variables`` (the policy language of 2008) a dollar sign is only that."""
        return Text(tuple(_parts(text)) if variables else (text,))

    def filled(self, context: Context) -> Marked | None:
        """The text with its variables filled in; None when the request does not say one of them."""
        marked = []
        for part in self.parts:
            if isinstance(part, str):
                marked.append((part, True))
                continue
            value = _value(part, context)
            if value is None:
                return None
            marked.append((value, False))
        return tuple(marked)

    def plain(self, context: Context) -> str | None:
        """The text with its variables filled in, wildcards standing for themselves."""
        marked = self.filled(context)
        return None if marked is None else "".join(text for text, _ in marked)

    def like(self, value: str, context: Context) -> bool:
        """Whether a value is what the text, read with wildcards, describes."""
        marked = self.filled(context)
        return marked is not None and wild(marked).matches(value)


def _parts(text: str) -> Iterator[str | Variable]:
    position = 0
    for found in _VARIABLE.finditer(text):
        if found.start() > position:
            yield text[position : found.start()]
        name, comma, default = found[1].partition(",")
        yield Variable(name.strip().lower(), default.strip().strip("'") if comma else None)
        position = found.end()
    if position < len(text) or not text:
        yield text[position:]


def _value(variable: Variable, context: Context) -> str | None:
    if variable.name in _SELF:
        return variable.name
    values = context.get(variable.name, ())
    if len(values) != 1:
        return variable.default
    return values[0] if len(values[0]) <= LONGEST_VALUE else None


@dataclass(frozen=True, slots=True)
class Wild:
    """A wildcard text, compiled: the pieces between its stars, one more than there are stars.

    ``tail`` is the length of the last piece; a piece matches texts of its own length only.
    """

    pieces: tuple[re.Pattern[str], ...]
    tail: int

    def matches(self, value: str) -> bool:
        """Whether the whole value consists of the pieces, in order, with anything between them."""
        *front, last = self.pieces
        if not front:
            return last.fullmatch(value) is not None
        found = front[0].match(value)
        for piece in front[1:]:
            if found is None:
                return False
            found = piece.search(value, found.end())
        start = len(value) - self.tail
        return found is not None and start >= found.end() and last.fullmatch(value, start) is not None


def wild(marked: Marked, *, ignore_case: bool = False) -> Wild:
    """Compile a wildcard text."""
    return _kept(marked, ignore_case) if len(marked) == 1 else _compiled(marked, ignore_case)


def _compiled(marked: Marked, ignore_case: bool) -> Wild:
    pieces: list[list[str]] = [[]]
    for text, wildcards in marked:
        for char in text:
            if wildcards and char == "*":
                pieces.append([])
            else:
                pieces[-1].append("." if wildcards and char == "?" else re.escape(char))
    flags = re.DOTALL | (re.IGNORECASE if ignore_case else 0)
    return Wild(tuple(re.compile("".join(piece), flags) for piece in pieces), len(pieces[-1]))


_kept = lru_cache(4096)(_compiled)
"""Most texts have no variables, and are asked about again and again."""


def split(marked: Marked, separator: str, parts: int) -> list[Marked]:
    """Cut a text at the first separators, whatever part of it they stand in, into at most ``parts``."""
    found: list[list[tuple[str, bool]]] = [[]]
    for text, wildcards in marked:
        first, *more = text.split(separator, parts - len(found))
        found[-1].append((first, wildcards))
        found += [[(each, wildcards)] for each in more]
    return [tuple(each) for each in found]
