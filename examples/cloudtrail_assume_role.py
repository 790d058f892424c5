"""The rule for AssumeRole from AWS's documentation, over a log file of CloudTrail.

AssumeRole only reads, as its records say. Rules in the plain state ENABLED do not receive such calls; those in
ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS do.

python -m examples.cloudtrail_assume_role
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from uuid import uuid4

from examples.running import Webhook, client, endpoint

ASSUME_ROLE = {
    "source": ["aws.sts"],
    "detail-type": ["AWS API Call via CloudTrail"],
    "detail": {"eventName": ["AssumeRole"]},
}
STATES = {"plain": "ENABLED", "every": "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS"}


def record(service: str, name: str, user: str, **members: Any) -> dict[str, Any]:
    """A record as CloudTrail writes it, of a management call that only reads."""
    return {
        "eventVersion": "1.09",
        "userIdentity": {"type": "IAMUser", "accountId": "111122223333", "userName": user},
        "eventTime": "2026-03-02T09:15:27Z",
        "eventSource": f"{service}.amazonaws.com",
        "eventName": name,
        "awsRegion": "us-east-1",
        "eventID": str(uuid4()),
        "readOnly": True,
        "eventType": "AwsApiCall",
        "managementEvent": True,
        "recipientAccountId": "111122223333",
        "eventCategory": "Management",
        **members,
    }


def role(name: str) -> dict[str, Any]:
    """What the record of an AssumeRole says about the role."""
    arn = f"arn:aws:iam::111122223333:role/{name}"
    return {"resources": [{"accountId": "111122223333", "type": "AWS::IAM::Role", "ARN": arn}]}


RECORDS = [
    record("sts", "AssumeRole", "alice", **role("deploy")),
    record("ec2", "DescribeInstances", "alice"),
    record("sts", "AssumeRole", "bob", **role("audit")),
    record("s3", "PutBucketPolicy", "bob", readOnly=False),
]


def main() -> None:
    with endpoint() as url, Webhook() as webhook, tempfile.TemporaryDirectory() as directory:
        events = client("events", url)
        for name, state in STATES.items():
            events.put_rule(Name=f"assume-role-{name}", EventPattern=json.dumps(ASSUME_ROLE), State=state)
            target = {"Id": "hook", "Arn": f"{webhook.url}/{name}"}
            events.put_targets(Rule=f"assume-role-{name}", Targets=[target])

        file = Path(directory, "111122223333_CloudTrail_us-east-1_20260302T0920Z_x7Kc.json.gz")
        file.write_bytes(gzip.compress(json.dumps({"Records": RECORDS}).encode()))
        command = [sys.executable, "-m", "bus", "cloudtrail", "--endpoint-url", url, str(file)]
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())

        arrived = [webhook.next() for _ in range(2)]
        for each in sorted(arrived, key=lambda each: each.event["resources"], reverse=True):
            who = each.event["detail"]["userIdentity"]["userName"]
            print(f"{each.path}: AssumeRole of {each.event['resources'][0]} by {who}")
        assert {each.path for each in arrived} == {"/every"}
        print("/plain: the state ENABLED alone receives none of them")

        for name in STATES:
            events.remove_targets(Rule=f"assume-role-{name}", Ids=["hook"])
            events.delete_rule(Name=f"assume-role-{name}")


if __name__ == "__main__":
    main()
