"""CloudTrail records: the event that each becomes, and which rules receive it."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.cloudtrail import DETAIL_TYPES, RecordError, read_record
from rules.states import RuleState, receives

FOLDER = Path(__file__).parents[1] / "cases/cloudtrail"


def cases(name: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in json.loads((FOLDER / name).read_text())]


@pytest.mark.parametrize("case", cases("records.json"))
def test_records(case: dict[str, Any]) -> None:
    event = read_record(case["record"])
    expected = case["event"] | {"resources": tuple(case["event"]["resources"])}
    if expected["event_id"] == "ID":
        assert event.event_id is not None
        assert str(UUID(event.event_id)) == event.event_id != case["record"]["eventID"]
        expected["event_id"] = event.event_id
    assert asdict(event) == expected


@pytest.mark.parametrize("case", cases("records.json"))
def test_who_receives_them(case: dict[str, Any]) -> None:
    detail_type, record = read_record(case["record"]).detail_type, case["record"]
    assert receives(RuleState.ENABLED, detail_type, lambda: record) is not case["withheld"]
    assert receives(RuleState.ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS, detail_type, lambda: record)
    assert not receives(RuleState.DISABLED, detail_type, lambda: record)


@pytest.mark.parametrize("case", cases("refused.json"))
def test_refused(case: dict[str, Any]) -> None:
    with pytest.raises(RecordError) as refused:
        read_record(case["record"])
    assert refused.value.reason == case["reason"]


def test_every_type_of_record_has_a_case() -> None:
    seen = {case.values[0]["record"].get("eventType", "AwsApiCall") for case in cases("records.json")}
    assert seen == DETAIL_TYPES.keys()


def test_one_record_is_one_event() -> None:
    record = cases("records.json")[0].values[0]["record"]
    again = read_record(json.loads(json.dumps(record)))
    assert again == read_record(record)
    assert read_record({**record, "eventID": "another"}).event_id != again.event_id


_VALUES = st.sampled_from([None, True, 7, 1e300, "", "x" * 500, "\ud800", '"', [], [None], {}, {"accountId": 7}])
_MEMBERS = st.sampled_from(
    ["eventType", "eventSource", "eventTime", "awsRegion", "eventID", "userIdentity", "recipientAccountId", "resources"]
)


@given(_MEMBERS, _VALUES | st.text(max_size=20))
def test_whatever_a_record_holds_it_is_an_event_or_refused(member: str, value: object) -> None:
    record = {**cases("records.json")[0].values[0]["record"], member: value}
    with suppress(RecordError):
        event = read_record(record)
        assert '"' not in f"{event.event_id}{event.source}{event.time}{event.region}{event.account}"
