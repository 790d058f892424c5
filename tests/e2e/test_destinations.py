"""Connections and API destinations: requests as they arrive, tokens, failures, restarts, secrets that stay secret."""

from __future__ import annotations

import base64
import json
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from botocore.exceptions import ClientError
from cryptography.fernet import Fernet

from tests.conftest import Server
from tests.e2e.sink import Post, Reply, Sink
from tests.e2e.tenant import Tenant, letter, to_dead_letters
from tests.e2e.wire import request, rule_metrics, until

pytestmark = pytest.mark.xdist_group("e2e_destinations")

TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793"
BASIC = {"BasicAuthParameters": {"Username": "user", "Password": "basic-s3cret"}}
HOUR_MS = 3_600_000


class TokenServer(Sink):
    """Answers every token request with another token, t1, t2 and so on."""

    def __init__(self) -> None:
        super().__init__()
        numbers = count(1)
        self.answer = lambda post: Reply(
            text=json.dumps({"access_token": f"t{next(numbers)}", "token_type": "Bearer", "expires_in": 3600}).encode()
        )


@pytest.fixture
def tokens() -> Iterator[TokenServer]:
    made = TokenServer()
    yield made
    made.close()


def oauth(server: Sink, method: str = "POST", **http: Any) -> dict[str, Any]:
    """AuthParameters of an OAuth connection."""
    form = [{"Key": "grant_type", "Value": "client_credentials"}, {"Key": "scope", "Value": "a b"}]
    return {
        "OAuthParameters": {
            "ClientParameters": {"ClientID": "client", "ClientSecret": "client-s3cret"},
            "AuthorizationEndpoint": server.url + "oauth",
            "HttpMethod": method,
            "OAuthHttpParameters": {"BodyParameters": form, **http},
        }
    }


def connect(owner: Tenant, kind: str = "BASIC", parameters: Any = BASIC, name: str = "c", **invocation: Any) -> str:
    """A connection; its ARN."""
    given = {**parameters, **({"InvocationHttpParameters": invocation} if invocation else {})}
    made = owner.events.create_connection(Name=name, AuthorizationType=kind, AuthParameters=given)
    return str(made["ConnectionArn"])


def destination(owner: Tenant, connection: str, endpoint: str, method: str = "POST", **more: Any) -> str:
    """An API destination; its ARN."""
    made = owner.events.create_api_destination(
        Name=more.pop("name", "d"), ConnectionArn=connection, InvocationEndpoint=endpoint, HttpMethod=method, **more
    )
    return str(made["ApiDestinationArn"])


def state(owner: Tenant, name: str = "c") -> str:
    return str(owner.events.describe_connection(Name=name)["ConnectionState"])


def active(owner: Tenant, name: str = "d") -> bool:
    return bool(owner.events.describe_api_destination(Name=name)["ApiDestinationState"] == "ACTIVE")


def waiting(server: Server, owner: Tenant) -> list[Any]:
    """The deliveries of an account that the store holds: attempts, delay until due, last error."""
    query = "SELECT attempts, due - ts, error FROM delivery JOIN event USING (seq) WHERE instr(body, ?) ORDER BY seq"
    with closing(sqlite3.connect(f"file:{server.data_dir / 'bus.sqlite3'}?mode=ro", uri=True)) as database:
        return database.execute(query, (f'"account":"{owner.account}"'.encode(),)).fetchall()


class TestRequests:
    def test_a_post_as_aws_sends_it(self, tenant: Tenant, sink: Sink) -> None:
        tenant.rule("plain", {"Id": "d", "Arn": destination(tenant, connect(tenant), sink.url + "orders?k=v")})

        event_id = tenant.put("plain", {"n": 1.50}, TraceHeader=TRACE)

        post = sink.next()
        assert (post.method, post.path) == ("POST", "/orders?k=v")
        assert post.headers == {
            "host": sink.url.split("/")[2],
            "user-agent": "Amazon/EventBridge/ApiDestinations",
            "accept-encoding": "gzip,deflate",
            "range": "bytes=0-1048575",
            "connection": "close",
            "authorization": "Basic " + base64.b64encode(b"user:basic-s3cret").decode(),
            "x-amzn-trace-id": TRACE,
            "content-type": "application/json; charset=utf-8",
            "content-length": str(len(post.body)),
        }
        assert post.event["id"] == event_id
        assert post.event["detail"] == {"n": 1.50}

    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "GET", "HEAD"])
    def test_every_method(self, method: str, tenant: Tenant, sink: Sink, server: Server) -> None:
        sink.answer = lambda post: Reply(200, (("x-body", "none"),)) if method == "HEAD" else Reply(200, text=b"fine")
        tenant.rule("any", {"Id": "d", "Arn": destination(tenant, connect(tenant), sink.url, method)})

        event_id = tenant.put("any")

        post = sink.next()
        assert post.method == method
        assert (post.body == b"") == (method in ("GET", "HEAD"))
        if post.body:
            assert post.event["id"] == event_id
        taken = until(lambda: rule_metrics(server.url, tenant.account, "any"), "the delivery is counted")
        assert taken["InvocationAttempts"] == 1

    def test_an_api_key(self, tenant: Tenant, sink: Sink) -> None:
        parameters = {"ApiKeyAuthParameters": {"ApiKeyName": "X-Api-Key", "ApiKeyValue": "key-s3cret"}}
        connection = connect(tenant, "API_KEY", parameters)
        tenant.rule("keyed", {"Id": "d", "Arn": destination(tenant, connection, sink.url)})

        tenant.put("keyed")

        post = sink.next()
        assert post.headers["x-api-key"] == "key-s3cret"
        assert "authorization" not in post.headers

    def test_parameters_of_target_and_connection_merge(self, tenant: Tenant, sink: Sink) -> None:
        hidden = {"Key": "X-Own", "Value": "hidden", "IsValueSecret": True}
        connection = connect(
            tenant,
            HeaderParameters=[{"Key": "X-Shared", "Value": "connection"}, hidden],
            QueryStringParameters=[{"Key": "shared", "Value": "connection"}],
            BodyParameters=[{"Key": "shared", "Value": "connection"}, {"Key": "own", "Value": "1"}],
        )  # fmt: skip
        arn = destination(tenant, connection, sink.url + "customers/*/orders/*?fixed=1")
        parameters = {
            "PathParameterValues": ["$.detail.customer", "a/b"],
            "HeaderParameters": {"x-shared": "target", "X-Target": "$.detail.amount", "User-Agent": "evil"},
            "QueryStringParameters": {"shared": "target", "dynamic": "$.detail.text"},
        }
        transformer = {"InputPathsMap": {"c": "$.detail.customer"}, "InputTemplate": '{"who":"<c>","shared":"body"}'}
        tenant.rule("merged", {"Id": "d", "Arn": arn, "HttpParameters": parameters, "InputTransformer": transformer})

        tenant.put("merged", {"customer": "Zoë", "amount": 12, "text": "original query"})

        post = sink.next()
        assert post.path == ("/customers/Zo%C3%AB/orders/a%2Fb?fixed=1&shared=connection&dynamic=original%20query")
        assert post.headers["x-shared"] == "connection"
        assert post.headers["x-own"] == "hidden"
        assert post.headers["x-target"] == "12"
        assert post.headers["user-agent"] == "Amazon/EventBridge/ApiDestinations"
        assert post.event == {"who": "Zoë", "shared": "connection", "own": "1"}

    def test_odd_header_values_are_taken_and_sent_in_one_line(self, tenant: Tenant, sink: Sink) -> None:
        arn = destination(tenant, connect(tenant), sink.url)
        parameters = {
            "HeaderParameters": {"X-Lines": "one\r\nX-Evil: two", "X-Empty": "", "Authorization": "target"},
            "QueryStringParameters": {"q": "one\ntwo"},
        }
        tenant.rule("odd", {"Id": "d", "Arn": arn, "HttpParameters": parameters})
        (stored,) = tenant.events.list_targets_by_rule(Rule="odd")["Targets"]
        assert stored["HttpParameters"] == parameters

        tenant.put("odd")

        post = sink.next()
        assert post.path == "/?q=one%0Atwo"
        assert (post.headers["x-lines"], post.headers["x-empty"]) == ("one X-Evil: two", "")
        assert "x-evil" not in post.headers
        assert post.headers["authorization"].startswith("Basic ")

    def test_every_route_to_a_slow_destination_gets_its_turn_and_nothing_fails(
        self, tenant: Tenant, sink: Sink, server: Server
    ) -> None:
        arn = destination(tenant, connect(tenant), sink.url, InvocationRateLimitPerSecond=20)
        pattern = {"source": ["paced"]}
        tenant.rule("first", {"Id": "d", "Arn": arn}, pattern=pattern)
        tenant.rule("second", {"Id": "d", "Arn": arn}, pattern=pattern)

        ids = tenant.put_many("paced", 20)

        posts = sink.wait_for(40)
        assert sorted(post.event["id"] for post in posts) == sorted(ids * 2)
        for rule in ("first", "second"):
            found = until(
                lambda rule=rule: (m := rule_metrics(server.url, tenant.account, rule)).get("Invocations") == 20 and m,
                "all deliveries are counted",
            )
            assert found["InvocationAttempts"] == 20
            assert not {"RetryInvocationAttempts", "FailedInvocations"} & found.keys()


class TestOAuth:
    def test_one_token_serves_many_events(self, tenant: Tenant, sink: Sink, tokens: TokenServer) -> None:
        headers = [{"Key": "x-owned-oauth", "Value": "token-request"}]
        connection = connect(tenant, "OAUTH_CLIENT_CREDENTIALS", oauth(tokens, HeaderParameters=headers))
        arn = destination(tenant, connection, sink.url)
        tenant.rule("tokens", {"Id": "d", "Arn": arn})
        until(lambda: active(tenant), "the destination is active")

        tenant.put_many("tokens", 20)

        posts = sink.wait_for(20)
        assert {post.headers["authorization"] for post in posts} == {"Bearer t1"}
        (asked,) = tokens.received
        assert (asked.method, asked.path) == ("POST", "/oauth")
        assert asked.body == b"grant_type=client_credentials&scope=a+b&client_secret=client-s3cret&client_id=client"
        assert asked.headers["content-type"] == "application/x-www-form-urlencoded"
        assert asked.headers["x-owned-oauth"] == "token-request"
        assert "authorization" not in asked.headers

    def test_a_get_carries_its_form_in_the_query(self, tenant: Tenant, tokens: TokenServer) -> None:
        connect(tenant, "OAUTH_CLIENT_CREDENTIALS", oauth(tokens, "GET"))
        asked = tokens.next()
        assert (asked.method, asked.body) == ("GET", b"")
        assert dict(parse_qsl(asked.path.partition("?")[2])) == {
            "grant_type": "client_credentials",
            "scope": "a b",
            "client_id": "client",
            "client_secret": "client-s3cret",
        }

    @pytest.mark.parametrize("status", [401, 407])
    def test_a_refused_token_is_renewed_and_the_event_sent_again(
        self, status: int, tenant: Tenant, sink: Sink, tokens: TokenServer
    ) -> None:
        sink.answer = lambda post: Reply(status if post.headers["authorization"] == "Bearer t1" else 200)
        connection = connect(tenant, "OAUTH_CLIENT_CREDENTIALS", oauth(tokens))
        tenant.rule("renewed", {"Id": "d", "Arn": destination(tenant, connection, sink.url)})

        event_id = tenant.put("renewed")

        first, second = sink.wait_for(2)
        assert [first.headers["authorization"], second.headers["authorization"]] == ["Bearer t1", "Bearer t2"]
        assert first.event["id"] == second.event["id"] == event_id
        assert len(tokens.received) == 2

    def test_an_unreachable_token_server_is_asked_until_it_answers(
        self, tenant: Tenant, sink: Sink, tokens: TokenServer
    ) -> None:
        tokens.shut()
        connection = connect(tenant, "OAUTH_CLIENT_CREDENTIALS", oauth(tokens))
        tenant.rule("late", {"Id": "d", "Arn": destination(tenant, connection, sink.url)})
        described = until(
            lambda: (c := tenant.events.describe_connection(Name="c")).get("StateReason") and c, "a first failure"
        )
        assert described["ConnectionState"] == "AUTHORIZING"
        assert described["StateReason"] == "Could not connect to the specified endpoint."
        assert described["LastAuthorizedTime"].timestamp() == 0
        assert not active(tenant)
        event_id = tenant.put("late")

        tokens.open()

        assert sink.next().event["id"] == event_id
        assert active(tenant)
        shown = tenant.events.describe_connection(Name="c")
        assert (shown["ConnectionState"], "StateReason" in shown) == ("AUTHORIZED", False)

    def test_a_token_server_that_refuses_says_so(self, tenant: Tenant, tokens: TokenServer) -> None:
        tokens.answer = lambda post: Reply(401, text=b'{"error":"invalid_client s3cret"}')
        connect(tenant, "OAUTH_CLIENT_CREDENTIALS", oauth(tokens))
        reason = until(lambda: tenant.events.describe_connection(Name="c").get("StateReason"), "a reason")
        assert reason == "The authorization endpoint answered with HTTP status 401."


class TestOutcomes:
    @pytest.mark.parametrize("status", [301, 302, 307, 400, 403, 404, 408, 410])
    def test_final(self, status: int, tenant: Tenant, sink: Sink) -> None:
        sink.answer = lambda post: Reply(status, (("location", sink.url + "elsewhere"), ("retry-after", "1")))
        letters = tenant.queue("letters")
        arn = destination(tenant, connect(tenant), sink.url + "hook?key=value")
        rule = tenant.rule("final", {"Id": "d", "Arn": arn, **to_dead_letters(letters)})

        event_id = tenant.put("final")

        (message,) = tenant.receive(letters)
        assert json.loads(message["Body"])["id"] == event_id
        assert letter(message) == {
            "RULE_ARN": rule,
            "TARGET_ARN": arn,
            "ERROR_CODE": "SDK_CLIENT_ERROR",
            "ERROR_MESSAGE": f"{sink.url[:-1]} answered with HTTP status {status}.",
        }
        assert len(sink.received) == 1

    @pytest.mark.parametrize(
        ("status", "code"),
        [(409, "SDK_CLIENT_ERROR"), (429, "THROTTLING"), (500, "ERROR_FROM_TARGET"), (503, "ERROR_FROM_TARGET")],
    )
    def test_retried(self, status: int, code: str, tenant: Tenant, sink: Sink) -> None:
        sink.answer = lambda post: Reply(status)
        letters = tenant.queue("letters")
        arn = destination(tenant, connect(tenant), sink.url)
        tenant.rule("retried", {"Id": "d", "Arn": arn, **to_dead_letters(letters, retries=1)})

        tenant.put("retried")

        said = letter(tenant.receive(letters)[0])
        assert (said["ERROR_CODE"], said["RETRY_ATTEMPTS"]) == (code, "1")
        assert said["EXHAUSTED_RETRY_CONDITION"] == "MaximumRetryAttempts"
        assert len(sink.received) == 2

    def test_retry_after_puts_the_next_attempt_off(self, tenant: Tenant, sink: Sink, server: Server) -> None:
        sink.answer = lambda post: Reply(429, (("retry-after", "3600"),))
        tenant.rule("later", {"Id": "d", "Arn": destination(tenant, connect(tenant), sink.url)})
        tenant.put("later")
        ((attempts, delay, error),) = until(
            lambda: [row for row in waiting(server, tenant) if row[0]], "the first failure is on disk"
        )
        assert attempts == 1
        assert delay >= HOUR_MS
        assert error.startswith("THROTTLING\t")

    def test_a_negative_retry_after_ends_it(self, tenant: Tenant, sink: Sink) -> None:
        sink.answer = lambda post: Reply(503, (("retry-after", "-1"),))
        letters = tenant.queue("letters")
        arn = destination(tenant, connect(tenant), sink.url)
        tenant.rule("never", {"Id": "d", "Arn": arn, **to_dead_letters(letters)})
        tenant.put("never")
        assert letter(tenant.receive(letters)[0])["RETRY_ATTEMPTS"] == "0"
        assert len(sink.received) == 1

    def test_an_endpoint_that_does_not_answer_in_time(self, tenant: Tenant, sink: Sink) -> None:
        sink.answer = lambda post: Reply(silent=True)
        letters = tenant.queue("letters")
        arn = destination(tenant, connect(tenant), sink.url)
        tenant.rule("silent", {"Id": "d", "Arn": arn, **to_dead_letters(letters, retries=0)})
        tenant.put("silent")
        assert letter(tenant.receive(letters)[0])["ERROR_CODE"] == "TIMEOUT"

    def test_a_destination_that_is_not_there(self, tenant: Tenant) -> None:
        letters = tenant.queue("letters")
        arn = tenant.arn("events", "api-destination/absent/0a1b-2c3d")
        tenant.rule("absent", {"Id": "d", "Arn": arn, **to_dead_letters(letters)})
        tenant.put("absent")
        said = letter(tenant.receive(letters)[0])
        assert (said["ERROR_CODE"], said["ERROR_MESSAGE"]) == ("NO_RESOURCE", f"API destination {arn} does not exist.")
        assert "RETRY_ATTEMPTS" not in said

    def test_the_destination_of_another_account_is_not_there(
        self, tenant: Tenant, sink: Sink, aws: Any, server: Server
    ) -> None:
        arn = destination(tenant, connect(tenant), sink.url)
        other = Tenant(aws, at=server)
        letters = other.queue("letters")
        other.rule("foreign", {"Id": "d", "Arn": arn, **to_dead_letters(letters)})
        other.put("foreign")
        assert letter(other.receive(letters)[0])["ERROR_CODE"] == "NO_RESOURCE"
        assert sink.received == []

    def test_events_wait_for_new_credentials(self, tenant: Tenant, sink: Sink, server: Server) -> None:
        tenant.rule("rotated", {"Id": "d", "Arn": destination(tenant, connect(tenant), sink.url)})
        tenant.events.deauthorize_connection(Name="c")
        assert not active(tenant)
        event_id = tenant.put("rotated")
        until(lambda: any(row[0] for row in waiting(server, tenant)), "an attempt without credentials")

        credentials = {"BasicAuthParameters": {"Username": "user", "Password": "new"}}
        tenant.events.update_connection(Name="c", AuthorizationType="BASIC", AuthParameters=credentials)

        post = sink.next()
        assert post.event["id"] == event_id
        assert post.headers["authorization"] == "Basic " + base64.b64encode(b"user:new").decode()

    def test_a_dead_letter_can_be_sent_again(self, tenant: Tenant, sink: Sink, server: Server) -> None:
        sink.answer = lambda post: Reply(400)
        letters = tenant.queue("letters")
        arn = destination(tenant, connect(tenant), sink.url)
        tenant.rule("again", {"Id": "d", "Arn": arn, **to_dead_letters(letters)})
        event_id = tenant.put("again")
        sink.next()
        listed = f"/_bus/dead-letters?queue={letters.arn}"
        until(lambda: request(server.url, path=listed).json["Letters"], "the letter")
        sink.answer = lambda post: Reply(200)
        body = json.dumps({"Queue": letters.arn}).encode()
        assert request(server.url, "POST", "/_bus/dead-letters/redrive", body=body).json["Redriven"] == 1
        assert sink.next().event["id"] == event_id


class TestOperations:
    def test_a_destination_is_described_updated_and_deleted(self, tenant: Tenant) -> None:
        events, connection = tenant.events, connect(tenant)
        destination(tenant, connection, "api.example/*?q=1", Description="d")
        shown = events.describe_api_destination(Name="d")
        assert (shown["InvocationEndpoint"], shown["Description"]) == ("api.example/*?q=1", "d")
        assert (shown["InvocationRateLimitPerSecond"], shown["ApiDestinationState"]) == (300, "ACTIVE")
        assert shown["CreationTime"].microsecond == 0
        assert events.update_api_destination(Name="d")["ApiDestinationState"] == "ACTIVE"
        changes = {"HttpMethod": "PUT", "InvocationEndpoint": "https://localhost:1", "InvocationRateLimitPerSecond": 1}
        events.update_api_destination(Name="d", Description="", **changes)
        shown = events.describe_api_destination(Name="d")
        assert "Description" not in shown
        assert (shown["HttpMethod"], shown["InvocationRateLimitPerSecond"]) == ("PUT", 1)
        assert shown["ConnectionArn"] == connection
        events.delete_api_destination(Name="d")
        with pytest.raises(ClientError):
            events.describe_api_destination(Name="d")
        assert destination(tenant, connection, "https://127.0.0.1:1").partition("/d/")[2]

    def test_destinations_are_listed_by_one_filter_and_in_pages(self, tenant: Tenant) -> None:
        one, two = connect(tenant), connect(tenant, name="c2")
        for name, connection in (("b1", one), ("a1", one), ("a2", two)):
            destination(tenant, connection, "https://api.example", name=name, Description="not shown")
        list_ = tenant.events.list_api_destinations
        assert [each["Name"] for each in list_()["ApiDestinations"]] == ["a1", "a2", "b1"]
        assert "Description" not in list_()["ApiDestinations"][0]
        assert [each["Name"] for each in list_(NamePrefix="a")["ApiDestinations"]] == ["a1", "a2"]
        assert [each["Name"] for each in list_(ConnectionArn=one)["ApiDestinations"]] == ["a1", "b1"]
        first = list_(Limit=2)
        rest = list_(Limit=2, NextToken=first["NextToken"])
        assert [each["Name"] for each in rest["ApiDestinations"]] == ["b1"]
        assert "NextToken" not in rest

    def test_the_bodies_are_those_of_aws(self, tenant: Tenant, server: Server) -> None:
        destination(tenant, connect(tenant), "https://api.example")
        answered = tenant.events.deauthorize_connection(Name="c")
        assert answered["ConnectionState"] == "DEAUTHORIZING"
        shown = tenant.events.describe_connection(Name="c")
        assert (shown["ConnectionState"], shown["AuthParameters"], "SecretArn" in shown) == ("DEAUTHORIZED", {}, False)
        assert tenant.events.delete_connection(Name="c")["ConnectionState"] == "DELETING"
        assert tenant.events.list_connections()["Connections"] == []

    def test_strict_takes_https_and_roles_only(self, start_server: Any, aws: Any, sink: Sink) -> None:
        owner = Tenant(aws, at=start_server(strict=True))
        connection = connect(owner)
        with pytest.raises(ClientError, match="please provide a valid HTTPS endpoint URL"):
            destination(owner, connection, sink.url)
        arn = destination(owner, connection, "https://api.example")
        owner.rule("strict")
        with pytest.raises(ClientError, match="RoleArn is required for target"):
            owner.events.put_targets(Rule="strict", Targets=[{"Id": "d", "Arn": arn}])

    def test_metadata_addresses_are_refused_off_loopback(self, start_server: Any, aws: Any) -> None:
        owner = Tenant(aws, at=start_server(host="0.0.0.0", insecure=True))
        connection = connect(owner)
        with pytest.raises(ClientError, match=r"169\.254\.169\.254 is a link-local or cloud-metadata address"):
            destination(owner, connection, "https://169.254.169.254/latest")


class TestKeeping:
    def test_everything_survives_kill_9(self, start_server: Any, aws: Any, sink: Sink, tokens: TokenServer) -> None:
        server = start_server()
        owner = Tenant(aws, at=server)
        basic = destination(owner, connect(owner, name="basic"), sink.url + "basic", name="basic")
        ready = connect(owner, "OAUTH_CLIENT_CREDENTIALS", oauth(tokens), "ready")
        until(lambda: state(owner, "ready") == "AUTHORIZED", "the first token")
        tokens.shut()
        late = connect(owner, "OAUTH_CLIENT_CREDENTIALS", oauth(tokens), "late")
        until(lambda: owner.events.describe_connection(Name="late").get("StateReason"), "a first failure")
        targets = [{"Id": "basic", "Arn": basic}]
        for name, connection in (("ready", ready), ("late", late)):
            targets.append({"Id": name, "Arn": destination(owner, connection, sink.url + name, name=name)})
        owner.rule("kept", *targets)
        shown = [owner.events.describe_connection(Name=name) for name in ("basic", "ready", "late")]
        listed = owner.events.list_api_destinations()["ApiDestinations"]

        server.kill()
        server.restart()

        again = [owner.events.describe_connection(Name=name) for name in ("basic", "ready", "late")]
        assert [without_metadata(each) for each in again] == [without_metadata(each) for each in shown]
        assert owner.events.list_api_destinations()["ApiDestinations"] == listed
        tokens.open()
        event_id = owner.put("kept")
        sink.wait_until(lambda: {post.path for post in sink.received} == {"/basic", "/ready", "/late"}, "all three")
        assert {post.event["id"] for post in sink.received} == {event_id}
        assert {post.headers["authorization"].split()[0] for post in sink.received} == {"Basic", "Bearer"}

    def test_no_secret_is_anywhere(self, start_server: Any, aws: Any, sink: Sink, tokens: TokenServer) -> None:
        tokens.answer = lambda post: Reply(text=b'{"access_token":"token-s3cret"}')
        server = start_server(log_level="debug", log_format="json")
        owner = Tenant(aws, at=server)
        hidden = [{"Key": "k", "Value": "value-s3cret", "IsValueSecret": True}]
        lists = {"HeaderParameters": hidden, "QueryStringParameters": hidden, "BodyParameters": hidden}
        key = {"ApiKeyAuthParameters": {"ApiKeyName": "x", "ApiKeyValue": "key-s3cret"}}
        connections = [
            connect(owner, name="basic", **lists),
            connect(owner, "API_KEY", key, "key", **lists),
            connect(owner, "OAUTH_CLIENT_CREDENTIALS", oauth(tokens, HeaderParameters=hidden), "oauth", **lists),
        ]
        until(lambda: state(owner, "oauth") == "AUTHORIZED", "a token")
        sink.answer = lambda post: Reply(400, text=post.body)
        letters = owner.queue("letters")
        targets = [
            {"Id": str(n), "Arn": destination(owner, each, sink.url, name=f"d{n}"), **to_dead_letters(letters)}
            for n, each in enumerate(connections)
        ]
        owner.rule("leaks", *targets)
        owner.put("leaks")
        said = owner.receive(letters, 3)
        sent = sink.wait_for(3)
        assert sum(b"s3cret" in post.body for post in sent) == 3, "the endpoint does get them"
        owner.events.update_connection(
            Name="basic",
            AuthorizationType="BASIC",
            AuthParameters={"BasicAuthParameters": {"Password": "other-s3cret"}},
        )
        owner.events.deauthorize_connection(Name="key")
        answers = [owner.events.describe_connection(Name=name) for name in ("basic", "key", "oauth")]
        answers += [owner.events.list_connections(), owner.events.list_api_destinations(), said]
        seen = [str(answers)]
        seen += [request(server.url, path=path).body.decode() for path in ("/metrics", "/_bus/rules", "/_bus/health")]
        server.stop()
        seen += [path.read_bytes().decode("latin-1") for path in server.data_dir.rglob("*") if path.is_file()]
        seen.append(server.log.read_text())
        assert "attempt failed" in seen[-1]
        assert not [text for text in seen if "s3cret" in text]

    def test_the_key_is_in_a_file_for_its_owner_and_without_it_nothing_starts(
        self, start_server: Any, aws: Any, tmp_path: Path
    ) -> None:
        server = start_server()
        assert not (server.data_dir / "secret.key").exists()
        connect(Tenant(aws, at=server))
        key = server.data_dir / "secret.key"
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        server.stop()
        kept = key.rename(tmp_path / "kept")
        refuses_to_start(server, "is missing, and connections have secrets that it sealed: put it back")
        key.write_bytes(Fernet.generate_key())
        key.chmod(0o600)
        refuses_to_start(server, "is not the key that the secrets of connections were sealed with")
        kept.rename(key)
        server.start()

    def test_the_key_can_be_given_and_replaced(self, start_server: Any, aws: Any, tmp_path: Path, sink: Sink) -> None:
        one, two = (Fernet.generate_key().decode() for _ in range(2))
        folder = tmp_path / "shared"
        server = start_server(data_dir=folder, environment={"BUSBAR_SECRET_KEY": one})
        owner = Tenant(aws, at=server)
        owner.rule("sealed", {"Id": "d", "Arn": destination(owner, connect(owner), sink.url)})
        assert not (folder / "secret.key").exists()
        server.stop()
        with pytest.raises(AssertionError, match="did not start"):
            start_server(data_dir=folder, environment={"BUSBAR_SECRET_KEY": two})
        with pytest.raises(AssertionError, match="did not start"):
            start_server(data_dir=folder, environment={"BUSBAR_SECRET_KEY": "short"})
        start_server(data_dir=folder, environment={"BUSBAR_SECRET_KEY": f"{two},{one}"}).stop()
        last = start_server(data_dir=folder, environment={"BUSBAR_SECRET_KEY": two})
        owner = Tenant(aws, at=last, account=owner.account)
        owner.put("sealed")
        assert sink.next().headers["authorization"] == "Basic " + base64.b64encode(b"user:basic-s3cret").decode()
        for each in (one, two):
            assert each not in "".join(path.read_text() for path in tmp_path.rglob("stderr"))

    def test_nothing_is_kept_in_memory_only(self, start_server: Any, aws: Any, sink: Sink) -> None:
        server = start_server(data_dir=":memory:")
        owner = Tenant(aws, at=server)
        owner.rule("brief", {"Id": "d", "Arn": destination(owner, connect(owner), sink.url)})
        owner.put("brief")
        assert sink.next().headers["authorization"].startswith("Basic ")


def refuses_to_start(server: Server, reason: str) -> None:
    with pytest.raises(AssertionError, match=r"did not start \(status 2\)"):
        server.start()
    assert reason in server.said()
    server._process = None


def without_metadata(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "ResponseMetadata"}


def test_a_wire_leads_the_events_of_a_destination_to_local_code(tenant: Tenant, sink: Sink, server: Server) -> None:
    arn = tenant.arn("events", "api-destination/prod/0a1b-2c3d")
    laid = request(server.url, "PUT", "/_bus/wires", body=json.dumps({"Arn": arn, "Url": sink.url + "local"}).encode())
    assert laid.status == 200
    tenant.rule("wired", {"Id": "d", "Arn": arn})
    tenant.put("wired")
    post: Post = sink.next()
    assert post.path == "/local"
    assert "webhook-id" in post.headers
