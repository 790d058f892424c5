"""Case folding of equals-ignore-case: every UTF-16 unit of the pattern may be spelled in lower or in upper case.

This is not the same as folding both sides. `ß` accepts `ß` and `SS` but not `ss`; a pattern `K` does not accept the
Kelvin sign; a character outside the BMP is two units, neither of which can be spelled, and each becomes a literal `?`.
The two spellings may differ in length, so matching walks a set of positions.
"""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=4096)
def spellings(pattern: str) -> tuple[tuple[str, ...], ...]:
    """For every UTF-16 unit of a pattern the texts that may stand for it."""
    units: list[tuple[str, ...]] = []
    for char in pattern:
        if char > "\uffff":
            units += [("?",), ("?",)]
        elif "\ud800" <= char <= "\udfff":
            units.append(("?",))
        else:
            units.append(tuple(dict.fromkeys((char.lower(), char.upper()))))
    return tuple(units)


def accepts(pattern: str, text: str) -> bool:
    """Whether a text spells the whole pattern."""
    return len(text) in spelled_ends(pattern, text)


def accepts_start(pattern: str, text: str) -> bool:
    """Whether some beginning of a text spells the pattern."""
    return bool(spelled_ends(pattern, text))


def accepts_end(pattern: str, text: str) -> bool:
    """Whether some end of a text spells the pattern."""
    positions = {len(text)}
    for unit in reversed(spellings(pattern)):
        positions = {
            position - len(spelling)
            for position in positions
            for spelling in unit
            if len(spelling) <= position and text.startswith(spelling, position - len(spelling))
        }
        if not positions:
            break
    return bool(positions)


def spelled_ends(pattern: str, text: str) -> set[int]:
    """The lengths of all beginnings of a text that spell the pattern."""
    positions = {0}
    for unit in spellings(pattern):
        positions = {
            position + len(spelling)
            for position in positions
            for spelling in unit
            if text.startswith(spelling, position)
        }
        if not positions:
            break
    return positions


def fold(text: str) -> str:
    """A key with equal values for all texts that spell the same pattern (the reverse does not hold)."""
    return text.upper() if text.isascii() else text.lower().upper()
