"""Regular expressions of the service models, which are Java's, as Python predicates.

A value satisfies a pattern when the *whole* value matches. Three things need care:

* Java's classes are ASCII, its dot stops at five line terminators, and it knows ``\\p{L}``.
  A Unicode category is filled in per value, with those of the value's characters that are in it:
  exact, and no table of a million code points is needed.
* Two patterns of the events model take exponential time in a backtracking matcher (nested
  repetitions over overlapping sets). `LINEAR` has an equal pattern for each that takes linear time.
* A repetition of groups costs memory per character. Longer values than `REACH` are not held against
  patterns where a length limit refuses them already.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache

REACH = 65_536
"""Characters up to which a value that is too long anyway is also held against its pattern."""

LINEAR = {
    r"^[ \t]*[^\x00-\x1F:\x7F]+([ \t]+[^\x00-\x1F:\x7F]+)*[ \t]*$": r"\t*[^\x00-\x1F:\x7F][^\x00-\x08\x0A-\x1F:\x7F]*",
    r"^[ \t]*[\x20-\x7E]+([ \t]+[\x20-\x7E]+)*[ \t]*$": r"\t*[\x20-\x7E][\t\x20-\x7E]*",
}

_TOKEN = re.compile(r"\\p\{(?P<category>\w+)\}|\\.|[\[\].]", re.DOTALL)
_CATEGORY = re.compile(r"\\p\{(\w+)\}")
_NOT_A_LINE_END = "[^\\n\\r\\u0085\\u2028\\u2029]"


@cache
def predicate(pattern: str) -> Callable[[str], bool]:
    """Whether a whole text matches the Java pattern; compiled once per pattern."""
    translated = _translate(LINEAR.get(pattern, pattern))
    if _CATEGORY.search(translated):
        return lambda text: re.fullmatch(_fill_categories(translated, text), text, re.ASCII) is not None
    match = re.compile(translated, re.ASCII).fullmatch
    return lambda text: match(text) is not None


def _translate(pattern: str) -> str:
    """Java's dot spelled out; all else reads the same in Python."""
    in_class = False

    def replace(token: re.Match[str]) -> str:
        nonlocal in_class
        text = token[0]
        if text == "." and not in_class:
            return _NOT_A_LINE_END
        if text in "[]":
            in_class = text == "["
        return text

    return _TOKEN.sub(replace, pattern)


def _fill_categories(pattern: str, text: str) -> str:
    characters = sorted(set(text))
    # A class must not become empty, so one without members gets a character that the text does not have.
    foreign = next(c for c in map(chr, range(0xE000, 0x10FFFF)) if c not in characters)

    def members(token: re.Match[str]) -> str:
        chosen = "".join(c for c in characters if unicodedata.category(c).startswith(token[1]))
        return re.escape(chosen or foreign)

    return _CATEGORY.sub(members, pattern)
