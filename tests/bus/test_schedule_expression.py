from __future__ import annotations

import json
from pathlib import Path

import pytest

from bus.schedule_expression import is_schedule

CASES = Path(__file__).parent.parent / "cases" / "schedules"


@pytest.mark.parametrize("outcome", ["accepted", "refused"])
def test_schedules(outcome: str) -> None:
    texts = json.loads((CASES / f"{outcome}.json").read_text())
    assert [text for text in texts if is_schedule(text) != (outcome == "accepted")] == []
    assert len(texts) > 20
