"""Requests against the service models: golden cases, and the quick look against the complete one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from random import Random
from typing import Any

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel, Shape
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.api.model import Service, load_events, load_queues
from bus.api.patterns import LINEAR, REACH, predicate
from bus.errors import ApiError

CASES = Path(__file__).parents[1] / "cases" / "constraints"
SERVICES = {"events": load_events(), "sqs": load_queues()}
MODELS = {name: ServiceModel(Loader().load_service_model(name, "service-2"), name) for name in SERVICES}


def cases(outcome: str) -> list[Any]:
    return [
        pytest.param(SERVICES[path.stem.partition("-")[0]], case, id=case["name"])
        for path in sorted(CASES.glob(f"*-{outcome}.json"))
        for case in json.loads(path.read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize(("service", "case"), cases("refused"))
def test_a_wrong_request_is_refused_in_awss_words(service: Service, case: dict[str, Any]) -> None:
    operation = service.operations[case["operation"]]
    with pytest.raises(ApiError) as refusal:
        operation.check(case["request"])
    assert (refusal.value.code, refusal.value.message) == (case["code"], case["message"])
    assert not operation.accepts(case["request"])


@pytest.mark.parametrize(("service", "case"), cases("accepted"))
def test_a_right_request_passes(service: Service, case: dict[str, Any]) -> None:
    operation = service.operations[case["operation"]]
    operation.check(case["request"])
    operation.walk(case["request"])


def test_plain_requests_pass_at_the_first_look() -> None:
    entry = {"Source": "s", "DetailType": "t", "Detail": "{}", "EventBusName": "default", "Resources": ["r"], "Time": 1}
    assert SERVICES["events"].operations["PutEvents"].accepts({"Entries": [entry] * 10})
    assert SERVICES["sqs"].operations["SendMessage"].accepts({"QueueUrl": "q", "MessageBody": "b", "DelaySeconds": 1})


def test_all_violations_are_counted() -> None:
    with pytest.raises(ApiError, match=r"^ValidationException: 3 validation errors detected: .*; .*; "):
        SERVICES["events"].operations["PutTargets"].check({"Rule": " ", "Targets": [{"Id": " "}]})


def test_operations_know_their_names_and_answers() -> None:
    events = SERVICES["events"]
    assert (events.signing_name, events.target_prefix, events.json_version) == ("events", "AWSEvents", "1.1")
    assert (SERVICES["sqs"].target_prefix, SERVICES["sqs"].json_version) == ("AmazonSQS", "1.0")
    assert SERVICES["sqs"].query_errors
    assert not events.query_errors
    operation = events.operations["ListTagsForResource"]
    assert (operation.method_name, operation.action) == ("list_tags_for_resource", "events:ListTagsForResource")
    assert events.operations["DeleteRule"].is_void
    assert not events.operations["TagResource"].is_void


WRONG: list[Any] = [0, 1, -1, 10**12, 1.5, 1e300, True, False, "", "x", "a b", "YWI=", [], {}, ["x"], {"x": "y"}]
TEXTS = ["default", "", "é", " ", "a\n", "events:PutEvents", "arn:aws:events:r-x-1:000000000007:rule/a"]


class Requests:
    """Random values of shapes: mostly in order, some at and over a limit, a few of another type."""

    def __init__(self, seed: int, mischief: float) -> None:
        self._random = Random(seed)
        self._mischief = mischief

    def value(self, shape: Shape) -> Any:
        if self._random.random() < self._mischief / 4:
            # An object with an unknown member is not wrong for a structure, only unusual.
            return self._random.choice(WRONG[:-1] if shape.type_name == "structure" else WRONG)
        return getattr(self, shape.type_name)(shape)

    def bounded(self, shape: Shape, most: int) -> int:
        low, high = shape.metadata.get("min", 0), min(shape.metadata.get("max", most), most)
        if self._random.random() < self._mischief:
            return self._random.choice([max(low - 1, 0), low, high, high + 1])
        return self._random.randint(low, max(low, high))

    def string(self, shape: Shape) -> str:
        if shape.enum and self._random.random() > self._mischief:
            return str(self._random.choice(shape.enum))
        return self._random.choice([*TEXTS, "a" * self.bounded(shape, 2100)])

    def integer(self, shape: Shape) -> int:
        return self.bounded(shape, 2**31)

    def long(self, shape: Shape) -> int:
        return self.bounded(shape, 2**63)

    def boolean(self, shape: Shape) -> bool:
        return self._random.random() < 0.5

    def timestamp(self, shape: Shape) -> float:
        return self._random.choice([0, 1.5, -1, 253_402_300_799, 253_402_300_800, -(10**12)])

    def blob(self, shape: Shape) -> str:
        return self._random.choice(["", "AAE=", "AAE", "*", "AA E="])

    def list(self, shape: Shape) -> Any:
        return [self.value(shape.member) for _ in range(self.bounded(shape, 4))]

    def map(self, shape: Shape) -> Any:
        return {self.string(shape.key): self.value(shape.value) for _ in range(self.bounded(shape, 3))}

    def structure(self, shape: Shape) -> dict[str, Any]:
        required = shape.metadata.get("required", ())
        return {
            name: self.value(member)
            for name, member in shape.members.items()
            if self._random.random() < (1 - self._mischief / 4 if name in required else 0.5)
        }


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.05, 0.4]))
def test_the_quick_look_agrees_with_the_complete_one(seed: int, mischief: float) -> None:
    """Of plain requests: the quick look knows neither null nor members that are not in the model."""
    requests = Requests(seed, mischief)
    for name, service in SERVICES.items():
        for operation in service:
            request = requests.structure(MODELS[name].operation_model(operation.name).input_shape)
            assert operation.accepts(request) == passes(operation, request), (operation.name, request)


def test_random_requests_are_of_both_kinds() -> None:
    shape = MODELS["events"].operation_model("PutEvents").input_shape
    operation = SERVICES["events"].operations["PutEvents"]
    verdicts = [passes(operation, Requests(seed, 0.05).structure(shape)) for seed in range(300)]
    assert 20 < sum(verdicts) < 280


ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "Source": st.text(max_size=4) | st.none() | st.integers(),
        "DetailType": st.text(max_size=4) | st.booleans(),
        "Detail": st.text(max_size=4) | st.dictionaries(st.text(max_size=1), st.none(), max_size=1),
        "EventBusName": st.sampled_from(["default", "", "a b", "b\n", "aws.partner/x", "é"]),
        "TraceHeader": st.sampled_from(["", "t", "t" * 500, "t" * 501]),
        "Resources": st.lists(st.sampled_from(["r", "r" * 2048, "r" * 2049, None, 1]), max_size=3),
        "Time": st.floats() | st.integers() | st.text(max_size=2),
        "Unknown": st.none() | st.integers(),
    },
)


@settings(max_examples=300, deadline=None)
@given(
    st.fixed_dictionaries(
        {"Entries": st.lists(ENTRIES | st.none(), max_size=11)},
        optional={"EndpointId": st.sampled_from(["a.b", "ab", "", None]), "Unknown": st.none()},
    )
)
def test_what_the_quick_look_accepts_has_no_violation(request: dict[str, Any]) -> None:
    operation = SERVICES["events"].operations["PutEvents"]
    if operation.accepts(request):
        operation.walk(request)


def passes(check: Any, request: Any) -> bool:
    try:
        check.walk(request)
    except ApiError:
        return False
    return True


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("[a-z]+", "abc", True),
        ("[a-z]+", "abc\n", False),
        ("^[a-z]+$", "abc\n", False),
        (".*", "one line", True),
        (".*", "two\nlines", False),
        (".*", "two\u2028lines", False),
        ("[.]+", "..", True),
        ("[.]+", "a", False),
        (r"\.", "a", False),
        (r"\d", "\u0663", False),
        (r"\w+", "é", False),
        (r"^(?!\s*$).+", " \t", False),
        (r"^(?!\s*$).+", " a", True),
        (r"[\p{L}\p{N}_-]*", "Ä9_-", True),
        (r"[\p{L}\p{N}_-]*", "Ä ", False),
        (r"[\p{L}]*", "]", False),
        (r"[\p{L}]+", "", False),
    ],
)
def test_patterns_mean_what_they_mean_in_java(pattern: str, text: str, expected: bool) -> None:
    assert predicate(pattern)(text) is expected


def model_patterns() -> set[str]:
    shapes = Loader().load_service_model("events", "service-2")["shapes"].values()
    return {shape["pattern"] for shape in shapes if "pattern" in shape}


@pytest.mark.parametrize("pattern", sorted(LINEAR))
def test_every_replaced_pattern_is_in_the_model(pattern: str) -> None:
    assert pattern in model_patterns()


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(LINEAR)), st.text(alphabet="a~: \t\n\x1f\x7fé", max_size=9))
def test_a_replaced_pattern_means_the_same(pattern: str, text: str) -> None:
    assert predicate(pattern)(text) == bool(re.fullmatch(pattern, text, re.ASCII))


@pytest.mark.parametrize("pattern", sorted(model_patterns()))
def test_no_pattern_can_be_made_to_run_for_ever(pattern: str) -> None:
    seeds = ("a", "a ", "a-", "/a", "-", "arn:aws", "\t", "~", "%41", "[0]", "$.a", "1")
    verdicts = [predicate(pattern)(seed * 1000 + "\x00") for seed in seeds]
    assert len(verdicts) == len(seeds), "reaching this line is the point: no matcher backtracks without end"


def test_a_value_far_too_long_is_refused_for_its_length_alone() -> None:
    with pytest.raises(ApiError, match=r"^ValidationException: 1 validation error detected: .* equal to 64$"):
        SERVICES["events"].operations["DescribeRule"].check({"Name": " " * (REACH + 1)})


def test_batches_of_sqs_have_the_action_of_their_single_form() -> None:
    assert {o.name: o.action for o in SERVICES["sqs"] if o.name.endswith("Batch")} == {
        "SendMessageBatch": "sqs:SendMessage",
        "DeleteMessageBatch": "sqs:DeleteMessage",
        "ChangeMessageVisibilityBatch": "sqs:ChangeMessageVisibility",
    }
    assert SERVICES["events"].operations["PutEvents"].action == "events:PutEvents"
