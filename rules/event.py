"""The event: the checks of a PutEvents entry, its size, its detail and its envelope.

Theory of operation. Every event's detail is validated (`is_detail`); only one that somebody wants is compacted. Both
work on whole strings with functions written in C and never walk characters.

*The short way.* msgspec rewrites the text token by token: white space goes, the text of numbers, duplicate keys and
escapes stay. Escapes of printable characters are then replaced.

*The long way*, for what msgspec refuses although it is JSON: lone surrogates and deep nesting. Cut the text at its
quotes: pieces 0, 2, 4 … are structure, pieces 1, 3, 5 … are string contents. The structure is joined with NUL, which a
valid text cannot hold, stripped in one go and woven in again. Escaped backslashes and quotes hide behind control
characters meanwhile, for the same reason.

Either way must equal a character-by-character reading; the tests hold it to one.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec
import orjson

from rules import exact
from rules.errors import RulesError

MAX_DEPTH = 1000
SHALLOW = 2 * MAX_DEPTH
"""Text of no more characters than this cannot nest deeper."""
_TIME_BYTES = 14
_YEAR_10000 = 253_402_300_800
_CACHED_CHARS = 512


class EventTimeError(RulesError):
    """A time that has no `YYYY-MM-DDTHH:MM:SSZ` form: not an instant at all, before 1970, or after 9999."""


@dataclass(frozen=True, slots=True)
class EntryFault:
    """Why one entry of PutEvents is refused; the other entries of the request are not concerned."""

    code: str
    message: str


def _missing(member: str) -> EntryFault:
    return EntryFault("InvalidArgument", f"Parameter {member} is not valid. Reason: {member} is a required argument.")


_REQUIRED = tuple((member, _missing(member)) for member in ("Source", "DetailType", "Detail"))
MALFORMED_DETAIL = EntryFault("MalformedDetail", "Detail is malformed.")
NOT_AUTHORIZED_SOURCE = EntryFault("NotAuthorizedForSourceException", "Not authorized for the source.")


def missing_member(source: str | None, detail_type: str | None) -> EntryFault | None:
    """Answer the fault of an entry that lacks its source or its detail-type, or None."""
    return next((fault for text, (_, fault) in zip((source, detail_type), _REQUIRED, strict=False) if not text), None)


MISSING_DETAIL = _REQUIRED[2][1]


def check_entry(entry: Mapping[str, Any], *, by_source: bool = False) -> EntryFault | None:
    """Answer the first fault of a PutEvents entry, in AWS's order of checks, or None.

    Members may be absent or None; those present are strings (the wire has checked that). `by_source` says that the
    caller puts events as a service or partner does, whose sources begin with "aws.".
    """
    for member, fault in _REQUIRED:
        if not entry.get(member):
            return fault
    if not is_detail(entry["Detail"]):
        return MALFORMED_DETAIL
    if entry["Source"].startswith("aws.") and not by_source:
        return NOT_AUTHORIZED_SOURCE
    return None


def entry_size(entry: Mapping[str, Any]) -> int:
    """Count the bytes an entry contributes to the request limit; bus name and trace header are free."""
    texts = [entry.get(member) or "" for member, _ in _REQUIRED]
    return sum(map(utf8_length, texts)) + extra_size(entry.get("Time"), entry.get("Resources"))


def extra_size(time: object, resources: Sequence[str] | None) -> int:
    """Count the bytes of what most entries leave out."""
    return (0 if time is None else _TIME_BYTES) + sum(map(utf8_length, resources or ()))


def utf8_length(text: str) -> int:
    """Bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


# --- detail ----------------------------------------------------------------------------------------------------------


def is_detail(text: str) -> bool:
    """Tell whether a text is a JSON object nested to 1000 levels at most: whether `compact_detail` gives something.

    Six times as fast, because nothing is built; most events are only ever looked at this way.
    """
    try:
        exact.skip_object(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return compact_detail(text) is not None
    return not is_too_deep(text)


def is_too_deep(text: str) -> bool:
    """Tell whether JSON text nests to more than 1000 levels; for most texts their length settles it."""
    return len(text) > SHALLOW and exact.is_deeper(text, MAX_DEPTH)


def compact_detail(text: str) -> bytes | None:
    """Write a JSON object without white space, as UTF-8; None when the text is not a JSON object.

    Key order, duplicate keys and the text of numbers stay, whatever their magnitude: a number may lie outside the
    integers AWS documents (-2^63..2^63-1) and still be delivered digit for digit. Unicode escapes become the characters
    they name, except control characters, quote, backslash and lone surrogates. Objects and arrays nest to 1000 levels.
    """
    try:
        written = _format(text.encode())
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return _compact_odd_detail(text)
    if written[0] != _BRACE or is_too_deep(text):
        return None
    # The one-character search in a text takes no time and settles most.
    return _rewrite_escapes(written.decode()).encode() if "\\" in text else written


def resolve_escapes(text: str) -> bytes:
    """Write a short JSON object with escapes as `compact_detail` has them, in half the time, but with its white space.

    Raises msgspec.DecodeError, UnicodeError or RecursionError for a text that is none, or that takes a closer look.
    """
    exact.skip_object(text)
    return _rewrite_escapes(text).encode()


_BRACE = ord("{")


def _format(text: bytes) -> bytes:
    """Take away white space outside strings and nothing else; raises for text that is not JSON."""
    return msgspec.json.format(text, indent=-1)


def _compact_odd_detail(text: str) -> bytes | None:
    """Do the same for what the short way refuses: surrogates, vast numbers, deep nesting, and what is not JSON."""
    if not exact.is_object(text) or exact.is_deeper(text, MAX_DEPTH):
        return None
    return _join_surrogates(_strip(_rewrite_escapes(text))).encode("utf-8", "backslashreplace")


_REMOVE_WHITE_SPACE = str.maketrans("", "", " \t\n\r")


def _strip(text: str) -> str:
    """Take away the white space outside strings; the text is valid."""
    pieces = exact.hide_escapes(text).split('"')
    pieces[::2] = "\0".join(pieces[::2]).translate(_REMOVE_WHITE_SPACE).split("\0")
    stripped = '"'.join(pieces)
    return stripped.replace("\2", '\\"').replace("\1", "\\\\") if "\\" in text else stripped


_ESCAPE = re.compile(r"\\(?:u(?:[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|[0-9a-fA-F]{4})|.)")
_SHORT = {0x08: "\\b", 0x09: "\\t", 0x0A: "\\n", 0x0C: "\\f", 0x0D: "\\r", 0x22: '\\"', 0x5C: "\\\\"}


def _rewrite_escapes(text: str) -> str:
    """Write what escapes name where that is printable; the text is valid, so that escapes are inside strings only."""
    # Pieces between single characters are found five times as fast as any of two.
    first, *others = text.split("\\")
    written = [first]
    for piece in others:
        if piece[:1] == "u":
            character = _PLAIN.get(piece[1:5]) or _plain(piece[1:5])
            if not character:
                return _ESCAPE.sub(lambda match: _unescape(match[0]), text)  # a surrogate: its other half may follow
            written.append(character + piece[5:])
        elif piece[:1] == "/":
            written.append(piece)
        elif piece:
            written.append("\\" + piece)
        else:  # a backslash that is one itself, so that what follows begins with no escape
            return _ESCAPE.sub(lambda match: _unescape(match[0]), text)
    return "".join(written)


_REMEMBERED_ESCAPES = 4096
_PLAIN: dict[str, str] = {}
"""What stands for an escape, by its four digits."""


def _plain(digits: str) -> str:
    """What stands for an escape that is no half of a character, which is remembered; nothing for others."""
    written = _unescape(f"\\u{digits}")
    if "\ud800" <= written <= "\udfff":
        return ""
    if len(_PLAIN) < _REMEMBERED_ESCAPES:
        _PLAIN[digits] = written
    return written


@lru_cache(4096)
def _unescape(escape: str) -> str:
    if escape == "\\/":
        return "/"
    if escape[1] != "u":
        return escape
    if len(escape) == 12:
        return _join_surrogates(chr(int(escape[2:6], 16)) + chr(int(escape[8:], 16)))
    code = int(escape[2:], 16)
    if code in _SHORT:
        return _SHORT[code]
    return escape if code < 0x20 or 0x7F <= code < 0xA0 else chr(code)


def _join_surrogates(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


# --- envelope --------------------------------------------------------------------------------------------------------


def render_envelope(
    *,
    event_id: str,
    detail_type: str,
    source: str,
    account: str,
    time: str,
    region: str,
    resources: Sequence[str],
    detail: bytes,
    replay_name: str | None = None,
) -> bytes:
    """Write the event as every target receives it: compact, in AWS's key order.

    `detail` is already compact JSON; `event_id` and `time` are of the server's own making and need no escapes.
    """
    middle = envelope_middle(
        detail_type=detail_type, source=source, account=account, time=time, region=region, resources=resources,
        replay_name=replay_name,
    )  # fmt: skip
    return b"".join((ENVELOPE_BEGIN, event_id.encode(), middle, detail, ENVELOPE_END))


ENVELOPE_BEGIN, ENVELOPE_END = b'{"version":"0","id":"', b"}"
"""What stands before the id of every envelope, and after its detail."""


def envelope_middle(
    *,
    detail_type: str,
    source: str,
    account: str,
    time: str,
    region: str,
    resources: Sequence[str] = (),
    replay_name: str | None = None,
) -> bytes:
    """What stands between id and detail of an envelope: the same for most events of one kind, origin and second."""
    if len(detail_type) + len(source) <= _CACHED_CHARS:
        naming, place = _producer(detail_type, source, account, region)
    else:
        naming, place = _producer.__wrapped__(detail_type, source, account, region)
    replay = b"" if replay_name is None else b'"replay-name":%b,' % _encode(replay_name)
    listed = _encode(list(resources)) if resources else b"[]"
    return b'%b%b%b%b"resources":%b,"detail":' % (naming, time.encode(), place, replay, listed)


@lru_cache(2048)
def _producer(detail_type: str, source: str, account: str, region: str) -> tuple[bytes, bytes]:
    """Encode what the events of one producer have in common, before the time and after it.

    Long texts go round the cache, which bounds its memory.
    """
    naming = b'","detail-type":%b,"source":%b,"account":%b,"time":"' % (
        _encode(detail_type),
        _encode(source),
        _encode(account),
    )
    return naming, b'","region":%b,' % _encode(region)


def _encode(value: str | list[str]) -> bytes:
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        # Lone surrogates have no UTF-8 form; they leave as escapes.
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


def load_json(body: bytes) -> Any:
    """Parse an event this module accepted, also where orjson gives up: lone surrogates, and numbers beyond a double.

    Such a number becomes an infinite float. Raises ValueError for what is not JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(body, parse_int=_any_int)
    except RecursionError:
        # Both at once, deep nesting and lone surrogates: here the latter read as "?".
        return orjson.loads(exact.mask_surrogates(body.decode()))


def _any_int(digits: str) -> int | float:
    # int() refuses long texts; at that length the value is infinite as a double anyway.
    return int(digits) if len(digits) <= 300 else float(digits)


# --- time ------------------------------------------------------------------------------------------------------------


def format_time(epoch_seconds: float) -> str:
    """Write an instant as `YYYY-MM-DDTHH:MM:SSZ`, the fraction cut off; EventTimeError when there is no such form."""
    if not 0 <= epoch_seconds < _YEAR_10000:
        raise EventTimeError("Time must lie between 1970-01-01T00:00:00Z and 9999-12-31T23:59:59Z.")
    return _format_second(int(epoch_seconds))


@lru_cache(256)
def _format_second(second: int) -> str:
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%SZ}"


def read_time(text: str) -> str:
    """Bring an ISO 8601 instant, in UTC unless it says otherwise, into the form of `format_time`; EventTimeError."""
    try:
        instant = datetime.fromisoformat(text)
        return format_time((instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        raise EventTimeError(f"{text[:100]!r} is not a time; write it as 2026-01-31T12:00:00Z.") from None
