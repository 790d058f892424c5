"""HTTP headers as text: which names there are, and values that cannot end a line."""

import re

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


def is_token(text: str) -> bool:
    """Tell whether a text can be the name of a header."""
    return _TOKEN.fullmatch(text) is not None


def header_value(text: str) -> str:
    """A text as the value of a header: a space stands for control characters, so that no value begins a new header."""
    return _CONTROL.sub(" ", text).strip(" ")
