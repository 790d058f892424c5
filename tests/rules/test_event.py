import json
import sys
import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rules import event as event_module
from rules.errors import RulesError
from rules.event import (
    SHALLOW,
    EntryFault,
    EventTimeError,
    check_entry,
    compact_detail,
    entry_size,
    format_time,
    is_detail,
    load_json,
    render_envelope,
    resolve_escapes,
)

ENTRY = {"Source": "shop", "DetailType": "OrderPlaced", "Detail": '{"id": 1}'}


def required(member: str) -> EntryFault:
    return EntryFault("InvalidArgument", f"Parameter {member} is not valid. Reason: {member} is a required argument.")


MALFORMED = EntryFault("MalformedDetail", "Detail is malformed.")
NOT_AUTHORIZED = EntryFault("NotAuthorizedForSourceException", "Not authorized for the source.")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, None),
        ({"Source": ""}, required("Source")),
        ({"Source": None}, required("Source")),
        ({"DetailType": ""}, required("DetailType")),
        ({"DetailType": None}, required("DetailType")),
        ({"Detail": ""}, required("Detail")),
        ({"Detail": None}, required("Detail")),
        ({"Source": None, "DetailType": None, "Detail": None}, required("Source")),
        ({"DetailType": None, "Detail": "[]"}, required("DetailType")),
        ({"Detail": "[]"}, MALFORMED),
        ({"Detail": "not json"}, MALFORMED),
        ({"Detail": "nope", "Source": "aws.s3"}, MALFORMED),
        ({"Source": "aws.s3"}, NOT_AUTHORIZED),
        ({"Source": "aws"}, None),
        ({"Source": "aws-like.s3"}, None),
    ],
)
def test_checks_of_an_entry(change: dict[str, Any], fault: EntryFault | None) -> None:
    assert check_entry(ENTRY | change) == fault


def test_an_entry_without_members() -> None:
    assert check_entry({}) == required("Source")


def test_an_entry_in_order() -> None:
    assert check_entry(ENTRY) is None
    assert check_entry(ENTRY | {"Detail": "1"}) == MALFORMED


def test_size_of_an_entry() -> None:
    assert entry_size({}) == 0
    assert entry_size({"Source": "ab", "DetailType": "cde", "Detail": "{}"}) == 7
    assert entry_size({"Source": "ä", "DetailType": "€", "Detail": '{"a":"😀"}'}) == 2 + 3 + 12
    assert entry_size({"Time": 0, "Resources": ["abc", "dé"]}) == 14 + 3 + 3
    assert entry_size({"EventBusName": "x" * 100, "TraceHeader": "Root=1", "Time": None, "Resources": None}) == 0
    assert entry_size({"Source": "\ud800"}) == 3


# --- detail ---


def compacted(text: str) -> bytes | None:
    """What compact_detail gives; the quicker functions must agree with it."""
    result = compact_detail(text)
    assert is_detail(text) is (result is not None)
    if len(text) <= SHALLOW:
        try:
            resolved = resolve_escapes(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            pass  # it takes a closer look
        else:
            assert result is not None
            assert compact_detail(resolved.decode()) == result
    return result


def slow_compact(text: str) -> bytes | None:
    """The definition of compact_detail, character by character."""
    try:
        value = json.loads(text, parse_constant=refuse, parse_int=str, parse_float=str)
    except ValueError:
        return None
    if not isinstance(value, dict) or depth(value) > 1000:
        return None
    out: list[str] = []
    inside = False
    at = 0
    while at < len(text):
        char = text[at]
        if inside and char == "\\":
            escape = text[at : at + 6] if text[at + 1] == "u" else text[at : at + 2]
            out.append(slow_unescape(escape))
            at += len(escape)
            continue
        if char == '"':
            inside = not inside
        if inside or char not in " \t\n\r":
            out.append(char)
        at += 1
    joined = "".join(out).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return "".join(f"\\u{ord(c):04x}" if 0xD800 <= ord(c) < 0xE000 else c for c in joined).encode()


def slow_unescape(escape: str) -> str:
    if escape == "\\/":
        return "/"
    if escape[1] != "u":
        return escape
    char = chr(int(escape[2:], 16))
    if char in '"\\\b\f\n\r\t':
        return json.dumps(char)[1:-1]
    return escape if char < " " or "\x7f" <= char < "\xa0" else char


def refuse(constant: str) -> None:
    raise ValueError(constant)


def depth(value: object) -> int:
    level, deepest = [value], 0
    while level:
        nested = [item for item in level if isinstance(item, dict | list)]
        deepest += bool(nested)
        level = [below for item in nested for below in (item.values() if isinstance(item, dict) else item)]
    return deepest


TRICKY = [
    "a", "b ", " ", ": ", ", ", "{ ", '"', "\\", "\\\\", "/", "\\/", "\n", "\t", "\x00", "\x1f", "\x7f", "\x85", "é",
    "€", "\u2028", "😀", "\ud800", "\udc00", "\ud83d", "\\u0041", "}, {", "true, ", "[1, 2]",
]  # fmt: skip
strings = st.lists(st.sampled_from(TRICKY) | st.text(max_size=3), max_size=4).map("".join)
numbers = st.one_of(
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([1.0, -0.0, 1e300, 10**30, 2**63, -(2**63) - 1]),
)
values = st.recursive(
    st.none() | st.booleans() | numbers | strings,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(strings, inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(strings, values, max_size=5)


@st.composite
def json_texts(draw: st.DrawFn) -> str:
    """A JSON object as different writers write it."""
    spaces = st.sampled_from(["", "", " ", "  ", "\n", "\t", " \r\n "])
    text = json.dumps(
        draw(objects),
        ensure_ascii=draw(st.booleans()),
        indent=draw(st.sampled_from([None, None, 0, 1, "\t"])),
        separators=(draw(spaces) + "," + draw(spaces), draw(spaces) + ":" + draw(spaces)),
    )
    return draw(spaces) + text + draw(spaces)


@settings(deadline=None)
@given(json_texts())
def test_fast_equals_slow_on_json(text: str) -> None:
    expected = slow_compact(text)
    assert expected is not None
    assert compacted(text) == expected


FRAGMENTS = [
    "{", "}", "[", "]", ",", ":", '"', " ", "\n", "\t", "\\", '\\"', "\\\\", "\\u", "\\u0041", "\\u0022", "\\u005c",
    "\\u005C", "\\u000a", "\\u001F", "\\u0085", "\\ud83d", "\\ude00", "\\uD83D\\uDE00", "\\/", "\\b", "\\x", "a", "b",
    "1", "0", "-", "1e2", "1E400", "1.0", ".5", "01", "true", "null", "NaN", "\x00", "\x01", "\x02", "\x0b", "\ufeff",
    "\ud800", "\udc00", "😀", '"a":', '{"a":', '"a", ', '": ',
]  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=8).map("".join))
@example("}")
@example("\\u0020{}")
@example("\\ud83d\\\\ud83d]")
def test_fast_equals_slow_on_anything(middle: str) -> None:
    for text in (middle, '{"k":' + middle + "}", '{"k":"' + middle + '"}', '{"' + middle + '":1, "' + middle + '": 2}'):
        assert compacted(text) == slow_compact(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (' {\n"b" : 1 ,\t"a" : [ 1 , 2 ] , "c": { } }\r', '{"b":1,"a":[1,2],"c":{}}'),
        ('{"a": " b , c : d ", "e": "{ }"}', '{"a":" b , c : d ","e":"{ }"}'),
        ('{"a":1.0,"b":1e2,"c":12345678901234567890,"d":0.30000000000000004,"e":-0,"f":1E+2}', None),
        ('{"a":1e400,"b":123456789012345678901234567890123456789012345}', None),
        ('{"a":1,"a":2, "a":1}', '{"a":1,"a":2,"a":1}'),
        (r'{"a":"\u0041\u00e9\u20ac\ud83d\ude00\/"}', '{"a":"Aé€😀/"}'),
        (r'{"a":"\u0022\u005c\u000a\n\"\\"}', r'{"a":"\"\\\n\n\"\\"}'),
        (r'{"a":"\u0001\u001F\u007f\u009F"}', None),
        (r'{"a":"\\u0041 \\\u0041"}', r'{"a":"\\u0041 \\A"}'),
        (r'{"\u0061 b": "\ud800", "c":"\uDC00\ud83d"}', r'{"a b":"\ud800","c":"\udc00\ud83d"}'),
        ('{"a":"\ud800"}', r'{"a":"\ud800"}'),
        ('{"a":"\ud83d\\ude00"}', '{"a":"😀"}'),
        ('{"a":"\x7f\x85é"}', None),
        (r'{"a": "\\", "b": "\"", "c": "\\\" : "}', r'{"a":"\\","b":"\"","c":"\\\" : "}'),
    ],
)
def test_compacted(text: str, expected: str | None) -> None:
    assert compacted(text) == (text if expected is None else expected).encode()


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "null", "1", '"a"', "[]", "[{}]", "{", "{}}", "{}{}", "{'a':1}", "{a:1}", '{"a":}', '{"a":1,}',
        "\ufeff{}", '{"a":NaN}', '{"a":-Infinity}', '{"a":01}', '{"a":1.}', '{"a":.5}', '{"a":+1}', '{"a":"\n"}',
        '{"a":"\x00"}', "{}\x00", r'{"a":"\x"}', r'{"a":"\u12"}', r'{"a":"\u12g4"}', '{"a":"\\', '{\ud800"a":1}',
        r'{\ud800"a":1}', r"{\u0020}", "{\x0b}",
        '{"a":"\\ud800"', '["\ud800"]',
    ],
)  # fmt: skip
def test_malformed_detail(text: str) -> None:
    assert compacted(text) is None


def test_nesting() -> None:
    def nested(levels: int, leaf: str = "1") -> str:
        return '{"a": ' * levels + leaf + " }" * levels

    assert compacted(nested(1000)) == nested(1000).replace(" ", "").encode()
    assert (
        compacted(nested(1000, '"\\ud800 ]"'))
        == nested(1000, '"\\ud800~]"').replace(" ", "").replace("~", " ").encode()
    )
    assert compacted(nested(1001)) is None
    assert compacted(nested(1100)) is None
    assert compacted(nested(100_000)) is None
    assert compacted('{"a":' + "[" * 999 + "]" * 999 + "}") is not None
    assert compacted('{"a":' + "[" * 1000 + "]" * 1000 + "}") is None
    many = '{"a":[' + ",".join(['"[[{"'] * 2000) + "]}"
    assert compacted(many) == many.encode()


def test_nesting_does_not_depend_on_the_stack_below() -> None:
    def below(frames: int, text: str) -> bytes | None:
        return compacted(text) if frames == 0 else below(frames - 1, text)

    for levels in (100, 500, 900, 1000):
        text = '{"a":' * levels + "1e2" + "}" * levels
        assert below(sys.getrecursionlimit() // 4, text) == text.encode()


@settings(deadline=None)
@given(objects)
def test_what_was_accepted_can_be_read(value: dict[str, Any]) -> None:
    detail = compacted(json.dumps(value))
    assert detail is not None
    assert isinstance(load_json(detail), dict)


def test_reading_odd_json() -> None:
    assert load_json(rb'{"a":"\ud800","b":1}') == {"a": "\ud800", "b": 1}
    assert load_json(b'{"a":1e400}') == {"a": float("inf")}
    assert load_json(b'{"a":-' + b"9" * 5000 + b"}") == {"a": -float("inf")}
    assert load_json(b'{"a":' * 1000 + rb'"\ud800"' + b"}" * 1000)
    with pytest.raises(ValueError, match="line 1"):
        load_json(b"{")


# --- envelope ---

ENVELOPE = {
    "event_id": str(uuid.UUID(int=7)),
    "detail_type": "OrderPlaced",
    "source": "shop",
    "account": "000000000000",
    "time": "2026-01-01T10:00:00Z",
    "region": "us-east-1",
    "resources": [],
    "detail": b'{"id":1}',
}


def test_envelope() -> None:
    assert render_envelope(**ENVELOPE) == (  # type: ignore[arg-type]
        b'{"version":"0","id":"00000000-0000-0000-0000-000000000007","detail-type":"OrderPlaced","source":"shop",'
        b'"account":"000000000000","time":"2026-01-01T10:00:00Z","region":"us-east-1","resources":[],"detail":{"id":1}}'
    )


def test_envelope_of_a_replay() -> None:
    body = render_envelope(**ENVELOPE | {"resources": ["é", "arn:b"], "replay_name": "again"})  # type: ignore[arg-type]
    assert '"region":"us-east-1","replay-name":"again","resources":["é","arn:b"],"detail"'.encode() in body


@settings(deadline=None)
@given(strings, strings, st.lists(strings, max_size=3))
def test_envelope_reads_back(detail_type: str, source: str, resources: list[str]) -> None:
    for times in (1, 300):
        members = {"detail_type": detail_type * times, "source": source, "resources": resources}
        body = render_envelope(**ENVELOPE | members)  # type: ignore[arg-type]
        assert json.loads(body) == {
            "version": "0",
            "id": ENVELOPE["event_id"],
            "detail-type": joined(detail_type * times),
            "source": joined(source),
            "account": "000000000000",
            "time": "2026-01-01T10:00:00Z",
            "region": "us-east-1",
            "resources": [joined(resource) for resource in resources],
            "detail": {"id": 1},
        }


def joined(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


# --- time ---


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (0.999, "1970-01-01T00:00:00Z"),
        (1767261600.9999, "2026-01-01T10:00:00Z"),
        (1767261601, "2026-01-01T10:00:01Z"),
        (253402300799.5, "9999-12-31T23:59:59Z"),
    ],
)
def test_format_time(seconds: float, text: str) -> None:
    assert format_time(seconds) == text


@pytest.mark.parametrize("seconds", [1e300, 10**400, float("nan"), float("inf"), -float("inf"), -1, -0.5, 253402300800])
def test_times_without_a_form(seconds: float) -> None:
    with pytest.raises(EventTimeError, match="Time must lie between"):
        format_time(seconds)
    assert issubclass(EventTimeError, RulesError)


def test_a_time_too_long_to_print() -> None:
    with pytest.raises(EventTimeError):
        format_time(10**5000)


PIECES = st.one_of(
    st.sampled_from(["a", "é", "/", '\\"', "\\\\", "\\/", "\\n", "u0041", "\U0001f600"]),
    st.sampled_from(["0041", "00e9", "00E9", "0000", "001f", "0022", "005c", "0085", "fffe"]).map("\\u{}".format),
    st.sampled_from(["\\ud83d", "\\ude00", "\\ud83d\\ude00", "\\uD83D\\uDE00"]),
)


@given(st.lists(PIECES, max_size=8))
def test_escapes_are_resolved_piece_by_piece_as_one_by_one(pieces: list[str]) -> None:
    text = '{"' + "".join(pieces) + '":1}'
    one_by_one = event_module._ESCAPE.sub(lambda match: event_module._unescape(match[0]), text)
    assert event_module._rewrite_escapes(text) == one_by_one
