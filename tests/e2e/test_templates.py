"""The golden cases of input shaping from end to end: through PutTargets, PutEvents and a queue of a running server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.e2e.tenant import Tenant, letter, to_dead_letters

pytestmark = pytest.mark.xdist_group("e2e_templates")

FOLDER = Path(__file__).parent.parent / "cases/templates"
EVENT = json.loads((FOLDER / "event.json").read_text())
CASES = [
    case
    for file in ("input", "transformer", "paths")
    for case in json.loads((FOLDER / f"{file}.json").read_text())
    # The event here has an id and a time of its own, and the rule another name.
    if EVENT["id"] not in str(case) and "rule-name" not in str(case)
]
REFUSED = [
    case for case in json.loads((FOLDER / "refused.json").read_text()) if len(case["target"].get("Input", "")) < 8192
]


def test_what_each_target_receives(tenant: Tenant) -> None:
    queues = []
    for number, case in enumerate(CASES):
        queue = tenant.queue(f"q{number}")
        # What fails comes to the same queue, as a dead letter.
        target = {"Id": "t", "Arn": queue.arn, **case["target"], **to_dead_letters(queue)}
        tenant.rule(f"r{number}", target, pattern={"source": ["shop"]})
        queues.append(queue)
    tenant.put("shop", EVENT["detail"], DetailType=EVENT["detail-type"], Resources=EVENT["resources"])

    dropped = []
    for case, queue in zip(CASES, queues, strict=True):
        if "dropped" in case:
            dropped.append(queue)
            continue
        (message,) = tenant.receive(queue)
        failed = letter(message) if "MessageAttributes" in message else {}
        assert message["Body"] == case["invalid" if "invalid" in case else "sent"], case["name"]
        assert failed.get("ERROR_CODE") == ("INVALID_JSON" if "invalid" in case else None), case["name"]
    assert len(dropped) > 2
    assert [message for queue in dropped for message in tenant.drain(queue)] == []


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in REFUSED])
def test_what_put_targets_refuses(tenant: Tenant, case: dict[str, Any]) -> None:
    tenant.rule("r", {"Id": "one", "Arn": tenant.arn("sqs", "q")})
    with pytest.raises(ClientError) as failed:
        tenant.events.put_targets(Rule="r", Targets=[{"Id": "one", "Arn": tenant.arn("sqs", "q"), **case["target"]}])
    error = failed.value.response["Error"]
    assert (error["Code"], error["Message"]) == ("ValidationException", case["refused"])
    assert tenant.events.list_targets_by_rule(Rule="r")["Targets"] == [{"Id": "one", "Arn": tenant.arn("sqs", "q")}]
