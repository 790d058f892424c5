import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jmespath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.errors import RulesError
from rules.event import compact_detail, render_envelope
from rules.template import (
    Dropped,
    Input,
    InvalidJson,
    Rendering,
    TemplateError,
    check_input,
    check_path,
    check_transformer,
    compile_input,
)

FOLDER = Path(__file__).parents[1] / "cases/templates"
EVENT = (FOLDER / "event.json").read_bytes().strip()
CASES = [
    pytest.param(case, id=f"{file.stem}: {case['name']}")
    for file in sorted(FOLDER.glob("*.json"))
    if file.stem != "event"
    for case in json.loads(file.read_text())
]
OUTCOMES = {"sent", "invalid", "dropped", "refused"}


def check(target: Mapping[str, Any]) -> None:
    """The checks in the order in which PutTargets makes them."""
    if "Input" in target:
        check_input(target["Input"], "one")
    if "InputPath" in target:
        check_path(target["InputPath"], "one")
    if "InputTransformer" in target:
        transformer = target["InputTransformer"]
        check_transformer(transformer["InputTemplate"], transformer.get("InputPathsMap"), "one")


def rendering(body: bytes) -> Rendering:
    return Rendering(
        body=body,
        rule_name="placed",
        rule_arn="arn:aws:events:eu-west-1:123456789012:rule/placed",
        ingestion_ms=1_767_261_601_007,
    )


def envelope(detail: bytes) -> bytes:
    return EVENT[: EVENT.index(b'"detail":') + len(b'"detail":')] + detail + b"}"


@pytest.mark.parametrize("case", CASES)
def test_cases(case: dict[str, Any]) -> None:
    (outcome,) = OUTCOMES & case.keys()
    if outcome == "refused":
        with pytest.raises(TemplateError) as refusal:
            check(case["target"])
        assert str(refusal.value) == case["refused"]
        return
    check(case["target"])
    body = envelope(case["detail"].encode()) if "detail" in case else EVENT
    text = str(case[outcome]).encode()
    expected = {"sent": text, "invalid": InvalidJson(text), "dropped": Dropped()}[outcome]
    assert compile_input(case["target"]).render(rendering(body)) == expected


def test_errors_are_of_the_rules() -> None:
    assert issubclass(TemplateError, RulesError)


def test_without_an_input_member_nothing_is_parsed() -> None:
    whole = compile_input({"Id": "one", "Arn": "x", "Input": None})
    assert whole.whole_event
    body = b"not even JSON"
    assert whole.render(rendering(body)) is body
    assert not compile_input({"Input": "1"}).whole_event
    assert not compile_input({"InputPath": "$"}).whole_event
    assert not compile_input({"InputTransformer": {"InputTemplate": "1"}}).whole_event


def test_the_event_is_parsed_once() -> None:
    event = rendering(EVENT)
    assert event.event is event.event
    assert event.event == json.loads(EVENT)


def test_paths_compile_once_for_a_target_and_not_for_its_events(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []

    def count(expression: str) -> Any:
        compiled.append(expression)
        return jmespath_compile(expression)

    jmespath_compile = jmespath.compile
    monkeypatch.setattr(jmespath, "compile", count)
    transformer = {"InputPathsMap": {"a": "$.detail.text", "b": "$.detail.items[*].name"}, "InputTemplate": '{"a":<a>}'}
    made = [compile_input({"InputTransformer": transformer}), compile_input({"InputPath": "$.detail.number"})]
    assert len(compiled) == 3
    compiled.clear()
    for _ in range(20):
        assert [each.render(rendering(EVENT)) for each in made] == [b'{"a":"hello"}', b"42"]
    assert compiled == []


def test_deep_events() -> None:
    detail = compact_detail('{"a": ' * 1000 + "1.50" + "}" * 1000)
    assert detail is not None
    event = rendering(envelope(detail))
    assert compile_input({"InputPath": "$.detail"}).render(event) == detail
    template = {"InputTransformer": {"InputPathsMap": {"d": "$.detail"}, "InputTemplate": '{"deep":<d>}'}}
    assert compile_input(template).render(event) == b'{"deep":' + detail + b"}"
    text = {"InputTransformer": {"InputPathsMap": {"d": "$.detail"}, "InputTemplate": '"<d>"'}}
    assert compile_input(text).render(event) == b'"' + detail.replace(b'"', b"") + b'"'


def test_a_long_hostile_template_is_read_once() -> None:
    check_transformer('1 "' + '\\"' * 4000, None, "one")
    check_transformer("{}" + '"<a>"' * 1600, None, "one")


def test_deep_lines_are_not_json() -> None:
    template = {"InputTransformer": {"InputTemplate": "1\n" + "[" * 4000}}
    assert isinstance(compile_input(template).render(rendering(EVENT)), InvalidJson)


strings = st.text(st.characters(exclude_categories=["Cc", "Cs"]) | st.sampled_from('\n\t"\\'), max_size=5)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | strings,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
PATHS = ["$", "$.detail", "$.detail.a", "$.detail.b[0]", "$.detail.c[*].a", "$.nothing", "$.resources[*]"]
WORDS = [
    "<x>", "<y>", "<z>", "<aws.events.rule-name>", "<aws.events.event>", "<aws.events.event.json>", "<other>", "<", ">",
    '"', "\\", '\\"', "{", "}", "[", "]", ":", ",", "\n", " ", "1", "null", "text", '{"a":', '{"a":<x>}', '"<y>"',
    "\ud800",
]  # fmt: skip
templates = st.lists(st.sampled_from(WORDS) | st.text(max_size=2), min_size=1, max_size=8).map("".join)
paths_maps = st.none() | st.dictionaries(st.sampled_from("xyz"), st.sampled_from(PATHS), max_size=3)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("abc"), values), templates, paths_maps)
def test_templates_are_refused_or_render(detail: Any, template: str, paths: dict[str, str] | None) -> None:
    try:
        check_transformer(template, paths, "one")
    except TemplateError:
        return
    given_members = {"InputTemplate": template} | ({} if paths is None else {"InputPathsMap": paths})
    render_and_judge(compile_input({"InputTransformer": given_members}), detail)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("abc"), values), st.sampled_from(PATHS))
def test_paths_render_the_value(detail: Any, path: str) -> None:
    render_and_judge(compile_input({"InputPath": path}), detail)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("abc"), values))
def test_object_slots_hold_the_value(detail: Any) -> None:
    body = body_of(detail)
    target = {"InputTransformer": {"InputPathsMap": {"x": "$.detail"}, "InputTemplate": '{"k": <x>}'}}
    rendered = compile_input(target).render(rendering(body))
    assert rendered == b'{"k": ' + body[body.index(b'"detail":') + 9 : -1] + b"}"


def body_of(detail: Any) -> bytes:
    compact = compact_detail(json.dumps(detail))
    assert compact is not None
    return render_envelope(
        event_id="i",
        detail_type="OrderPlaced",
        source="shop",
        account="123456789012",
        time="2026-01-01T10:00:00Z",
        region="eu-west-1",
        resources=["r"],
        detail=compact,
    )


def render_and_judge(made: Input, detail: Any) -> None:
    rendered = made.render(rendering(body_of(detail)))
    if isinstance(rendered, bytes):
        assert is_json(rendered) or b"\n" in rendered
    elif isinstance(rendered, InvalidJson):
        assert not is_json(rendered.body)
    else:
        assert rendered == Dropped()


def is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
