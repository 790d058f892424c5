"""Runs the scenarios of tests/cases/queues: steps against a fresh rig, each with the answer or the error it must give.

A step is {"do": operation, "with": request} and one of "gives" (members the answer must have; "*" is any value, a list
must have the same length), "is" (the exact answer) or "fails" ([error shape, message; null for any message]).
"keep" stores values of the answer by path ("Messages.0.ReceiptHandle"); "$name" in later steps stands for them.
"wait" lets seconds pass. A string of the form {"repeat": [text, times]} is written out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bus.errors import ApiError
from bus.queues import ERROR_CODES
from tests.bus.queue_rig import Rig, rig

FOLDER = Path(__file__).parents[1] / "cases" / "queues"
FILES = sorted(FOLDER.glob("*.json"))
CASES = [
    pytest.param(case, id=f"{path.stem}-{case['name'].replace(' ', '_')}")
    for path in FILES
    for case in json.loads(path.read_text())
]


def filled(value: Any, kept: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"repeat"}:
            text, times = value["repeat"]
            return text * times
        if value.keys() == {"copies"}:
            entry, times = value["copies"]
            return [{**filled(entry, kept), "Id": str(number)} for number in range(times)]
        return {name: filled(each, kept) for name, each in value.items()}
    if isinstance(value, list):
        return [filled(each, kept) for each in value]
    if isinstance(value, str):
        for name, text in sorted(kept.items(), reverse=True):
            value = value.replace(f"${name}", text)
    return value


def check(found: Any, wanted: Any, path: str = "answer") -> None:
    if wanted == "*":
        assert found is not None, path
    elif isinstance(wanted, dict):
        for name, each in wanted.items():
            assert (name in found) == (each is not None), f"{path}.{name}: {found}"
            if each is not None:
                check(found[name], each, f"{path}.{name}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), f"{path}: {found}"
        for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
            check(one, other, f"{path}.{number}")
    else:
        assert found == wanted, path


def at(answer: Any, path: str) -> Any:
    for part in path.split("."):
        answer = answer[int(part) if part.isdigit() else part]
    return answer


async def run_step(on: Rig, step: dict[str, Any], kept: dict[str, Any]) -> None:
    if "wait" in step:
        await on.wait(step["wait"])
        return
    request = filled(step.get("with", {}), kept)
    if "fails" in step:
        shape, message = step["fails"]
        with pytest.raises(ApiError) as caught:
            await on.do(step["do"], **request)
        assert caught.value.code == shape
        assert shape in ERROR_CODES
        assert message is None or caught.value.message == filled(message, kept)
        return
    answer = await on.do(step["do"], **request)
    if "is" in step:
        assert answer == filled(step["is"], kept)
    check(answer, filled(step.get("gives", {}), kept))
    for name, path in step.get("keep", {}).items():
        kept[name] = at(answer, path)


def test_there_are_cases() -> None:
    assert len(CASES) > 50


@pytest.mark.parametrize("case", CASES)
async def test_case(case: dict[str, Any]) -> None:
    kept = {"url": "http://localhost:4010/000000000000", "arn": "arn:aws:sqs:us-east-1:000000000000"}
    async with rig(**case.get("options", {})) as on:
        for step in case["steps"]:
            await run_step(on, step, kept)
