"""Global endpoints through boto3: the operations, their errors, where events go, and the operator's switch."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.bus.signing import signed_for_regions
from tests.conftest import Server
from tests.e2e.tenant import Queue, Tenant
from tests.e2e.wire import Answer, call, request

pytestmark = pytest.mark.xdist_group("e2e_endpoints")

CASES = json.loads((Path(__file__).parent.parent / "cases/errors/endpoints.json").read_text())
SECONDARY = "us-west-2"
ENTRY = {"Source": "shop", "DetailType": "OrderPlaced", "Detail": '{"n":1}'}


def members(account: str, bus: str = "default") -> dict[str, Any]:
    """A valid CreateEndpoint."""
    primary = {"HealthCheck": "arn:aws:route53:::healthcheck/h"}
    return {
        "Name": "e",
        "RoutingConfig": {"FailoverConfig": {"Primary": primary, "Secondary": {"Route": SECONDARY}}},
        "EventBuses": [
            {"EventBusArn": f"arn:aws:events:{region}:{account}:event-bus/{bus}"} for region in ("us-east-1", SECONDARY)
        ],
    }


def client(server: Server, account: str, *, region: str = "us-east-1", signed: Any = "v4", check: bool = True) -> Any:
    """PutEvents with an EndpointId: boto3 signs it with SigV4A, which takes awscrt, unless it is told otherwise."""
    return boto3.client(
        "events",
        endpoint_url=server.url,
        region_name=region,
        aws_access_key_id=account,
        aws_secret_access_key="any",
        config=Config(
            signature_version=signed, parameter_validation=check, retries={"total_max_attempts": 1}, proxies={}
        ),
    )


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in CASES])
def test_errors(server: Server, tenant: Tenant, case: dict[str, Any]) -> None:
    events = client(server, tenant.account, check=False)
    case = json.loads(json.dumps(case).replace("ACCOUNT", tenant.account))
    valid = members(tenant.account)
    for operation, _ in case.get("before", ()):
        getattr(events, operation)(**valid)
    operation, given = case["call"]
    if operation == "create_endpoint" and given:
        given = valid | (given if isinstance(given, dict) else {})
    with pytest.raises(ClientError) as failed:
        getattr(events, operation)(**given)
    error = failed.value.response["Error"]
    assert (error["Code"], failed.value.response["ResponseMetadata"]["HTTPStatusCode"]) == (case["code"], 400)
    if "message" in case:
        assert error["Message"] == case["message"]
    for part in case.get("contains", ()):
        assert part in error["Message"]


def test_the_life_of_an_endpoint(tenant: Tenant) -> None:
    events, given = tenant.events, members(tenant.account)
    made = events.create_endpoint(**given, Description="orders")
    made.pop("ResponseMetadata")
    arn = f"arn:aws:events:us-east-1:{tenant.account}:endpoint/e"
    assert made == {**given, "Arn": arn, "ReplicationConfig": {"State": "ENABLED"}, "State": "ACTIVE"}

    shown = events.describe_endpoint(Name="e")
    shown.pop("ResponseMetadata")
    assert shown["EndpointUrl"] == f"https://{shown['EndpointId']}.endpoint.events.amazonaws.com"
    assert shown["EndpointId"].endswith(".veo")
    assert {m: shown[m] for m in made} == made
    assert shown["Description"] == "orders"
    assert events.list_endpoints()["Endpoints"] == [shown]
    elsewhere = tenant.in_region(SECONDARY).events
    assert elsewhere.list_endpoints()["Endpoints"] == []
    assert elsewhere.list_endpoints(HomeRegion="us-east-1")["Endpoints"] == [shown]
    assert elsewhere.describe_endpoint(Name="e", HomeRegion="us-east-1")["Arn"] == arn

    changed = events.update_endpoint(Name="e", ReplicationConfig={"State": "DISABLED"})
    assert (changed["ReplicationConfig"], changed["EndpointId"]) == ({"State": "DISABLED"}, shown["EndpointId"])
    after = events.describe_endpoint(Name="e")
    assert (after["Description"], after["RoutingConfig"]) == ("orders", given["RoutingConfig"])
    assert after["LastModifiedTime"] >= shown["LastModifiedTime"]
    assert after["CreationTime"] == shown["CreationTime"]

    events.tag_resource(ResourceARN=arn, Tags=[{"Key": "team", "Value": "orders"}])
    assert events.list_tags_for_resource(ResourceARN=arn)["Tags"] == [{"Key": "team", "Value": "orders"}]
    events.delete_endpoint(Name="e")
    assert events.list_endpoints()["Endpoints"] == []
    events.create_endpoint(**given)
    assert events.list_tags_for_resource(ResourceARN=arn)["Tags"] == []
    assert events.describe_endpoint(Name="e")["EndpointId"] != shown["EndpointId"]


def test_pages_of_endpoints(tenant: Tenant) -> None:
    names = [f"e{n}" for n in range(5)]
    for name in reversed(names):
        tenant.events.create_endpoint(**members(tenant.account) | {"Name": name})
    found: list[str] = []
    token: dict[str, str] = {}
    while True:
        page = tenant.events.list_endpoints(NamePrefix="e", MaxResults=2, **token)
        found += [each["Name"] for each in page["Endpoints"]]
        if "NextToken" not in page:
            break
        token = {"NextToken": page["NextToken"]}
    assert found == names
    assert [each["Name"] for each in tenant.events.list_endpoints(NamePrefix="e3")["Endpoints"]] == ["e3"]


def switch(server: Server, body: dict[str, str]) -> Answer:
    """What the operator sets."""
    return request(server.url, "PUT", "/_bus/endpoints", body=json.dumps(body).encode())


def queues(tenant: Tenant, bus: str = "default") -> tuple[Queue, Queue]:
    """A queue in each region that receives what comes to the bus there."""
    found = []
    for each in (tenant, tenant.in_region(SECONDARY)):
        if bus != "default":
            each.events.create_event_bus(Name=bus)
        queue = each.queue("q")
        each.rule("shop", {"Id": "q", "Arn": queue.arn}, bus=bus)
        found.append(queue)
    return found[0], found[1]


def test_events_go_to_the_active_region(server: Server, tenant: Tenant) -> None:
    here, there = queues(tenant, "orders")
    away = tenant.in_region(SECONDARY)
    tenant.events.create_endpoint(**members(tenant.account, "orders"), RoleArn=f"arn:aws:iam::{tenant.account}:role/r")
    tenant.events.update_endpoint(Name="e", ReplicationConfig={"State": "DISABLED"})
    shown = tenant.events.describe_endpoint(Name="e")
    put = client(server, tenant.account).put_events
    named = [
        ENTRY | {"EventBusName": "orders"},
        ENTRY | {"EventBusName": f"arn:aws:events:us-east-1:{tenant.account}:event-bus/orders"},
        ENTRY | {"EventBusName": f"arn:aws:events:{SECONDARY}:{tenant.account}:event-bus/orders"},
    ]

    answer = put(EndpointId=shown["EndpointId"], Entries=named)
    events = [json.loads(message["Body"]) for message in tenant.receive(here, 3)]
    assert {event["id"] for event in events} == {entry["EventId"] for entry in answer["Entries"]}
    assert {event["region"] for event in events} == {"us-east-1"}
    assert away.drain(there) == []

    switched = switch(server, {"Endpoint": shown["Arn"], "Primary": "failed-over"})
    assert (switched.status, switched.json["ActiveRegion"]) == (200, SECONDARY)
    answer = put(EndpointId=shown["EndpointId"], Entries=named)
    events = [json.loads(message["Body"]) for message in away.receive(there, 3)]
    assert {event["id"] for event in events} == {entry["EventId"] for entry in answer["Entries"]}
    assert {event["region"] for event in events} == {SECONDARY}
    assert {tuple(event["resources"]) for event in events} == {()}
    assert tenant.drain(here) == []

    with pytest.raises(ClientError, match="is not one of endpoint e"):
        put(EndpointId=shown["EndpointId"], Entries=[ENTRY])
    with pytest.raises(ClientError, match=r"Endpoint .* does not exist"):
        client(server, "499999999999").put_events(EndpointId=shown["EndpointId"], Entries=named)


def test_replication_puts_an_event_on_both_buses(server: Server, tenant: Tenant) -> None:
    here, there = queues(tenant)
    tenant.events.create_endpoint(**members(tenant.account))
    shown = tenant.events.describe_endpoint(Name="e")
    put = client(server, tenant.account, region="eu-west-1").put_events

    answer = put(EndpointId=shown["EndpointId"], Entries=[ENTRY | {"Resources": ["r"]}, {"Source": "shop"}])
    assert answer["FailedEntryCount"] == 1
    (original,) = [json.loads(message["Body"]) for message in tenant.receive(here)]
    (replica,) = [json.loads(message["Body"]) for message in tenant.in_region(SECONDARY).receive(there)]
    assert (original["id"], original["resources"]) == (answer["Entries"][0]["EventId"], ["r"])
    assert replica["id"] != original["id"]
    assert replica["resources"] == ["r", shown["Arn"]]
    assert (replica["region"], replica["account"]) == ("us-east-1", tenant.account)
    assert (replica["detail"], replica["source"]) == (original["detail"], original["source"])


def test_clients_that_do_not_sign(start_server: Any, aws: Any) -> None:
    server = start_server(region=SECONDARY)
    tenant = Tenant(aws, at=server, account="000000000000")
    here, _ = queues(tenant)
    tenant.events.create_endpoint(**members(tenant.account))
    put = client(server, "ignored", signed=UNSIGNED).put_events
    put(EndpointId=tenant.events.describe_endpoint(Name="e")["EndpointId"], Entries=[ENTRY])
    assert json.loads(tenant.receive(here)[0]["Body"])["region"] == "us-east-1"


def test_clients_that_sign_for_all_regions(server: Server, tenant: Tenant) -> None:
    """What botocore with awscrt sends: a scope without a region, and a header that names those it may be used in."""
    here, _ = queues(tenant)
    tenant.events.create_endpoint(**members(tenant.account))
    body = json.dumps({"EndpointId": tenant.events.describe_endpoint(Name="e")["EndpointId"], "Entries": [ENTRY]})
    answer = call(
        server.url,
        "PutEvents",
        body.encode(),
        **{
            "X-Amz-Region-Set": "*",
            "X-Amz-Date": "20260101T000000Z",
            "Authorization": f"AWS4-ECDSA-P256-SHA256 Credential={tenant.account}/20260101/events/aws4_request, "
            "SignedHeaders=content-type;host;x-amz-date;x-amz-region-set;x-amz-target, Signature=3045",
        },
    )
    assert (answer.status, answer.json["FailedEntryCount"]) == (200, 0)
    assert json.loads(tenant.receive(here)[0]["Body"])["account"] == tenant.account


def test_with_credentials_the_signature_for_all_regions_is_verified(start_server: Any, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    shop = {"access_key": "shop", "secret": "a long random text", "account": "111111111111"}
    keys.write_text(json.dumps([shop]))
    keys.chmod(0o600)
    server = start_server(credentials=keys)
    events = boto3.client(
        "events",
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id=shop["access_key"],
        aws_secret_access_key=shop["secret"],
        config=Config(signature_version="v4", retries={"total_max_attempts": 1}, proxies={}),
    )
    events.create_endpoint(**members(shop["account"]))
    endpoint_id = events.describe_endpoint(Name="e")["EndpointId"]
    assert events.put_events(EndpointId=endpoint_id, Entries=[ENTRY])["FailedEntryCount"] == 0
    body = json.dumps({"EndpointId": endpoint_id, "Entries": [ENTRY]}).encode()

    def put(secret: str, **more: Any) -> Answer:
        signed = signed_for_regions(
            body, url=f"{server.url}/", now_ms=int(time.time() * 1000), access_key="shop", secret=secret, **more
        )
        headers = {name.decode(): value.decode() for name, value in signed.headers.items()}
        return request(server.url, "POST", body=body, headers=headers)

    answer = put(shop["secret"])
    assert (answer.status, answer.json["FailedEntryCount"]) == (200, 0)
    assert put(shop["secret"], regions="us-east-1,us-west-2").status == 200
    assert put("another").code == "InvalidSignatureException"


def test_the_switch_and_the_endpoint_survive_kill_9(start_server: Any, aws: Any) -> None:
    server = start_server()
    tenant = Tenant(aws, at=server)
    queues(tenant)
    tenant.events.create_endpoint(**members(tenant.account))
    shown = tenant.events.describe_endpoint(Name="e")
    shown.pop("ResponseMetadata")
    tenant.events.tag_resource(ResourceARN=shown["Arn"], Tags=[{"Key": "k", "Value": "v"}])
    assert switch(server, {"Endpoint": shown["EndpointId"], "Primary": "failed-over"}).status == 200
    server.kill()
    server.start()

    again = Tenant(aws, at=server, account=tenant.account)
    assert again.events.list_endpoints()["Endpoints"] == [shown]
    assert again.events.list_tags_for_resource(ResourceARN=shown["Arn"])["Tags"] == [{"Key": "k", "Value": "v"}]
    (listed,) = request(server.url, "GET", "/_bus/endpoints").json["Endpoints"]
    assert listed == {
        "Account": tenant.account,
        "Name": "e",
        "Arn": shown["Arn"],
        "EndpointId": shown["EndpointId"],
        "EventBusName": "default",
        "Primary": "failed-over",
        "PrimaryRegion": "us-east-1",
        "SecondaryRegion": SECONDARY,
        "ActiveRegion": SECONDARY,
        "Replication": "ENABLED",
    }
    again.events.delete_endpoint(Name="e")
    server.restart()
    assert Tenant(aws, at=server, account=tenant.account).events.list_endpoints()["Endpoints"] == []


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ('{"Endpoint": "absent.veo", "Primary": "healthy"}', 400, "Endpoint absent.veo does not exist."),
        ('{"Endpoint": "absent.veo", "Primary": "unwell"}', 400, "Primary as healthy or failed-over"),
        ('{"Primary": "healthy"}', 400, "The body must name Endpoint"),
        ("[]", 400, "The body must name Endpoint"),
        ("not JSON", 400, "The body must name Endpoint"),
    ],
)
def test_switches_that_are_refused(server: Server, body: str, status: int, message: str) -> None:
    answer = request(server.url, "PUT", "/_bus/endpoints", body=body.encode())
    assert (answer.status, message in answer.json["message"]) == (status, True)


def test_a_role_is_asked_for_in_strict_mode(start_server: Any, aws: Any) -> None:
    events = Tenant(aws, at=start_server(strict=True), account="111111111111").events
    with pytest.raises(ClientError, match="RoleArn is required when event replication is enabled"):
        events.create_endpoint(**members("111111111111"))
    events.create_endpoint(**members("111111111111"), ReplicationConfig={"State": "DISABLED"})
