"""Reading match expressions: the table of the operators by name, and what may follow each name.

`OPERATORS` maps the name in a match expression to the function that reads what follows. They read in AWS's order and
refuse with AWS's words; columns fall out of where the reader stands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from rules import addresses, reader, wildcards
from rules.errors import PatternError
from rules.numbers import comparable_lexeme
from rules.operators import (
    Address,
    Alternative,
    AnythingBut,
    Cidr,
    Constant,
    Digits,
    EqualsIgnoreCase,
    Exists,
    Number,
    Numeric,
    Prefix,
    PrefixIgnoreCase,
    Suffix,
    SuffixIgnoreCase,
    Text,
    Wildcard,
)
from rules.reader import TokenReader

T = TypeVar("T")


def string_literal(text: str) -> Alternative:
    digits = addresses.address_hex(text)
    return Text(text) if digits is None else Address(text, digits)


def number_literal(lexeme: str) -> Alternative:
    value = comparable_lexeme(lexeme)
    if value is not None:
        return Number(value, lexeme)
    return Digits(None if set(lexeme) & set(".eE") else int(lexeme), lexeme)


def read_expression(tokens: TokenReader) -> Alternative:
    """Read a match expression whose opening brace has been read."""
    if tokens.next() != reader.NAME:
        tokens.fail("Match expression name not found")
    name = tokens.name
    read = OPERATORS.get(name)
    if read is None:
        tokens.fail(f"Unrecognized match type {name}")
    return read(tokens)


def _close(tokens: TokenReader, *, message: str = "Only one key allowed in match expression") -> None:
    if tokens.next() != reader.OBJECT_END:
        tokens.fail(message)


def _close_numeric(tokens: TokenReader) -> None:
    _close(tokens, message="Too many elements in numeric expression")


def _string(tokens: TokenReader, word: str) -> str:
    if tokens.next() != reader.STRING:
        tokens.fail(f"{word} match pattern must be a string")
    return tokens.string()


def _read_exactly(tokens: TokenReader) -> Alternative:
    text = _string(tokens, "exact")
    _close(tokens)
    return Text(text)


def _read_equals_ignore_case(tokens: TokenReader) -> Alternative:
    text = _string(tokens, "equals-ignore-case")
    _close(tokens)
    return EqualsIgnoreCase(text)


def _read_prefix(tokens: TokenReader) -> Alternative:
    text, ignore_case = _affix(tokens, "prefix")
    return PrefixIgnoreCase(text) if ignore_case else Prefix(text)


def _read_suffix(tokens: TokenReader) -> Alternative:
    text, ignore_case = _affix(tokens, "suffix")
    return SuffixIgnoreCase(text) if ignore_case else Suffix(text)


def _affix(tokens: TokenReader, word: str) -> tuple[str, bool]:
    """The text of a prefix or suffix, and whether it stood inside `{"equals-ignore-case": …}`."""
    kind = tokens.next()
    if kind == reader.OBJECT:
        if tokens.next() != reader.NAME:
            tokens.fail(f"{word.capitalize()} expression name not found")
        if tokens.name != "equals-ignore-case":
            tokens.fail(f"Unsupported {word} pattern: {tokens.name}")
        text = _string(tokens, "equals-ignore-case")
        _close(tokens)
    elif kind == reader.STRING:
        text = tokens.string()
    else:
        tokens.fail(f"{word} match pattern must be a string")
    _close(tokens)
    return text, kind == reader.OBJECT


def _read_wildcard(tokens: TokenReader) -> Alternative:
    text = _string(tokens, "wildcard")
    found = _wildcard(tokens, text)
    _close(tokens)
    return found


def _wildcard(tokens: TokenReader, text: str) -> Wildcard:
    try:
        return Wildcard(text, wildcards.pieces(text))
    except wildcards.WildcardError as error:
        tokens.fail(str(error))


def _read_exists(tokens: TokenReader) -> Alternative:
    kind = tokens.next()
    if kind not in (reader.TRUE, reader.FALSE):
        tokens.fail("exists match pattern must be either true or false.")
    _close(tokens)
    return Exists(kind == reader.TRUE)


def _read_cidr(tokens: TokenReader) -> Alternative:
    text = _string(tokens, "prefix")
    try:
        low, high = addresses.block_bounds(text)
    except addresses.AddressError as error:
        raise PatternError(str(error)) from None
    _close(tokens)
    return Cidr(text, low, high)


# numeric

_INFINITY = float("inf")
_COMPARISONS = ("=", "<", "<=", ">", ">=")
_TOO_MANY = "Too many elements in numeric expression"


def _read_numeric(tokens: TokenReader) -> Alternative:
    if tokens.next() != reader.ARRAY:
        tokens.fail("Value of numeric must be an array.")
    kind = tokens.next()
    if kind != reader.STRING:
        tokens.fail(f"Invalid member in numeric match: {_shown(tokens, kind)}")
    comparison = tokens.string()
    kind = tokens.next()
    if comparison not in _COMPARISONS:
        tokens.fail(f"Unrecognized numeric range operator: {comparison}")
    if kind != reader.NUMBER:
        tokens.fail(f"Value of {'equals' if comparison == '=' else comparison} must be numeric")
    first = tokens.lexeme
    second = _second_pair(tokens) if comparison.startswith(">") else None
    if comparison in ("=", "<", "<=") and tokens.next() != reader.ARRAY_END:
        tokens.fail(_TOO_MANY)
    value = _comparable(tokens, first)
    if second is None:
        found = _one_sided(comparison, value)
    else:
        below, top = second[0], _comparable(tokens, second[1])
        if value >= top:
            tokens.fail("Bottom must be less than top")
        found = Numeric(value, comparison == ">=", top, below == "<=")
    _close_numeric(tokens)
    return found


def _second_pair(tokens: TokenReader) -> tuple[str, str] | None:
    """What may follow a lower bound: an upper one, or the end of the list."""
    kind = tokens.next()
    if kind == reader.ARRAY_END:
        return None
    if kind != reader.STRING:
        tokens.fail(f"Bad value in numeric range: {_shown(tokens, kind)}")
    comparison = tokens.string()
    if comparison not in ("<", "<="):
        tokens.fail(f"Bad numeric range operator: {comparison}")
    if tokens.next() != reader.NUMBER:
        tokens.fail(f"Value of {comparison} must be numeric")
    lexeme = tokens.lexeme
    if tokens.next() != reader.ARRAY_END:
        tokens.fail("Too many terms in numeric range expression")
    return comparison, lexeme


def _one_sided(comparison: str, value: float) -> Numeric:
    if comparison == "=":
        return Numeric(value, True, value, True)
    if comparison.startswith("<"):
        return Numeric(-_INFINITY, False, value, comparison == "<=")
    return Numeric(value, comparison == ">=", _INFINITY, False)


def _comparable(tokens: TokenReader, lexeme: str) -> float:
    value = comparable_lexeme(lexeme)
    if value is None:
        tokens.fail(f"Cannot compare number : {lexeme}")
    return value


def _shown(tokens: TokenReader, kind: str) -> str:
    return tokens.lexeme if kind == reader.NUMBER else kind


# anything-but


@dataclass(frozen=True, slots=True)
class _Excluding:
    """How the items of an anything-but list are read: what is refused and what becomes of the strings."""

    name: str
    not_a_string: str
    build: Callable[[TokenReader, str], Alternative]
    empty_allowed: bool = True


_AFFIX_STRING = "prefix/suffix match pattern must be a string"
_FORMS = {
    form.name: form
    for form in (
        _Excluding("prefix", _AFFIX_STRING, lambda _, text: Prefix(text), empty_allowed=False),
        _Excluding("suffix", _AFFIX_STRING, lambda _, text: Suffix(text), empty_allowed=False),
        _Excluding(
            "equals-ignore-case",
            "Inside anything-but/equals-ignore-case list, number|start|null|boolean is not supported.",
            lambda _, text: EqualsIgnoreCase(text),
        ),
        _Excluding("wildcard", "wildcard match pattern must be a string", _wildcard),
    )
}
_MIXED = "Inside anything but list, either all values are number or string, mixed type is not supported"


def _read_anything_but(tokens: TokenReader) -> Alternative:
    kind = tokens.next()
    form = None
    if kind == reader.OBJECT:
        if tokens.next() != reader.NAME:
            tokens.fail("Anything-But expression name not found")
        form = _FORMS.get(tokens.name)
        if form is None:
            tokens.fail(f"Unsupported anything-but pattern: {tokens.name}")
        kind = tokens.next()
    if kind not in (reader.ARRAY, reader.STRING, reader.NUMBER):
        tokens.fail("Value of anything-but must be an array or single string/number value.")
    if form is None:
        excluded = _plain_exclusions(tokens, kind)
    else:
        texts = (
            _listed(tokens, lambda item: _text_item(tokens, item, form))
            if kind == reader.ARRAY
            else [_text_item(tokens, kind, form)]
        )
        if not texts:
            # AWS lets an empty list pass and then answers with an internal error; refuse it like the plain one.
            tokens.fail(_MIXED)
        excluded = [form.build(tokens, text) for text in dict.fromkeys(texts)]
        _close_numeric(tokens)
    _close_numeric(tokens)
    return AnythingBut(form.name if form else "", tuple(excluded))


def _plain_exclusions(tokens: TokenReader, kind: str) -> list[Alternative]:
    if kind == reader.ARRAY:
        found = _listed(tokens, lambda item: _plain_item(tokens, item))
        if len({type(alternative) for alternative in found}) != 1:
            tokens.fail(_MIXED)
        return found
    return [_plain_item(tokens, kind)]


def _listed(tokens: TokenReader, item: Callable[[str], T]) -> list[T]:
    """Read the items of a list; whatever is refused inside it carries the location once more."""
    found: list[T] = []
    try:
        while (kind := tokens.next()) != reader.ARRAY_END:
            found.append(item(kind))
    except PatternError as error:
        raise PatternError(error.reason + tokens.tail()) from None
    return found


def _plain_item(tokens: TokenReader, kind: str) -> Alternative:
    if kind == reader.STRING:
        return Text(tokens.string())
    if kind != reader.NUMBER:
        tokens.fail("Inside anything but list, start|null|boolean is not supported.")
    value = comparable_lexeme(tokens.lexeme)
    if value is None:
        raise PatternError(f"Cannot compare number : {tokens.lexeme}")
    return Number(value, tokens.lexeme)


def _text_item(tokens: TokenReader, kind: str, form: _Excluding) -> str:
    if kind != reader.STRING:
        tokens.fail(form.not_a_string)
    text = tokens.string()
    if not text and not form.empty_allowed:
        tokens.fail("Null prefix/suffix not allowed")
    return text


OPERATORS: dict[str, Callable[[TokenReader], Alternative]] = {
    "exactly": _read_exactly,
    "prefix": _read_prefix,
    "suffix": _read_suffix,
    "equals-ignore-case": _read_equals_ignore_case,
    "wildcard": _read_wildcard,
    "exists": _read_exists,
    "cidr": _read_cidr,
    "numeric": _read_numeric,
    "anything-but": _read_anything_but,
}
"""Name in a match expression → reader of what follows it."""


def read_literal(tokens: TokenReader, kind: str) -> Alternative:
    """The alternative of a literal token that has been read."""
    if kind == reader.STRING:
        return string_literal(tokens.string())
    if kind == reader.NUMBER:
        return number_literal(tokens.lexeme)
    if kind not in _CONSTANTS:
        tokens.fail("Match value must be String, number, true, false, or null")
    return _CONSTANTS[kind]


_CONSTANTS: dict[str, Alternative] = {
    reader.TRUE: Constant(True),
    reader.FALSE: Constant(False),
    reader.NULL: Constant(None),
}
