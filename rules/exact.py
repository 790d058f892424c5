"""JSON texts without loss: are they valid, how deep are they, and values that remember how their numbers were written.

Theory of operation. `load` parses with orjson, then writes the value again: where that gives the same bytes, every part
of the value can be written by orjson too and nothing has to be remembered. Otherwise (1.0e2, 19.90, integers beyond 64
bits) the text is parsed once more with each number kept as a `Number`, its text, which `dump` writes as it is. Deep
nesting, where the fast parsers and writers stop, has an iterative reader and writer of its own.
"""

import json
import re
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any

import msgspec
import orjson

_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{4}|.)")
_SURROGATE = re.compile(r"[\ud800-\udfff]|\\u[dD][89a-fA-F]")


class Number(str):
    """The text of a number that would be written otherwise by orjson."""

    __slots__ = ()


# --- validity --------------------------------------------------------------------------------------------------------


class _AnyObject(msgspec.Struct):
    """A JSON object of which nothing is kept."""


skip_object: Callable[[str | bytes], object] = msgspec.json.Decoder(_AnyObject).decode
"""Raises what msgspec raises for a text that is no JSON object, and now and then for one that is; see `is_object`."""

_skip_value: Callable[[str], object] = msgspec.json.Decoder(msgspec.Raw).decode


def is_object(text: str) -> bool:
    """Tell whether a text is one JSON object, nested to 1024 levels at most; numbers may have any magnitude."""
    return _is_valid(text, skip_object) and text.lstrip(" \t\n\r").startswith("{")


def is_value(text: str) -> bool:
    """Tell whether a text is one JSON value, nested to 1024 levels at most; numbers may have any magnitude."""
    return _is_valid(text, _skip_value)


def _is_valid(text: str, skip: Callable[[str], object]) -> bool:
    if _passes(text, skip):
        return True
    # msgspec refuses lone surrogates; behind a mask they no longer count.
    return _SURROGATE.search(text) is not None and _passes(mask_surrogates(text), skip)


def _passes(text: str, skip: Callable[[str], object]) -> bool:
    """Check the whole text, building nothing."""
    try:
        skip(text)
    except RecursionError:
        # msgspec nests as far as the interpreter's stack has room, which depends on the caller; orjson to 1024, always.
        return _parses(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return False
    return True


def _parses(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def mask_surrogates(text: str) -> str:
    """Put another escape for each escaped surrogate and "?" for each raw one: valid in the same places."""
    masked = _ESCAPE.sub(lambda match: r"\u003f" if _SURROGATE.match(match[0]) else match[0], text)
    return masked.encode("utf-8", "replace").decode()


_NO_BRACKETS = bytes(code for code in range(256) if code not in b"{}[]")
_STEP = {code: 1 if code in b"{[" else -1 for code in b"{}[]"}


def is_deeper(text: str, levels: int) -> bool:
    """Tell whether a valid text nests objects and arrays deeper than that."""
    if text.count("{") + text.count("[") <= levels:
        return False
    structure = "".join(hide_escapes(text).split('"')[::2])
    brackets = structure.encode().translate(None, _NO_BRACKETS)
    return max(accumulate(map(_STEP.__getitem__, brackets))) > levels


def hide_escapes(text: str) -> str:
    """Put control characters, which no valid text holds, for escaped backslashes (1) and quotes (2).

    After this every quote begins or ends a string.
    """
    # The first replacement takes runs of backslashes pairwise from their start, as a reader of JSON does.
    return text.replace("\\\\", "\1").replace('\\"', "\2") if "\\" in text else text


# --- values ----------------------------------------------------------------------------------------------------------


def load(body: bytes) -> Any:
    """Parse valid JSON into dicts, lists, strings and so on, with a `Number` where a number's text needs keeping."""
    try:
        value = orjson.loads(body)
        if orjson.dumps(value) == body:
            return value
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        pass  # Vast numbers, surrogates, deep nesting: the readers below know them all.
    text = body.decode()
    try:
        return json.loads(text, parse_int=Number, parse_float=Number)
    except RecursionError:
        return load_deep(text, members=dict, scalar=_scalar)


_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]]|[^\s,:{}\[\]"]+')
_CONSTANTS = {"true": True, "false": False, "null": None}


def load_deep(text: str, *, members: Callable[[list[tuple[str, Any]]], Any], scalar: Callable[[str], Any]) -> Any:
    """Parse valid JSON that nests deeper than the interpreter's stack has room, with a stack of its own.

    `members` makes an object of its pairs, `scalar` a value of the text of a string, number or constant.
    """
    outer: list[tuple[list[Any], bool, str | None]] = []
    items: list[Any] = []
    is_object, key = False, None
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token in "{[":
            outer.append((items, is_object, key))
            items, is_object, key = [], token == "{", None
            continue
        if token in "}]":
            value = members(items) if is_object else items
            items, is_object, key = outer.pop()
        elif is_object and key is None:
            key = json.loads(token)
            continue
        else:
            value = scalar(token)
        items.append((key, value) if is_object else value)
        key = None
    return items[0]


def _scalar(token: str) -> Any:
    if token[0] == '"':
        return json.loads(token)
    return _CONSTANTS[token] if token in _CONSTANTS else Number(token)


def dump(value: Any) -> bytes:
    """Write a value of `load` as compact UTF-8 JSON; lone surrogates leave as escapes."""
    try:
        return orjson.dumps(value, default=_as_it_is, option=orjson.OPT_PASSTHROUGH_SUBCLASS)
    except orjson.JSONEncodeError:
        return "".join(_pieces(value)).encode("utf-8", "backslashreplace")


def _as_it_is(value: Any) -> orjson.Fragment:
    if type(value) is Number:
        return orjson.Fragment(value.encode())  # A subclass of str will not do.
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _pieces(value: Any) -> Iterator[str]:
    """Write a value piece by piece, with a stack of what is still to come instead of recursion."""
    pending: list[Any] = [(value,)]
    while pending:
        item = pending.pop()
        if type(item) is str:
            yield item
            continue
        (inner,) = item
        if type(inner) is dict:
            parts: list[Any] = ["{", "}"]
            parts[1:1] = [
                part
                for at, (key, below) in enumerate(inner.items())
                for part in ("," * (at > 0) + _scalar_text(key) + ":", (below,))
            ]
            pending.extend(reversed(parts))
        elif type(inner) is list:
            parts = ["[", "]"]
            parts[1:1] = [part for at, below in enumerate(inner) for part in ("," * (at > 0), (below,))]
            pending.extend(reversed(parts))
        else:
            yield _scalar_text(inner)


def _scalar_text(value: Any) -> str:
    if type(value) is Number:
        return value
    if type(value) is str:
        return json.dumps(value, ensure_ascii=False)
    return orjson.dumps(value).decode()
