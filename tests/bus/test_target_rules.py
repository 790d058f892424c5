from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bus.errors import ApiError
from bus.resources import Rule
from bus.target_rules import TargetRules
from tests.bus.configuration import QUEUE, SCOPE, refuse_metadata

CASES = Path(__file__).parent.parent / "cases" / "targets"
RULE = Rule(SCOPE, "default", "r")


def cases(*names: str) -> list[Any]:
    found = [case for name in names for case in json.loads((CASES / f"{name}.json").read_text())]
    return [pytest.param(case, id=case["name"]) for case in found]


def accept(case: dict[str, Any]) -> dict[str, Any]:
    rules = TargetRules(strict=case.get("strict", False), check_url=refuse_metadata)
    return rules.accept({"Id": "t", "Arn": QUEUE} | case["target"], RULE)


@pytest.mark.parametrize("case", cases("accepted"))
def test_accepted(case: dict[str, Any]) -> None:
    expected = case.get("stored") or {"Id": "t", "Arn": QUEUE} | case["target"]
    assert json.dumps(accept(case)) == json.dumps(expected)


@pytest.mark.parametrize("case", cases("refused_arns", "refused_inputs", "refused_by_kind"))
def test_refused(case: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as refused:
        accept(case)
    assert (refused.value.code, refused.value.message) == (case.get("code", "ValidationException"), case["message"])


@pytest.mark.parametrize("case", [case for case in cases("refused_by_kind") if case.values[0].get("strict")])
def test_without_strict_no_role_is_asked_for(case: dict[str, Any]) -> None:
    assert accept(case | {"strict": False})["Arn"] == case["target"]["Arn"]


def test_every_case_file_is_run() -> None:
    assert {path.stem for path in CASES.glob("*.json")} == {
        "accepted",
        "refused_arns",
        "refused_by_kind",
        "refused_inputs",
    }
