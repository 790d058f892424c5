"""Wildcard texts: reading them, and matching them without backtracking.

A star stands for any text, line feeds included; `\\*` is a literal star, `\\\\` a literal backslash. A text is kept as
the literal pieces between its stars: the first must begin the value, the last must end it, and taking the leftmost
occurrence of each one between is always right. One pass, whatever the number of stars.
"""

from __future__ import annotations

from rules.errors import RulesError


class WildcardError(RulesError):
    """Text that is no wildcard; the message is AWS's."""


def pieces(text: str) -> tuple[str, ...]:
    """The literal pieces between the unescaped stars of a wildcard text, always one more than there are stars."""
    found: list[str] = []
    piece: list[str] = []
    position = 0
    while position < len(text):
        char = text[position]
        following = text[position + 1 : position + 2]
        if char == "\\":
            if following not in ("*", "\\"):
                raise WildcardError(f"Invalid escape character at pos {_offset(text, position)}")
            piece.append(following)
            position += 1
        elif char == "*":
            if following == "*":
                raise WildcardError(f"Consecutive wildcard characters at pos {_offset(text, position)}")
            found.append("".join(piece))
            piece = []
        else:
            piece.append(char)
        position += 1
    found.append("".join(piece))
    return tuple(found)


def _offset(text: str, position: int) -> int:
    """The UTF-8 offset inside the quoted text: the opening quote counts."""
    return len(text[:position].encode("utf-8", "surrogatepass")) + 1


def spans(parts: tuple[str, ...], text: str) -> bool:
    """Whether a text consists of the pieces in order with anything between them."""
    first, last = parts[0], parts[-1]
    if len(parts) == 1:
        return text == first
    end = len(text) - len(last)
    position = len(first)
    if end < position or not text.startswith(first) or not text.endswith(last):
        return False
    for piece in parts[1:-1]:
        found = text.find(piece, position, end)
        if found < 0:
            return False
        position = found + len(piece)
    return True
