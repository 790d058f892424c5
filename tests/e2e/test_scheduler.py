"""EventBridge Scheduler as its users have it: boto3 and the AWS CLI against a running server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.conftest import MakeClient, Server, StartServer, clean_environment
from tests.e2e.sink import Reply, Sink
from tests.e2e.tenant import Tenant, letter
from tests.e2e.wire import request, until

pytestmark = pytest.mark.xdist_group("e2e_scheduler")

CASES = Path(__file__).parent.parent / "cases" / "errors" / "scheduler.json"
ROLE = "arn:aws:iam::000000000000:role/scheduler"
_accounts = count(430_000_000_001)


def cases() -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in json.loads(CASES.read_text())]


def schedule(target: str, **members: Any) -> dict[str, Any]:
    """A CreateSchedule request; ``target`` is the Arn, ``Target`` further members of it."""
    more = members.pop("Target", {})
    return {
        "Name": "s",
        "ScheduleExpression": "rate(1 hour)",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "Target": {"Arn": target, "RoleArn": ROLE, **more},
        **members,
    }


def at(seconds: float) -> str:
    """The expression of an instant some seconds from now."""
    return f"at({(datetime.now(UTC) + timedelta(seconds=seconds)).strftime('%Y-%m-%dT%H:%M:%S')})"


@pytest.fixture
def account() -> str:
    return str(next(_accounts))


@pytest.fixture
def tenant(aws: MakeClient, server: Server, account: str) -> Tenant:
    return Tenant(aws, at=server, account=account)


@pytest.fixture
def scheduler(aws: MakeClient, account: str) -> Any:
    return aws("scheduler", account=account)


class TestErrors:
    @staticmethod
    def call(client: Any, account: str, operation: str, members: dict[str, Any]) -> Any:
        members = json.loads(json.dumps(members).replace("ACCOUNT", account))
        if operation in ("create_schedule", "update_schedule"):
            target = members.pop("target", {})
            base = schedule(f"arn:aws:sqs:us-east-1:{account}:q", Target=target)
            members = {name: value for name, value in {**base, **members}.items() if value is not None}
            if "Target" in members:
                members["Target"] = {name: value for name, value in members["Target"].items() if value is not None}
        return getattr(client, operation)(**members)

    @pytest.mark.parametrize("case", cases())
    def test_each_error(self, case: dict[str, Any], aws: MakeClient, account: str) -> None:
        client = aws("scheduler", account=account, check=False)
        for operation, members in case.get("before", ()):
            self.call(client, account, operation, members)

        with pytest.raises(ClientError) as failed:
            self.call(client, account, *case["call"])

        response = failed.value.response
        assert response["Error"]["Code"] == case["code"]
        assert response["ResponseMetadata"]["HTTPStatusCode"] == case["status"]
        said = response["Error"]["Message"]
        if "message" in case:
            assert said == case["message"].replace("ACCOUNT", account)
        for part in case.get("contains", ()):
            assert part in said

    def test_an_error_is_of_its_modelled_type(self, scheduler: Any) -> None:
        with pytest.raises(scheduler.exceptions.ResourceNotFoundException) as failed:
            scheduler.get_schedule(Name="absent")
        assert failed.value.response["Message"] == "Schedule absent does not exist."


class TestResources:
    def test_a_schedule_is_shown_with_its_defaults(self, tenant: Tenant, scheduler: Any) -> None:
        queue = tenant.queue("q")
        made = scheduler.create_schedule(**schedule(queue.arn))

        shown = scheduler.get_schedule(Name="s")

        assert made["ScheduleArn"] == tenant.arn("scheduler", "schedule/default/s")
        assert isinstance(shown.pop("CreationDate"), datetime)
        assert isinstance(shown.pop("LastModificationDate"), datetime)
        del shown["ResponseMetadata"]
        assert shown == {
            "Arn": made["ScheduleArn"],
            "Name": "s",
            "GroupName": "default",
            "ScheduleExpression": "rate(1 hour)",
            "ScheduleExpressionTimezone": "UTC",
            "State": "ENABLED",
            "FlexibleTimeWindow": {"Mode": "OFF"},
            "ActionAfterCompletion": "NONE",
            "Target": {
                "Arn": queue.arn,
                "RoleArn": ROLE,
                "RetryPolicy": {"MaximumEventAgeInSeconds": 86400, "MaximumRetryAttempts": 185},
            },
        }

    def test_an_update_replaces_all_members(self, tenant: Tenant, scheduler: Any) -> None:
        queue = tenant.queue("q")
        end = datetime(2040, 1, 1, tzinfo=UTC)
        scheduler.create_schedule(
            **schedule(queue.arn, Description="first", State="DISABLED", EndDate=end, Target={"Input": "1"})
        )
        assert scheduler.get_schedule(Name="s")["EndDate"] == end

        scheduler.update_schedule(**schedule(queue.arn, ScheduleExpression="rate(2 minute)"))

        shown = scheduler.get_schedule(Name="s")
        assert shown["State"] == "ENABLED"
        assert shown["ScheduleExpression"] == "rate(2 minute)"
        assert "Description" not in shown
        assert "EndDate" not in shown
        assert "Input" not in shown["Target"]

    def test_pages_of_schedules_and_groups(self, tenant: Tenant, scheduler: Any) -> None:
        queue = tenant.queue("q")
        for group in ("b", "a"):
            scheduler.create_schedule_group(Name=group)
            for name in ("y", "x"):
                scheduler.create_schedule(**schedule(queue.arn, Name=name, GroupName=group))
        scheduler.create_schedule(**schedule(queue.arn, Name="off", State="DISABLED"))

        def names(**filters: Any) -> list[str]:
            pages = scheduler.get_paginator("list_schedules").paginate(PaginationConfig={"PageSize": 2}, **filters)
            return [f"{each['GroupName']}/{each['Name']}" for page in pages for each in page["Schedules"]]

        assert names() == ["a/x", "a/y", "b/x", "b/y", "default/off"]
        assert names(GroupName="b") == ["b/x", "b/y"]
        assert names(NamePrefix="x") == ["a/x", "b/x"]
        assert names(State="DISABLED") == ["default/off"]
        pages = scheduler.get_paginator("list_schedule_groups").paginate(PaginationConfig={"PageSize": 1})
        assert [group["Name"] for page in pages for group in page["ScheduleGroups"]] == ["a", "b", "default"]
        (found,) = scheduler.list_schedule_groups(NamePrefix="a")["ScheduleGroups"]
        assert (found["Arn"], found["State"]) == (tenant.arn("scheduler", "schedule-group/a"), "ACTIVE")
        summary = scheduler.list_schedules(GroupName="a", MaxResults=1)["Schedules"][0]
        assert summary["Target"] == {"Arn": queue.arn}
        assert set(summary) == {"Arn", "Name", "GroupName", "State", "CreationDate", "LastModificationDate", "Target"}

    def test_a_group_takes_its_schedules_with_it(self, tenant: Tenant, scheduler: Any) -> None:
        queue = tenant.queue("q")
        scheduler.create_schedule_group(Name="g")
        scheduler.create_schedule(**schedule(queue.arn, GroupName="g"))

        scheduler.delete_schedule_group(Name="g")

        with pytest.raises(scheduler.exceptions.ResourceNotFoundException):
            scheduler.get_schedule_group(Name="g")
        with pytest.raises(scheduler.exceptions.ResourceNotFoundException):
            scheduler.get_schedule(Name="s", GroupName="g")
        scheduler.create_schedule_group(Name="g")
        assert scheduler.list_schedules(GroupName="g")["Schedules"] == []

    def test_tags_of_a_group(self, tenant: Tenant, scheduler: Any) -> None:
        arn = scheduler.create_schedule_group(Name="g", Tags=[{"Key": "a", "Value": "1"}])["ScheduleGroupArn"]
        scheduler.tag_resource(ResourceArn=arn, Tags=[{"Key": "b c/d", "Value": "2"}, {"Key": "e", "Value": "ü"}])
        scheduler.untag_resource(ResourceArn=arn, TagKeys=["a", "b c/d"])
        assert scheduler.list_tags_for_resource(ResourceArn=arn)["Tags"] == [{"Key": "e", "Value": "ü"}]
        assert scheduler.get_schedule_group(Name="g")["State"] == "ACTIVE"

    def test_the_same_client_token_is_answered_alike(self, tenant: Tenant, scheduler: Any) -> None:
        wanted = schedule(tenant.queue("q").arn, ClientToken="once")
        first = scheduler.create_schedule(**wanted)["ScheduleArn"]
        assert scheduler.create_schedule(**wanted)["ScheduleArn"] == first
        with pytest.raises(scheduler.exceptions.ConflictException):
            scheduler.create_schedule(**{**wanted, "ClientToken": "twice"})
        for _ in range(2):
            scheduler.delete_schedule(Name="s", ClientToken="gone")
        with pytest.raises(scheduler.exceptions.ResourceNotFoundException):
            scheduler.delete_schedule(Name="s", ClientToken="other")


class TestFiring:
    def test_a_one_time_schedule_fires_and_goes(self, tenant: Tenant, scheduler: Any) -> None:
        queue = tenant.queue("q")
        text = '{"at":"<aws.scheduler.scheduled-time>","of":"<aws.scheduler.schedule-arn>"}'
        when = at(1)
        arn = scheduler.create_schedule(
            **schedule(queue.arn, ScheduleExpression=when, ActionAfterCompletion="DELETE", Target={"Input": text})
        )["ScheduleArn"]

        (message,) = tenant.receive(queue)

        assert json.loads(message["Body"]) == {"at": f"{when[3:-1]}Z", "of": arn}

        def gone() -> bool:
            return scheduler.list_schedules()["Schedules"] == []

        until(gone, "the schedule's end")

    def test_a_rate_begins_at_once_with_the_default_notification(self, tenant: Tenant, scheduler: Any) -> None:
        queue = tenant.queue("q")
        arn = scheduler.create_schedule(**schedule(queue.arn))["ScheduleArn"]

        (message,) = tenant.receive(queue)

        event = json.loads(message["Body"])
        assert (event["source"], event["detail-type"], event["detail"]) == ("aws.scheduler", "Scheduled Event", "{}")
        assert event["resources"] == [arn]
        assert event["account"] == tenant.account

    def test_a_bus_gets_an_event(self, tenant: Tenant, scheduler: Any) -> None:
        queue = tenant.queue("q")
        tenant.rule("nightly", {"Id": "q", "Arn": queue.arn})
        parameters = {"EventBridgeParameters": {"Source": "nightly", "DetailType": "Close"}}
        arn = scheduler.create_schedule(
            **schedule(tenant.arn("events", "event-bus/default"), Target={"Input": '{"books":true}', **parameters})
        )["ScheduleArn"]

        (message,) = tenant.receive(queue)

        event = json.loads(message["Body"])
        assert (event["source"], event["detail-type"], event["detail"]) == ("nightly", "Close", {"books": True})
        assert event["resources"] == [arn]

    def test_a_webhook_is_retried_and_dead_lettered(self, tenant: Tenant, scheduler: Any, sink: Sink) -> None:
        letters = tenant.queue("letters")
        sink.answer = lambda post: Reply(503)
        text = '{"attempt":"<aws.scheduler.attempt-number>","id":"<aws.scheduler.execution-id>"}'
        rest = {
            "Input": text,
            "RetryPolicy": {"MaximumRetryAttempts": 1},
            "DeadLetterConfig": {"Arn": letters.arn},
        }
        when = at(0)
        arn = scheduler.create_schedule(**schedule(sink.url, ScheduleExpression=when, Target=rest))["ScheduleArn"]

        (message,) = tenant.receive(letters)

        posts = sink.wait_for(2)
        assert [post.event["attempt"] for post in posts] == ["1", "2"]
        (execution,) = {post.event["id"] for post in posts}
        assert len(execution) == 16
        assert len({post.headers["webhook-id"] for post in posts}) == 1
        assert letter(message) == {
            "SCHEDULE_ARN": arn,
            "TARGET_ARN": sink.url,
            "SCHEDULED_TIME": f"{when[3:-1]}Z",
            "EXECUTION_ID": execution,
            "ERROR_CODE": "ERROR_FROM_TARGET",
            "ERROR_MESSAGE": f"{sink.url[:-1]} answered with HTTP status 503.",
            "EXHAUSTED_RETRY_CONDITION": "MaximumRetryAttempts",
            "RETRY_ATTEMPTS": "1",
            "IS_PAYLOAD_TRUNCATED": "false",
        }

    def test_a_queue_that_is_not_there_is_final(self, tenant: Tenant, scheduler: Any) -> None:
        letters = tenant.queue("letters")
        scheduler.create_schedule(
            **schedule(tenant.arn("sqs", "absent"), Target={"DeadLetterConfig": {"Arn": letters.arn}, "Input": "hello"})
        )
        (message,) = tenant.receive(letters)
        said = letter(message)
        assert message["Body"] == "hello"
        assert said["ERROR_CODE"] == "AWS.SimpleQueueService.NonExistentQueue"
        assert said["TARGET_ARN"] == "arn:aws:scheduler:::aws-sdk:sqs:sendMessage"
        assert said["RETRY_ATTEMPTS"] == "0"
        assert "EXHAUSTED_RETRY_CONDITION" not in said

    def test_a_dead_letter_is_redriven_to_its_schedule(self, tenant: Tenant, scheduler: Any, server: Server) -> None:
        letters = tenant.queue("letters")
        absent = tenant.arn("sqs", "later")
        scheduler.create_schedule(
            **schedule(absent, Target={"DeadLetterConfig": {"Arn": letters.arn}, "Input": "hello"})
        )
        until(
            lambda: (
                tenant.sqs.get_queue_attributes(QueueUrl=letters.url, AttributeNames=["ApproximateNumberOfMessages"])[
                    "Attributes"
                ]["ApproximateNumberOfMessages"]
                == "1"
            ),
            "the dead letter",
        )
        later = tenant.queue("later")

        body = json.dumps({"Queue": letters.arn}).encode()
        answer = request(server.url, "POST", "/_bus/dead-letters/redrive", body=body)

        assert answer.status == 200, answer.body
        assert tenant.receive(later)[0]["Body"] == "hello"

    def test_universal_targets_call_this_bus_itself(self, tenant: Tenant, scheduler: Any) -> None:
        queue = tenant.queue("q.fifo", FifoQueue="true")
        made = {
            "QueueUrl": queue.url,
            "MessageBody": "<aws.scheduler.execution-id>",
            "MessageGroupId": "g",
            "MessageDeduplicationId": "<aws.scheduler.scheduled-time>",
        }
        scheduler.create_schedule(
            **schedule("arn:aws:scheduler:::aws-sdk:sqs:sendMessage", Target={"Input": json.dumps(made)})
        )
        (message,) = tenant.receive(queue)
        assert len(message["Body"]) == 16
        assert message["Attributes"]["MessageGroupId"] == "g"

    def test_a_universal_call_that_fails_is_dead_lettered(self, tenant: Tenant, scheduler: Any) -> None:
        letters = tenant.queue("letters")
        call = json.dumps({"Name": "absent"})
        scheduler.create_schedule(
            **schedule(
                "arn:aws:scheduler:::aws-sdk:eventbridge:enableRule",
                Target={"Input": call, "DeadLetterConfig": {"Arn": letters.arn}},
            )
        )
        said = letter(tenant.receive(letters)[0])
        assert said["ERROR_CODE"] == "ResourceNotFoundException"
        assert said["ERROR_MESSAGE"] == "Rule absent does not exist on EventBus default."

    def test_a_wire_stands_in_for_a_function(self, tenant: Tenant, scheduler: Any, server: Server, sink: Sink) -> None:
        function = tenant.arn("lambda", "function:nightly")
        body = json.dumps({"Arn": function, "Url": sink.url}).encode()
        assert request(server.url, "PUT", "/_bus/wires", body=body).status == 200
        scheduler.create_schedule(**schedule(function, Target={"Input": '{"job":1}'}))
        (post,) = sink.wait_for(1)
        assert post.event == {"job": 1}


class TestCommandLine:
    @staticmethod
    def aws_cli(server: Server, *words: str) -> Any:
        environment = {
            **clean_environment(),
            "AWS_ACCESS_KEY_ID": "440000000001",
            "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "PATH": os.environ["PATH"],
        }
        command = ["aws", "--endpoint-url", server.url, "--output", "json", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        return json.loads(done.stdout) if done.returncode == 0 and done.stdout else (done.returncode, done.stderr)

    def test_the_aws_cli(self, server: Server) -> None:
        target = json.dumps({"Arn": "arn:aws:lambda:us-east-1:440000000001:function:f", "RoleArn": ROLE})
        made = self.aws_cli(
            server, "scheduler", "create-schedule", "--name", "cli", "--schedule-expression", "cron(0 3 * * ? *)",
            "--schedule-expression-timezone", "Europe/Berlin", "--flexible-time-window", "Mode=OFF",
            "--start-date", "2090-01-01T00:00:00Z", "--target", target,
        )  # fmt: skip
        assert made == {"ScheduleArn": "arn:aws:scheduler:us-east-1:440000000001:schedule/default/cli"}
        shown = self.aws_cli(server, "scheduler", "get-schedule", "--name", "cli")
        assert shown["ScheduleExpressionTimezone"] == "Europe/Berlin"
        assert shown["StartDate"] == datetime(2090, 1, 1, tzinfo=UTC).timestamp()
        status, said = self.aws_cli(server, "scheduler", "delete-schedule-group", "--name", "default")
        assert status != 0
        assert "(ValidationException) when calling the DeleteScheduleGroup operation" in said


class TestDurability:
    def test_what_was_due_while_the_server_was_dead_fires_after(
        self, start_server: StartServer, aws: MakeClient
    ) -> None:
        server = start_server()
        tenant = Tenant(aws, at=server)
        scheduler = aws("scheduler", at=server, account=tenant.account)
        queue = tenant.queue("q")
        names = [f"s{n}" for n in range(20)]
        for name in names:
            text = json.dumps({"name": name, "id": "<aws.scheduler.execution-id>"})
            once = {"ScheduleExpression": at(1), "ActionAfterCompletion": "DELETE"}
            scheduler.create_schedule(**schedule(queue.arn, Name=name, Target={"Input": text}, **once))
        server.kill()
        server.start()

        until(lambda: scheduler.list_schedules()["Schedules"] == [], "the end of all schedules")

        found = [json.loads(message["Body"]) for message in tenant.drain(queue)]
        assert {each["name"] for each in found} == set(names)
        assert len({each["id"] for each in found}) == len(names)

    def test_a_schedule_that_has_fired_does_not_fire_again(self, start_server: StartServer, aws: MakeClient) -> None:
        server = start_server()
        tenant = Tenant(aws, at=server)
        scheduler = aws("scheduler", at=server, account=tenant.account)
        queue = tenant.queue("q")
        scheduler.create_schedule(**schedule(queue.arn))
        tenant.receive(queue)
        server.kill()
        server.start()
        scheduler.create_schedule(**schedule(queue.arn, Name="other", ScheduleExpression=at(0), Target={"Input": "2"}))
        assert [message["Body"] for message in tenant.receive(queue)] == ["2"]
        assert scheduler.get_schedule(Name="s")["State"] == "ENABLED"


class TestAccess:
    KEYS: tuple[dict[str, Any], ...] = (
        {"access_key": "AKIDALL", "secret": "all", "account": "111122223333"},
        {
            "access_key": "AKIDSCHEDULER",
            "secret": "some",
            "account": "111122223333",
            "actions": ["scheduler:*", "sqs:SendMessage"],
        },
        {"access_key": "AKIDNONE", "secret": "none", "account": "111122223333", "actions": ["events:PutEvents"]},
    )

    def test_calls_are_signed_and_allowed(self, start_server: StartServer, tmp_path: Path) -> None:
        keys = tmp_path / "keys.json"
        keys.write_text(json.dumps(self.KEYS))
        keys.chmod(0o600)
        server = start_server(credentials=keys)

        def client(access_key: str, secret: str) -> Any:
            return boto3.client(
                "scheduler", endpoint_url=server.url, region_name="us-east-1", aws_access_key_id=access_key,
                aws_secret_access_key=secret, config=Config(retries={"total_max_attempts": 1}),
            )  # fmt: skip

        def refusal(attempt: Any) -> tuple[str, int]:
            with pytest.raises(ClientError) as failed:
                attempt()
            return failed.value.response["Error"]["Code"], failed.value.response["ResponseMetadata"]["HTTPStatusCode"]

        everything, some = client("AKIDALL", "all"), client("AKIDSCHEDULER", "some")
        arn = everything.create_schedule_group(Name="a.b-c_d", Tags=[{"Key": "k", "Value": "v"}])["ScheduleGroupArn"]
        assert everything.list_tags_for_resource(ResourceArn=arn)["Tags"] == [{"Key": "k", "Value": "v"}]
        everything.untag_resource(ResourceArn=arn, TagKeys=["k", "a b/c"])
        assert everything.list_schedules(GroupName="a.b-c_d", NamePrefix="x", MaxResults=3)["Schedules"] == []

        assert refusal(client("AKIDALL", "wrong").list_schedules) == ("InvalidSignatureException", 403)
        assert refusal(client("AKIDNONE", "none").list_schedules) == ("AccessDeniedException", 403)

        def universal(api: str) -> dict[str, Any]:
            return schedule(f"arn:aws:scheduler:::aws-sdk:{api}", State="DISABLED", Target={"Input": "{}"})

        some.create_schedule(**universal("sqs:sendMessage"))
        assert refusal(lambda: some.update_schedule(**universal("eventbridge:deleteRule"))) == (
            "AccessDeniedException", 403,
        )  # fmt: skip
        everything.update_schedule(**universal("eventbridge:deleteRule"))


def test_the_command_line_lists_letters_of_schedules(tenant: Tenant, scheduler: Any, server: Server) -> None:
    letters = tenant.queue("letters")
    absent = tenant.arn("sqs", "absent")
    scheduler.create_schedule(**schedule(absent, Target={"DeadLetterConfig": {"Arn": letters.arn}}))
    command = [sys.executable, "-m", "bus", "dlq", "list", "--endpoint-url", server.url, "--queue", letters.arn]

    def listed() -> str:
        return subprocess.run(
            command, env=clean_environment(), capture_output=True, text=True, timeout=120, check=True
        ).stdout

    line = until(listed, "the letter")
    assert " AWS.SimpleQueueService.NonExistentQueue  default/s -> arn:aws:scheduler:::aws-sdk:sqs:sendMessage " in line


def test_universal_targets_call_aws_where_there_is_one(start_server: StartServer, aws: MakeClient, sink: Sink) -> None:
    server = start_server(aws_endpoint_url=sink.url)
    tenant = Tenant(aws, at=server)
    scheduler = aws("scheduler", at=server, account=tenant.account)
    machine = tenant.arn("states", "stateMachine:m")
    request = {"StateMachineArn": machine, "Input": '{"id":"<aws.scheduler.execution-id>"}', "Name": "nightly"}
    scheduler.create_schedule(
        **schedule("arn:aws:scheduler:::aws-sdk:sfn:startExecution", Target={"Input": json.dumps(request)})
    )

    (post,) = sink.wait_for(1)

    assert post.headers["x-amz-target"] == "AWSStepFunctions.StartExecution"
    assert (post.event["stateMachineArn"], post.event["name"]) == (machine, "nightly")
    assert len(json.loads(post.event["input"])["id"]) == 16
    assert f"Credential={tenant.account}/" in post.headers["authorization"]
