"""The commands of the README's first screen, as they stand there, through the AWS CLI and the same through boto3."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.sink import Reply, Sink
from tests.e2e.tenant import Tenant, letter, to_dead_letters

pytestmark = pytest.mark.xdist_group("e2e_readme")

ACCOUNT = "000000000000"
BUS, HOOK = "http://127.0.0.1:4010", "http://127.0.0.1:9000/"
"""Where the README's bus and webhook are; the test's own are elsewhere."""

AWS = "aws --endpoint-url http://127.0.0.1:4010 "
PUT_RULE = AWS + """events put-rule --name orders --event-pattern '{"source":["shop"]}'"""
PUT_TARGETS = AWS + "events put-targets --rule orders --targets 'Id=hook,Arn=http://127.0.0.1:9000/orders'"
PUT_EVENTS = (
    AWS + """events put-events --entries '[{"Source":"shop","DetailType":"OrderPlaced","Detail":"{\\"id\\":1}"}]'"""
)
RECEIVE = AWS + "sqs receive-message --queue-url http://127.0.0.1:4010/000000000000/dead-letters"
DEAD_LETTERS = (
    "Id=hook,Arn=http://127.0.0.1:9000/orders,DeadLetterConfig={Arn=arn:aws:sqs:us-east-1:000000000000:dead-letters}"
)


class Shell:
    """Runs README commands against a server and a webhook of the test."""

    def __init__(self, server: Any, sink: Sink) -> None:
        self._replace = {BUS: server.url, HOOK: sink.url}
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        self._environment = {
            **clean,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def __call__(self, command: str) -> Any:
        """What the command prints, as JSON; None when it prints nothing."""
        for shown, meant in self._replace.items():
            command = command.replace(shown, meant)
        done = subprocess.run(
            ["sh", "-c", command], capture_output=True, text=True, env=self._environment, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else None


def test_the_cli_puts_a_rule_a_target_and_an_event_that_arrives(server: Any, sink: Sink) -> None:
    shell = Shell(server, sink)

    assert shell(PUT_RULE) == {"RuleArn": f"arn:aws:events:us-east-1:{ACCOUNT}:rule/orders"}
    assert shell(PUT_TARGETS) == {"FailedEntryCount": 0, "FailedEntries": []}
    answer = shell(PUT_EVENTS)

    (entry,) = answer["Entries"]
    post = sink.next()
    assert answer["FailedEntryCount"] == 0
    assert post.path == "/orders"
    assert post.event["id"] == entry["EventId"]
    assert post.event["detail"] == {"id": 1}
    assert shell(RECEIVE) is None, "nothing failed, so nothing is dead-lettered"


def test_the_cli_receives_the_dead_letter_of_a_webhook_that_refuses(server: Any, sink: Sink) -> None:
    shell = Shell(server, sink)
    sink.answer = lambda post: Reply(410)

    shell(PUT_RULE)
    shell(PUT_TARGETS.replace("Id=hook,Arn=http://127.0.0.1:9000/orders", DEAD_LETTERS))
    (entry,) = shell(PUT_EVENTS)["Entries"]
    (message,) = shell(RECEIVE + " --wait-time-seconds 20 --message-attribute-names All")["Messages"]

    assert json.loads(message["Body"])["id"] == entry["EventId"]
    assert message["MessageAttributes"]["RULE_ARN"]["StringValue"].endswith(":rule/orders")
    assert message["MessageAttributes"]["TARGET_ARN"]["StringValue"] == sink.url + "orders"


def test_boto3_does_the_same(server: Any, aws: Any, sink: Sink) -> None:
    owner = Tenant(aws, at=server, account=ACCOUNT)
    letters = owner.queue("dead-letters")
    sink.answer = lambda post: Reply(200 if post.event["detail"]["id"] == 1 else 404)

    owner.rule("boto-orders", {"Id": "hook", "Arn": sink.url + "orders", **to_dead_letters(letters)})
    taken, refused = owner.put("boto-orders", {"id": 1}), owner.put("boto-orders", {"id": 2})

    assert {post.event["id"] for post in sink.wait_for(2)} == {taken, refused}
    (message,) = owner.receive(letters)
    assert json.loads(message["Body"])["id"] == refused
    assert letter(message)["ERROR_CODE"] == "SDK_CLIENT_ERROR"


@pytest.mark.parametrize("command", [PUT_RULE, PUT_TARGETS, PUT_EVENTS, RECEIVE])
def test_the_readme_shows_the_command(command: str) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")

    assert " ".join(command.split()) in " ".join(readme.replace("\\\n", " ").split())
