"""Partner event sources through boto3: the events of one account's partner on another account's bus."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.conftest import Server, StartServer
from tests.e2e.sink import Sink
from tests.e2e.tenant import Queue, Tenant, letter, to_dead_letters
from tests.e2e.wire import call, request, scrape, until

pytestmark = pytest.mark.xdist_group("e2e_partners")

_names = count(1)


@pytest.fixture
def name() -> str:
    """A source's name that no other test uses."""
    return f"aws.partner/example.com/orders/{next(_names)}"


@pytest.fixture
def partner(server: Server, aws: Any) -> Tenant:
    return Tenant(aws, at=server)


def offer(partner: Tenant, name: str, *, to: Tenant) -> str:
    return str(partner.events.create_partner_event_source(Name=name, Account=to.account)["EventSourceArn"])


def accept(customer: Tenant, name: str) -> Queue:
    """Make the bus of a source, with a rule on it that sends everything to a queue."""
    customer.events.create_event_bus(Name=name, EventSourceName=name)
    queue = customer.queue("from-partner")
    customer.rule("all", {"Id": "t", "Arn": queue.arn}, pattern={"source": [{"prefix": "aws.partner"}]}, bus=name)
    return queue


def put(partner: Tenant, name: str, *details: Any) -> list[str]:
    entries = [{"Source": name, "DetailType": "Order", "Detail": json.dumps(detail)} for detail in details]
    answer = partner.events.put_partner_events(Entries=entries)
    assert answer["FailedEntryCount"] == 0, answer
    return [entry["EventId"] for entry in answer["Entries"]]


def state(customer: Tenant, name: str) -> str:
    return str(customer.events.describe_event_source(Name=name)["State"])


def bodies(messages: list[Any]) -> list[Any]:
    return [json.loads(message["Body"]) for message in messages]


def test_from_a_partner_to_its_customer(partner: Tenant, tenant: Tenant, name: str) -> None:
    assert offer(partner, name, to=tenant) == f"arn:aws:events:us-east-1::event-source/{name}"
    (source,) = tenant.events.list_event_sources(NamePrefix=name)["EventSources"]
    assert (source["State"], source["CreatedBy"]) == ("PENDING", "aws.partner/example.com")
    assert (source["ExpirationTime"] - source["CreationTime"]).days == 14
    queue = accept(tenant, name)
    assert state(tenant, name) == "ACTIVE"

    (event_id,) = put(partner, name, {"total": 1.50})

    (event,) = bodies(tenant.receive(queue))
    assert event.pop("time").endswith("Z")
    assert event == {
        "version": "0", "id": event_id, "detail-type": "Order", "source": name, "account": tenant.account,
        "region": "us-east-1", "resources": [], "detail": {"total": 1.5},
    }  # fmt: skip
    assert tenant.events.describe_event_bus(Name=name)["Arn"] == tenant.arn("events", f"event-bus/{name}")
    (account,) = partner.events.list_partner_event_source_accounts(EventSourceName=name)["PartnerEventSourceAccounts"]
    assert (account["Account"], account["State"]) == (tenant.account, "ACTIVE")


def test_what_is_sent_while_pending_is_lost(partner: Tenant, tenant: Tenant, server: Server, name: str) -> None:
    lost = "DroppedPendingSource_total"
    before = scrape(server.url).get(lost, 0)
    offer(partner, name, to=tenant)
    put(partner, name, {"n": 1}, {"n": 2})
    queue = accept(tenant, name)
    put(partner, name, {"n": 3})
    tenant.events.deactivate_event_source(Name=name)
    assert state(tenant, name) == "PENDING"
    put(partner, name, {"n": 4})
    tenant.events.activate_event_source(Name=name)
    put(partner, name, {"n": 5})

    assert [event["detail"]["n"] for event in bodies(tenant.receive(queue, 2))] == [3, 5]
    assert scrape(server.url)[lost] == before + 3


def test_a_deleted_source_leaves_its_bus(partner: Tenant, tenant: Tenant, name: str) -> None:
    offer(partner, name, to=tenant)
    queue = accept(tenant, name)
    partner.events.delete_partner_event_source(Name=name, Account=tenant.account)
    assert state(tenant, name) == "DELETED"
    entry = {"Source": name, "DetailType": "Order", "Detail": "{}"}
    (result,) = partner.events.put_partner_events(Entries=[entry])["Entries"]
    assert result == {
        "ErrorCode": "NotAuthorizedForSourceException", "ErrorMessage": "Not authorized for the source."
    }  # fmt: skip
    assert tenant.events.describe_event_bus(Name=name)["Name"] == name
    assert tenant.drain(queue) == []

    tenant.events.remove_targets(Rule="all", EventBusName=name, Ids=["t"])
    tenant.events.delete_rule(Name="all", EventBusName=name)
    tenant.events.delete_event_bus(Name=name)
    assert tenant.events.list_event_sources()["EventSources"] == []


def test_results_stand_in_the_order_of_entries(partner: Tenant, tenant: Tenant, name: str) -> None:
    offer(partner, name, to=tenant)
    queue = accept(tenant, name)
    good = [{"Source": name, "DetailType": "Order", "Detail": json.dumps({"n": n})} for n in range(17)]
    bad: list[dict[str, Any]] = [
        {**good[0], "Detail": "[]"},
        {"Source": name, "Detail": "{}"},
        {**good[0], "Source": name + "/other"},
    ]
    entries = [*good[:5], bad[0], *good[5:10], bad[1], *good[10:], bad[2]]
    answer = partner.events.put_partner_events(Entries=entries)
    codes = [entry.get("ErrorCode") for entry in answer["Entries"]]
    assert answer["FailedEntryCount"] == 3
    assert (len(codes), codes[5], codes[11], codes[19]) == (
        20, "MalformedDetail", "InvalidArgument", "NotAuthorizedForSourceException"
    )  # fmt: skip
    by_number = {event["detail"]["n"]: event["id"] for event in bodies(tenant.receive(queue, 17))}
    ids = [entry["EventId"] for entry in answer["Entries"] if "EventId" in entry]
    assert [by_number[n] for n in range(17)] == ids


def test_more_than_twenty_entries(partner: Tenant, name: str) -> None:
    entry = {"Source": name, "DetailType": "Order", "Detail": "{}"}
    with pytest.raises(ClientError, match="Member must have length less than or equal to 20"):
        partner.events.put_partner_events(Entries=[entry] * 21)


def test_a_request_that_is_too_large(partner: Tenant, name: str) -> None:
    entry = {"Source": name, "DetailType": "Order", "Detail": json.dumps({"a": "x" * 600_000})}
    with pytest.raises(ClientError, match="Total size of the entries in the request is over the limit"):
        partner.events.put_partner_events(Entries=[entry] * 2)


def test_put_events_reaches_no_partner_bus(partner: Tenant, tenant: Tenant, name: str) -> None:
    offer(partner, name, to=tenant)
    accept(tenant, name)
    with pytest.raises(ClientError, match=r"at 'entries.1.member.eventBusName' failed to satisfy constraint"):
        tenant.put("shop", EventBusName=name)
    entry = {"Source": name, "DetailType": "Order", "Detail": "{}"}
    (result,) = partner.events.put_events(Entries=[entry])["Entries"]
    assert result["ErrorCode"] == "NotAuthorizedForSourceException"


def test_lists_of_both_sides(partner: Tenant, tenant: Tenant, name: str) -> None:
    names = [f"{name}/{n}" for n in range(3)]
    for each in names:
        offer(partner, each, to=tenant)
    page = partner.events.list_partner_event_sources(NamePrefix=name, Limit=2)
    rest = partner.events.list_partner_event_sources(NamePrefix=name, Limit=2, NextToken=page["NextToken"])
    assert [each["Name"] for each in page["PartnerEventSources"] + rest["PartnerEventSources"]] == names
    found: list[str] = []
    members: dict[str, Any] = {"Limit": 1}
    while True:
        answer = tenant.events.list_event_sources(**members)
        found += [each["Name"] for each in answer["EventSources"]]
        if "NextToken" not in answer:
            break
        members["NextToken"] = answer["NextToken"]
    assert found == names
    assert tenant.events.list_partner_event_sources(NamePrefix="aws.partner/example.com/")["PartnerEventSources"] == []


def test_events_of_services_go_round_partner_buses(partner: Tenant, tenant: Tenant, server: Server, name: str) -> None:
    offer(partner, name, to=tenant)
    queue = accept(tenant, name)
    tenant.rule("catch", {"Id": "t", "Arn": queue.arn}, pattern={"source": [{"prefix": ""}]}, bus=name)
    letters = tenant.queue("letters")
    target = {"Id": "t", "Arn": tenant.arn("events", f"event-bus/{name}"), **to_dead_letters(letters)}
    tenant.rule("forward", target, pattern={"source": ["aws.s3"]})

    put_service_event(server, tenant)

    (died,) = tenant.receive(letters)
    assert letter(died)["ERROR_CODE"] == "NO_PERMISSIONS"
    assert letter(died)["ERROR_MESSAGE"] == "Partner event buses do not receive events of AWS services."
    assert tenant.drain(queue) == []


def put_service_event(server: Server, tenant: Tenant) -> None:
    body = {"Entries": [{"source": "aws.s3", "detail-type": "Object Created", "detail": {}}]}
    claim = f"AWS4-HMAC-SHA256 Credential={tenant.account}/20260302/us-east-1/busbar/aws4_request, Signature=x"
    answer = call_route(server, "/_bus/service-events", json.dumps(body).encode(), authorization=claim)
    assert answer["FailedEntryCount"] == 0, answer


def call_route(server: Server, path: str, body: bytes, **headers: str) -> Any:
    return request(server.url, "POST", path, body=body, headers=headers).json


def test_what_was_answered_survives_a_kill(start_server: StartServer, aws: Any, sink: Sink, name: str) -> None:
    server = start_server()
    both = Tenant(aws, at=server, account="000000000000")
    offer(both, name, to=both)
    both.events.create_event_bus(Name=name, EventSourceName=name)
    sink.hold()
    both.rule("all", {"Id": "t", "Arn": sink.url}, pattern={"source": [name]}, bus=name)
    ids = put(both, name, *({"n": n} for n in range(20)))
    server.kill()
    sink.release()
    server.start()
    assert state(both, name) == "ACTIVE"
    sink.wait_for_events(set(ids))


def test_the_samples_of_requests(partner: Tenant, tenant: Tenant, server: Server, name: str) -> None:
    offer(partner, name, to=tenant)
    accept(tenant, name)
    prefix = "PutPartnerEvents"
    names = [f"{prefix}Approximate{each}Count_total" for each in ("Call", "Success", "Failed", "Throttled")]
    names += [f"{prefix}EntriesCount_total", f"{prefix}FailedEntriesCount_total", f"{prefix}Latency_count"]
    before = scrape(server.url)

    put(partner, name, {}, {})
    partner.events.put_partner_events(Entries=[{"Source": name, "DetailType": "t", "Detail": "[]"}])
    refused = b'{"Entries":[]}'
    assert call(server.url, prefix, refused).code == "ValidationException"

    after = scrape(server.url)
    assert [after.get(each, 0) - before.get(each, 0) for each in names] == [3, 2, 1, 0, 3, 1, 2]
    assert until(lambda: scrape(server.url).get(f'Events_total{{EventSourceName="{name}"}}'), "the series") == 2
