"""Schedule rules from outside: what PutRule takes, what `busbar` shows, and events of a process with a real clock.

No test waits for a minute to pass. A bus inside the test makes the rule while its clock shows an earlier time; the
server that then opens the same data directory finds the rule due, or due in a moment.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from bus.app import open_app
from bus.clock import ManualClock
from bus.config import Settings
from bus.scope import Call, Scope
from tests.conftest import ACCOUNT, REGION, MakeClient, Server, StartServer
from tests.e2e.tenant import Tenant
from tests.e2e.test_cli import busbar, invoke
from tests.e2e.wire import request

pytestmark = pytest.mark.xdist_group("e2e_schedules")

CASES = Path(__file__).parent.parent / "cases" / "schedules"
HERE = Call(Scope(ACCOUNT, REGION))
QUEUE = f"arn:aws:sqs:{REGION}:{ACCOUNT}:q"


def prepare(data_dir: Path, expression: str, *, seconds_ago: float) -> None:
    """Make a rule with the schedule and a queue as its target, as if some time ago."""

    async def make() -> None:
        app = await open_app(Settings(data_dir=str(data_dir)), ManualClock(int((time.time() - seconds_ago) * 1000)))
        await app.queues.create_queue(HERE, {"QueueName": "q"})
        await app.catalog.put_rule(HERE, {"Name": "r", "ScheduleExpression": expression})
        await app.catalog.put_targets(HERE, {"Rule": "r", "Targets": [{"Id": "t", "Arn": QUEUE}]})
        await app.close()

    asyncio.run(make())


def receive(sqs: Any, *, wait: int = 20) -> list[dict[str, Any]]:
    """The events in the queue, waited for and taken out."""
    url = sqs.get_queue_url(QueueName="q")["QueueUrl"]
    messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=wait).get("Messages", [])
    for message in messages:
        sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return [json.loads(message["Body"]) for message in messages]


class TestPutRule:
    @pytest.mark.parametrize("text", json.loads((CASES / "accepted.json").read_text()))
    def test_what_is_accepted_is_shown_as_it_was_given(self, tenant: Tenant, text: str) -> None:
        tenant.events.put_rule(Name="r", ScheduleExpression=text)
        described = tenant.events.describe_rule(Name="r")
        assert (described["ScheduleExpression"], described["State"]) == (text, "ENABLED")
        assert "EventPattern" not in described

    @pytest.mark.parametrize("text", json.loads((CASES / "refused.json").read_text()))
    def test_what_is_refused_changes_nothing(self, tenant: Tenant, text: str) -> None:
        with pytest.raises(ClientError) as refused:
            tenant.events.put_rule(Name="r", ScheduleExpression=text)
        error = refused.value.response["Error"]
        assert (error["Code"], error["Message"]) == (
            "ValidationException",
            "Parameter ScheduleExpression is not valid.",
        )
        assert tenant.events.list_rules()["Rules"] == []

    def test_the_next_instant_follows_the_rule(self, server: Server, tenant: Tenant) -> None:
        def shown() -> Any:
            rules = request(server.url, path="/_bus/rules").json["Rules"]
            (rule,) = [rule for rule in rules if rule["Account"] == tenant.account]
            return rule.get("NextDue")

        tenant.events.put_rule(Name="r", ScheduleExpression="cron(30 8 24 12 ? 2199)")
        assert shown() == "2199-12-24T08:30:00Z"
        tenant.events.disable_rule(Name="r")
        assert shown() is None
        tenant.events.enable_rule(Name="r")
        assert shown() == "2199-12-24T08:30:00Z"
        tenant.events.put_rule(Name="r", ScheduleExpression="cron(0 0 31 FEB ? *)")
        assert shown() is None


class TestFiring:
    def test_the_timer_fires(self, start_server: StartServer, aws: MakeClient, tmp_path: Path) -> None:
        prepare(tmp_path / "data", "rate(1 minute)", seconds_ago=58)
        server = start_server(data_dir=tmp_path / "data")
        (event,) = receive(aws("sqs", at=server))
        assert event["resources"] == [f"arn:aws:events:{REGION}:{ACCOUNT}:rule/r"]
        assert (event["source"], event["detail-type"], event["detail"]) == ("aws.events", "Scheduled Event", {})

    def test_what_was_missed_is_made_up_for_once_and_survives_kill(
        self, start_server: StartServer, aws: MakeClient, tmp_path: Path
    ) -> None:
        prepare(tmp_path / "data", "rate(1 hour)", seconds_ago=5 * 3600 + 60)
        server = start_server(data_dir=tmp_path / "data")
        assert len(receive(aws("sqs", at=server))) == 1
        metrics = request(server.url, path="/metrics").body.decode()
        assert "\nScheduledEvents_total 1.0\n" in metrics
        assert "\nMissedSchedules_total 4.0\n" in metrics
        server.kill()
        server.start()
        assert receive(aws("sqs", at=server), wait=0) == []
        assert "\nScheduledEvents_total 0.0\n" in request(server.url, path="/metrics").body.decode()

    def test_the_next_instant_is_a_column_of_rules(self, start_server: StartServer, aws: MakeClient) -> None:
        server = start_server()
        events = aws("events", at=server)
        events.put_rule(Name="shop", EventPattern='{"source":["shop"]}')
        assert "NEXT" not in busbar("rules", BUSBAR_ENDPOINT_URL=server.url).stdout
        events.put_rule(Name="yearly", ScheduleExpression="cron(0 0 1 1 ? 2199)")
        title, shop, yearly = busbar("rules", BUSBAR_ENDPOINT_URL=server.url).stdout.splitlines()
        column = title.index("NEXT")
        assert (shop[column:].split()[0], yearly[column:].split()[0]) == ("-", "2199-01-01T00:00:00Z")


class TestCommand:
    """`busbar schedule`, which needs no server."""

    def test_the_next_instants(self) -> None:
        ended = invoke("schedule", "cron(0 9 ? * MON-FRI *)", "--since", "2030-03-01T09:00", "--count", "2")
        assert (ended.returncode, ended.stdout) == (
            0,
            "2030-03-04T09:00:00+00:00  Mon\n2030-03-05T09:00:00+00:00  Tue\n",
        )

    def test_a_zone(self) -> None:
        words = ("--zone", "Europe/Berlin", "--since", "2030-03-30", "--count", "2")
        assert invoke("schedule", "cron(30 2 * * ? *)", *words).stdout == (
            "2030-03-30T02:30:00+01:00  Sat\n2030-04-01T02:30:00+02:00  Mon\n"
        )

    def test_a_rate_counts_from_its_start(self) -> None:
        assert invoke("schedule", "rate(90 minutes)", "--since", "2030-01-01T10:00+02:00", "--count", "1").stdout == (
            "2030-01-01T09:30:00+00:00  Tue\n"
        )

    def test_now_is_the_start_unless_told(self) -> None:
        ended = invoke("schedule", "rate(1 minute)")
        assert (ended.returncode, len(ended.stdout.splitlines())) == (0, 10)

    def test_a_point_in_time(self) -> None:
        words = ("schedule", "at(2030-06-01T12:00:00)", "--zone", "Asia/Kolkata", "--since", "2030-01-01")
        assert invoke(*words).stdout == "2030-06-01T12:00:00+05:30  Sat\n"

    def test_never(self) -> None:
        ended = invoke("schedule", "cron(0 0 31 FEB ? *)")
        assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", "never\n")

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (("cron(60 0 * * ? *)",), "'60' is not a minute: 0 to 59"),
            (("cron(0 0 * * MON *)",), "only one"),
            (("rate(1 minutes)",), "minute, hour or day for 1"),
            (("every day",), "rate(VALUE UNIT), cron(FIELDS) or, in EventBridge Scheduler, at(TIME)"),
            (("AT(2030-01-01T00:00:00)",), "at(TIME), in lower case"),
            (("at(tomorrow)",), "at(yyyy-mm-ddThh:mm:ss)"),
            (("rate(1 day)", "--zone", "Berlin"), "there is no time zone 'Berlin'"),
            (("rate(1 day)", "--zone", "../../etc/passwd"), "there is no time zone"),
            (("rate(1 day)", "--zone", "Europe"), "there is no time zone"),
            (("rate(1 day)", "--since", "soon"), "'soon' is not a time"),
            (("rate(1 day)", "--since", "1969-12-31"), "is not a time since 1970"),
            (("rate(1 day)", "--since", "0001-01-01"), "is not a time since 1970"),
            (("rate(1 day)", "--count", "0"), "0 is not in the range"),
        ],
    )
    def test_mistakes(self, words: tuple[str, ...], says: str) -> None:
        ended = invoke("schedule", *words)
        assert ended.returncode == 2
        assert says in ended.stderr

    @pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"])
    @pytest.mark.parametrize("since", ["1970-01-02", "9999-12-31T23:59"])
    @pytest.mark.parametrize("expression", ["rate(1 minute)", "cron(* * * * ? *)", "at(9999-12-31T23:59:59)"])
    def test_the_ends_of_the_calendar(self, expression: str, since: str, zone: str) -> None:
        assert invoke("schedule", expression, "--since", since, "--zone", zone).returncode in (0, 1)
