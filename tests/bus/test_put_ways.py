"""Whatever way a request of PutEvents and its events take, the same comes of it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from bus.api.turn import Turn
from bus.app import App, open_app
from bus.clock import ManualClock
from bus.config import Settings
from bus.event_kinds import EventKind
from bus.protocol import LONGEST_SHORT
from bus.server import uvicorn_config

QUEUE_ARN = "arn:aws:sqs:us-east-1:000000000000:{}"
UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
SIGNED = "AWS4-HMAC-SHA256 Credential=k/20260101/{}/events/aws4_request, x"
ENTRY = {"Source": "shop", "DetailType": "OrderPlaced", "Detail": '{ "id": 1.50 }'}


class Bench:
    """A bus in memory, served on a port of this machine."""

    def __init__(self, app: App, port: int, connections: set[Any]) -> None:
        self.app = app
        self.port = port
        self.connections = connections

    async def call(self, operation: str, members: Any, *, prefix: str = "AWSEvents", **headers: str) -> bytes:
        return await exchange(self.port, request(operation, members, prefix=prefix, **headers))

    async def ask(self, operation: str, members: Any, *, prefix: str = "AWSEvents") -> Any:
        answer = await self.call(operation, members, prefix=prefix)
        assert answer.startswith(b"HTTP/1.1 200"), answer
        return orjson.loads(answer.partition(b"\r\n\r\n")[2] or b"{}")

    async def bodies(self, queue: str) -> list[bytes]:
        """What the queue holds, in order, without what differs each time."""
        listed = self.app.queues.find(QUEUE_ARN.format(queue))
        assert listed is not None
        return [UUID.sub(b"*", letter.body.encode()) for letter in await self.app.queues.browse(listed, limit=1000)]


@asynccontextmanager
async def serving(
    *, short: bool = True, straight: bool = True, clock: ManualClock | None = None
) -> AsyncIterator[Bench]:
    """``short``: requests may be answered below ASGI; ``straight``: events may go without a plan."""
    app = await open_app(Settings(data_dir=":memory:"), clock or ManualClock())
    if not straight:
        app.dispatch.straight = lambda routes: None  # type: ignore[method-assign]
    config = uvicorn_config(app, Settings(), turn=Turn(app.rpc) if short else None)
    config.load()
    state = ServerState()
    state.default_headers = [(b"date", b"today")]
    make: Any = config.http_protocol_class
    server = await asyncio.get_running_loop().create_server(
        lambda: make(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    try:
        yield Bench(app, server.sockets[0].getsockname()[1], state.connections)
    finally:
        server.close()
        for connection in list(state.connections):
            connection.transport.close()
        app.begin_stop()
        await app.close()


async def wire_up(bench: Bench) -> None:
    """Rules whose targets are queues of every kind."""
    for name in ("all", "small", "late", "second", "orders.fifo"):
        attributes = {"FifoQueue": "true", "ContentBasedDeduplication": "true"} if name.endswith(".fifo") else {}
        attributes |= {"MaximumMessageSize": "1024"} if name == "small" else {}
        attributes |= {"DelaySeconds": "5"} if name == "late" else {}
        await bench.ask("CreateQueue", {"QueueName": name, "Attributes": attributes}, prefix="AmazonSQS")
    targets: dict[str, list[dict[str, Any]]] = {
        "all": [{"Id": "1", "Arn": QUEUE_ARN.format("all")}],
        "two": [{"Id": "1", "Arn": QUEUE_ARN.format("late")}, {"Id": "2", "Arn": QUEUE_ARN.format("second")}],
        "small": [{"Id": "1", "Arn": QUEUE_ARN.format("small")}],
        "part": [{"Id": "1", "Arn": QUEUE_ARN.format("second"), "InputPath": "$.detail"}],
        "ordered": [
            {"Id": "1", "Arn": QUEUE_ARN.format("orders.fifo"), "SqsParameters": {"MessageGroupId": "g"}},
            {"Id": "2", "Arn": QUEUE_ARN.format("all")},
        ],
        "gone": [{"Id": "1", "Arn": QUEUE_ARN.format("nowhere")}],
    }
    patterns: dict[str, dict[str, Any]] = {
        "all": {"source": ["shop", "stock"]},
        "two": {"source": ["shop"], "detail": {"id": [{"numeric": ["<", 5]}]}},
        "small": {"source": ["stock"]},
        "part": {"source": ["shop"], "detail-type": ["Part"]},
        "ordered": {"source": ["fifo"]},
        "gone": {"source": ["gone"]},
    }
    for name, pattern in patterns.items():
        await bench.ask("PutRule", {"Name": name, "EventPattern": json.dumps(pattern)})
        await bench.ask("PutTargets", {"Rule": name, "Targets": targets[name]})


def request(operation: str, members: Any, *, prefix: str = "AWSEvents", path: str = "/", **headers: str) -> bytes:
    body = members if isinstance(members, bytes) else json.dumps(members).encode()
    version = "1.1" if prefix == "AWSEvents" else "1.0"
    given = {
        "Host": "127.0.0.1",
        "X-Amz-Target": f"{prefix}.{operation}",
        "Content-Type": f"application/x-amz-json-{version}",
        "Content-Length": str(len(body)),
    }
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items() if value)
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


async def exchange(port: int, data: bytes, *, answers: int = 1, pieces: int | None = None) -> bytes:
    """What is answered to bytes, up to the end of so many answers or of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in [data] if pieces is None else [data[at : at + pieces] for at in range(0, len(data), pieces)]:
        writer.write(piece)
        await writer.drain()
        if pieces is not None:
            await asyncio.sleep(0)
    received = b""
    async with asyncio.timeout(20):
        for _ in range(answers):
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            length = re.search(rb"content-length: ([0-9]+)", head)
            received += head + (await reader.readexactly(int(length[1])) if length else b"")
    writer.close()
    return received


# --- requests: the short way and the usual one ------------------------------------------------------------------------


def entries(count: int, **members: str) -> dict[str, Any]:
    return {"Entries": [{**ENTRY, **members}] * count}


CASES: dict[str, bytes] = {
    "one entry": request("PutEvents", entries(1)),
    "ten entries": request("PutEvents", entries(10)),
    "eleven entries": request("PutEvents", entries(11)),
    "no entries": request("PutEvents", {"Entries": []}),
    "no member": request("PutEvents", {}),
    "not JSON": request("PutEvents", b'{"Entries":'),
    "not UTF-8": request("PutEvents", b'{"Entries":[{"Source":"\xff"}]}'),
    "an empty body": request("PutEvents", b""),
    "an array": request("PutEvents", b"[]"),
    "wrong types": request("PutEvents", {"Entries": [{"Source": 1}]}),
    "a bus that is not there": request("PutEvents", entries(1, EventBusName="nowhere")),
    "an impossible bus": request("PutEvents", entries(1, EventBusName="no bus")),
    "a missing member": request("PutEvents", {"Entries": [ENTRY, {"Source": "shop"}]}),
    "a detail that is no object": request("PutEvents", entries(2, Detail="[1]")),
    "a source of AWS": request("PutEvents", entries(1, Source="aws.ec2")),
    "too large": request("PutEvents", entries(10, Detail='{"a":"' + "x" * 110_000 + '"}')),
    "longer than the short way": request("PutEvents", entries(10, Detail='{"a":"' + "x" * LONGEST_SHORT + '"}')),
    "a trace header": request("PutEvents", entries(1, TraceHeader="Root=1-5759e988-bd862e3fe1be46a994272793")),
    "an X-Ray header": request("PutEvents", entries(1), X_Amzn_Trace_Id="Root=1-5759e988-bd862e3fe1be46a994272793"),
    "an endpoint": request("PutEvents", {**entries(1), "EndpointId": "abcde.veo"}),
    "a signed request": request("PutEvents", entries(1), Authorization=SIGNED.format("eu-west-1")),
    "an impossible region": request("PutEvents", entries(1), Authorization=SIGNED.format("EU!")),
    "another host": request("PutEvents", entries(1), Host="evil.example"),
    "a page of another server": request("PutEvents", entries(1), Origin="http://evil.example"),
    "another content type": request("PutEvents", entries(1), Content_Type="text/plain"),
    "a content type with more": request("PutEvents", entries(1), Content_Type="application/x-amz-json-1.1; a=b"),
    "another operation": request("ListEventBuses", {}),
    "an unknown operation": request("PutEverything", {}),
    "no target": request("PutEvents", entries(1), X_Amz_Target=""),
    "another path": request("PutEvents", entries(1), path="/queue"),
    "a query": request("PutEvents", entries(1), path="/?X-Amz-Credential=k%2F1%2Feu-west-1%2Fevents%2Faws4_request"),
    "the end of the connection": request("PutEvents", entries(1), Connection="close"),
    "HTTP/1.0": request("PutEvents", entries(1)).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "chunks": request("PutEvents", entries(1), Content_Length="", Transfer_Encoding="chunked").partition(b"\r\n\r\n")[0]
    + b"\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(json.dumps(entries(1))), json.dumps(entries(1)).encode()),
    "an expectation": request("PutEvents", entries(1), Expect="100-continue"),
    "another method": request("PutEvents", b"").replace(b"POST", b"PUT"),
}  # fmt: skip


def comparable(answer: bytes) -> bytes:
    """An answer without what differs each time; its headers in any order."""
    head, _, body = UUID.sub(b"*", answer).partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    return b"\n".join([status, *sorted(lines), b"", body])


async def test_every_request_is_answered_the_same_on_either_way() -> None:
    async with serving() as quick, serving(short=False) as usual:
        await wire_up(quick)
        await wire_up(usual)
        for name, data in CASES.items():
            answers = 2 if name == "an expectation" else 1
            expected = comparable(await exchange(usual.port, data, answers=answers))
            assert expected, name
            assert comparable(await exchange(quick.port, data, answers=answers)) == expected, name
            again = await exchange(quick.port, data, answers=answers, pieces=7 if len(data) < 10_000 else None)
            assert comparable(again) == expected, f"{name}, in pieces"
            await exchange(usual.port, data, answers=answers)
        for queue in ("all", "late", "second"):
            assert sorted(await quick.bodies(queue)) == sorted(await usual.bodies(queue))
        assert counters(quick) == counters(usual)


def counters(bench: Bench) -> list[str]:
    """The metrics but for what depends on time."""
    lines = bench.app.metrics.expose().decode().splitlines()
    return sorted(line for line in lines if line[0] != "#" and "Latency" not in line and "_created" not in line)


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with serving() as bench:
        await wire_up(bench)
        counts = [1, 2, 3, 4, 5, 6]
        many = b"".join(request("PutEvents", entries(count)) for count in counts)
        answers = await exchange(bench.port, many, answers=len(counts))
        assert [part.count(b"EventId") for part in answers.split(b"HTTP/1.1 ")[1:]] == counts


async def test_pipelined_requests_of_both_ways_are_answered_in_order() -> None:
    async with serving() as bench:
        await wire_up(bench)
        data = (
            request("PutEvents", entries(1))
            + request("ListEventBuses", {})
            + request("PutEvents", entries(2, TraceHeader="Root=1-5759e988-bd862e3fe1be46a994272793"))
            + request("PutEvents", entries(3), Content_Type="application/json;a=b")
            + request("PutEvents", entries(4))
        )
        for pieces in (None, 100):
            answers = (await exchange(bench.port, data, answers=5, pieces=pieces)).split(b"HTTP/1.1 ")[1:]
            assert [part.count(b"EventId") for part in answers] == [1, 0, 2, 3, 4]
            assert b"EventBuses" in answers[1]


async def test_a_request_left_to_the_usual_way_keeps_its_place_and_its_headers() -> None:
    """By the time it is left, others have come behind it on the same connection."""
    async with serving() as bench:
        await wire_up(bench)
        refused = request("PutEvents", entries(11))
        data = request("PutEvents", {**entries(1), "EndpointId": None}) + request("PutEvents", entries(2)) + refused
        answers = (await exchange(bench.port, data, answers=3)).split(b"HTTP/1.1 ")[1:]
        assert [part.count(b"EventId") for part in answers] == [1, 2, 0]
        assert b"1 validation error" in answers[2]


async def test_nothing_is_answered_before_it_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as bench:
        await wire_up(bench)
        held: list[Any] = []
        journal = bench.app.store.journal
        monkeypatch.setattr(journal, "submit_rows", lambda rows, *, then, failed: held.append(then))
        asked = asyncio.create_task(bench.call("PutEvents", entries(1)))
        while not held:  # noqa: ASYNC110 - what is waited for is a request that arrives
            await asyncio.sleep(0)
        await bench.ask("ListEventBuses", {})
        assert not asked.done()
        held[0]()
        assert b"EventId" in await asked


async def test_a_client_that_leaves_costs_nobody_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as bench:
        await wire_up(bench)
        _, writer = await asyncio.open_connection("127.0.0.1", bench.port)
        writer.write(request("PutEvents", entries(1)))
        writer.transport.abort()
        _, writer = await asyncio.open_connection("127.0.0.1", bench.port)
        writer.write(request("PutEvents", entries(1))[:-1])
        await writer.drain()
        writer.transport.abort()
        assert (await bench.ask("PutEvents", entries(2)))["FailedEntryCount"] == 0
        while bench.connections:  # noqa: ASYNC110 - what is waited for is the server's end of a connection
            await asyncio.sleep(0)


async def test_a_stop_lets_a_request_finish_and_ends_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as bench:
        await wire_up(bench)
        held: list[Any] = []
        monkeypatch.setattr(bench.app.store.journal, "submit_rows", lambda rows, *, then, failed: held.append(then))
        asked = asyncio.create_task(bench.call("PutEvents", entries(1)))
        while not held:  # noqa: ASYNC110 - what is waited for is a request that arrives
            await asyncio.sleep(0)
        for connection in list(bench.connections):
            connection.shutdown()
        held[0]()
        answer = await asked
        assert b"EventId" in answer
        assert b"connection: close" in answer


async def test_an_idle_connection_is_closed_after_a_while() -> None:
    async with serving() as bench:
        reader, writer = await asyncio.open_connection("127.0.0.1", bench.port)
        while not bench.connections:  # noqa: ASYNC110 - what is waited for is the server's end of a connection
            await asyncio.sleep(0)
        (connection,) = bench.connections
        connection.timeout_keep_alive = 0.01
        for _ in range(2):
            writer.write(request("PutEvents", entries(1)))
            assert b"EventId" in await reader.readuntil(b"]}")
        async with asyncio.timeout(20):
            assert await reader.read(-1) == b""
        writer.close()


# --- events: straight into queues, or planned -------------------------------------------------------------------------

DETAILS = st.one_of(
    st.sampled_from(
        [
            '{"id":1}',
            ' { "id" : 2 , "id" : 9 } ',
            '{"id":3,"name":"Zo\\u00eb","path":"a\\/b","quote":"\\"\\\\u0041"}',
            '{ "\\u0069d" : 3, "escapes" : "\\n\\t\\u0007\\u000a\\u0022\\u007f\\u2028 \\ud83d\\ude00" }',
            '{"id":3,"lone":"\\ud83d"}',
            '{"id":3,"wrong":"\\x"}',
            '{"id":3}\\u0020',
            '{"id":1e999,"text":"\\ud83d\\ude00 \\ud800"}',
            '{"id":4,"odd":"\ufffe"}',
            '{"id":4,"odd":"\uffff \\uffff"}',
            '{"id":4,"\ufeff":"\x7f\u0085"}',
            '{"a":' * 940 + "1" + "}" * 940,
            '{"a":' * 1001 + "1" + "}" * 1001,
            '{"id":1,"big":"' + "x" * 900 + '"}',
            '{"id":1,"big":"' + "x" * 2500 + '"}',
            '{"id":1,"big":"' + "x" * 100_000 + '"}',
            "[]",
            "{",
            "",
            '{"a":"\n"}',
            '{"a":1}x',
            '{"a":01}',
            "\ufeff{}",
            "{}\x00",
        ]
    ),
    st.dictionaries(
        st.text(max_size=5), st.integers() | st.floats(allow_nan=False) | st.text(max_size=9), max_size=4
    ).map(lambda value: json.dumps(value, ensure_ascii=len(value) % 2 == 0)),
)
ENTRIES = st.fixed_dictionaries(
    {"Source": st.sampled_from(["shop", "stock", "fifo", "gone", "else", "shöp"]), "Detail": DETAILS},
    optional={
        "DetailType": st.sampled_from(["OrderPlaced", "Part", "AWS API Call via CloudTrail"]),
        "Resources": st.sampled_from([[], ["arn:a"], ["arn:a", "ö"]]),
        "Time": st.sampled_from([0, 1.5, 1_700_000_000]),
        "EventBusName": st.sampled_from(["default", "nowhere"]),
        "TraceHeader": st.just("Root=1-5759e988-bd862e3fe1be46a994272793"),
    },
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(ENTRIES, min_size=1, max_size=10), min_size=1, max_size=4))
def test_events_come_to_the_same_whatever_way_they_take(requests: list[list[dict[str, Any]]]) -> None:
    """Straight or planned, among their like or looked at one by one."""

    async def run(*, straight: bool, alike: bool) -> tuple[Any, ...]:
        with pytest.MonkeyPatch.context() as patch:
            if not alike:
                patch.setattr(EventKind, "match_plain", None)
            return await put_all(straight=straight)

    async def put_all(*, straight: bool) -> tuple[Any, ...]:
        async with serving(straight=straight) as bench:
            await wire_up(bench)
            answers = []
            for given_entries in requests:
                for _ in range(5):  # by then the index has narrowed the rules to the pair
                    answer = await bench.call("PutEvents", {"Entries": given_entries})
                answers.append(comparable(answer))
            queues = {
                name: sorted(await bench.bodies(name)) for name in ("all", "small", "late", "second", "orders.fifo")
            }
            counts = {
                name: (await bench.app.queues.counts(bench.app.queues.find(QUEUE_ARN.format(name)))) for name in queues
            }  # type: ignore[arg-type]
            return answers, queues, counts, counters(bench)

    planned = asyncio.run(run(straight=False, alike=False))
    for straight, alike in ((True, True), (True, False), (False, True)):
        for one, other in zip(asyncio.run(run(straight=straight, alike=alike)), planned, strict=True):
            assert one == other


async def test_most_events_for_queues_do_go_straight(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as bench:
        await wire_up(bench)
        monkeypatch.setattr(bench.app.dispatch, "plan", lambda *arguments: pytest.fail("planned"))
        answer = await bench.ask("PutEvents", {"Entries": [ENTRY, {**ENTRY, "Source": "stock", "Time": 1.5}]})
        assert answer["FailedEntryCount"] == 0
        assert len(await bench.bodies("all")) == 2
