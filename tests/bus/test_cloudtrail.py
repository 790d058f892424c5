"""Log files of CloudTrail: unpacking them, and putting their records."""

from __future__ import annotations

import gzip
import json
import threading
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from bus.arrival import Arrival
from bus.clock import IdSource, ManualClock
from bus.errors import ApiError, StoreUnavailable
from bus.metrics import Metrics
from bus.origins.cloudtrail import LARGEST, MOST_REASONS, MOST_VALUES, SLICE, CloudTrail, Refused, read_file, unpack
from bus.scope import Scope

SCOPE = Scope("000000000000", "us-east-1")
FOLDER = Path(__file__).parents[1] / "cases/cloudtrail"
GOOD, BAD = (
    [case["record"] for case in json.loads((FOLDER / name).read_text())] for name in ("records.json", "refused.json")
)


class Bench:
    def __init__(self) -> None:
        self.metrics = Metrics()
        self.puts: list[list[tuple[Arrival, str | None]]] = []
        self.fails_from = 1 << 30
        ids = IdSource(ManualClock())
        self.cloudtrail = CloudTrail(ids, metrics=self.metrics, put=self.put, max_bytes=10_000)

    async def put(
        self, scope: Scope, bus_name: str, arrivals: Iterable[Arrival], *, keys: Iterable[str | None]
    ) -> bool:
        assert (scope, bus_name) == (SCOPE, "default")
        if len(self.puts) >= self.fails_from:
            raise StoreUnavailable("full")
        self.puts.append(list(zip(arrivals, keys, strict=True)))
        return True

    async def load(self, *records: Any) -> Any:
        return await self.cloudtrail.load(SCOPE, file(*records))


def file(*records: Any) -> bytes:
    return json.dumps({"Records": records}).encode()


def refusal(body: bytes, *, limit: int = LARGEST) -> tuple[str, str]:
    with pytest.raises(ApiError) as refused:
        read_file(body, limit=limit)
    return refused.value.code, refused.value.message


async def test_good_records_are_put_and_bad_ones_told() -> None:
    bench = Bench()
    loaded = await bench.load(BAD[0], *GOOD, BAD[3])
    assert (loaded.accepted, loaded.refused) == (len(GOOD), 2)
    assert loaded.reasons == [(0, "is not a JSON object"), (len(GOOD) + 1, "has no eventSource")]
    (put,) = bench.puts
    assert [json.loads(arrival.detail) for arrival, _ in put] == GOOD, "the detail is the record"
    counts = bench.metrics.services
    assert (counts.CloudTrailRecordsCount, counts.CloudTrailFailedRecordsCount) == (len(GOOD) + 2, 2)


async def test_what_a_record_does_not_say_is_filled_in() -> None:
    bench = Bench()
    await bench.load(
        {"eventTime": "2014-03-24T21:11:59Z", "eventSource": "ec2.amazonaws.com", "awsRegion": "eu-west-1"}
    )
    (((arrival, key),),) = bench.puts
    assert (arrival.fields()["account"], key) == (SCOPE.account, None)
    assert len(arrival.event_id) == 36


async def test_a_record_sent_again_has_the_same_key() -> None:
    bench = Bench()
    await bench.load(GOOD[0])
    await bench.load(GOOD[0], GOOD[1])
    keys = [[key for _, key in put] for put in bench.puts]
    assert keys[0][0] is not None
    assert keys[0][0] == keys[1][0] != keys[1][1]


async def test_the_record_stays_to_the_letter() -> None:
    bench = Bench()
    text = json.dumps(GOOD[1])[:-1] + ', "additionalEventData": {"bytes": 1.50e3, "n": 12345678901234567890123}}'
    await bench.cloudtrail.load(SCOPE, b'{"Records":[%b]}' % text.encode())
    assert b'{"bytes":1.50e3,"n":12345678901234567890123}' in bench.puts[0][0][0].compact_detail()


async def test_a_long_file_comes_in_slices() -> None:
    bench = Bench()
    records = [{**GOOD[1], "eventID": f"id-{n}"} for n in range(2 * SLICE + 1)]
    assert (await bench.load(*records)).accepted == len(records)
    assert [len(put) for put in bench.puts] == [SLICE, SLICE, 1]


async def test_a_disk_that_fills_on_the_way_is_told() -> None:
    bench = Bench()
    bench.fails_from = 1
    with pytest.raises(StoreUnavailable):
        await bench.load(*[GOOD[1]] * (SLICE + 1))


async def test_of_very_many_bad_records_the_first_are_told() -> None:
    bench = Bench()
    loaded = await bench.load(*[None] * (MOST_REASONS + 5))
    assert (loaded.accepted, loaded.refused, len(loaded.reasons)) == (0, MOST_REASONS + 5, MOST_REASONS)
    assert bench.puts == []


async def test_no_more_reasons_are_kept_than_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Refused] = []

    def refused(place: int, reason: str) -> Refused:
        made.append(Refused(place, reason))
        return made[-1]

    monkeypatch.setattr("bus.origins.cloudtrail.Refused", refused)
    loaded = await Bench().load(*[None] * (MOST_REASONS + 5))
    assert (loaded.refused, len(made)) == (MOST_REASONS + 5, MOST_REASONS)


async def test_what_is_packed_is_read_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []

    def read(body: bytes) -> list[Any]:
        threads.append(threading.current_thread())
        return read_file(body)

    monkeypatch.setattr("bus.origins.cloudtrail.read_file", read)
    bench = Bench()
    assert (await bench.cloudtrail.load(SCOPE, gzip.compress(file(GOOD[0])))).accepted == 1
    assert threads[0] is not threading.main_thread(), "little that is packed may be much"


async def test_a_record_that_is_too_large_is_refused_alone() -> None:
    bench = Bench()
    loaded = await bench.load({**GOOD[0], "requestParameters": "x" * 10_000}, GOOD[0])
    assert (loaded.accepted, loaded.reasons) == (1, [(0, "is larger than 10000 bytes")])


@pytest.mark.parametrize("odd", [b"1e999", b"9" * 5000, b'{"a":' * 900 + b"1" + b"}" * 900])
async def test_odd_json_is_kept(odd: bytes) -> None:
    bench = Bench()
    record = json.dumps(GOOD[1])[:-1].encode() + b', "odd": %b}' % odd
    assert (await bench.cloudtrail.load(SCOPE, b'{"Records":[%b]}' % record)).accepted == 1
    assert odd in bench.puts[0][0][0].compact_detail()


async def test_a_large_file_is_read_beside_the_loop() -> None:
    bench = Bench()
    records = [{**GOOD[1], "eventID": f"id-{n}", "requestParameters": {"x": "y" * 500}} for n in range(200)]
    assert len(file(*records)) > 1 << 16
    assert (await bench.load(*records)).accepted == 200


class TestUnpacking:
    def test_plain_and_packed_are_the_same(self) -> None:
        body = file(*GOOD)
        packed = gzip.compress(body)
        halves = gzip.compress(body[:100]) + gzip.compress(body[100:])
        assert [bytes(each) for each in read_file(body)] == [bytes(each) for each in read_file(packed)]
        assert unpack(halves, limit=LARGEST) == body

    def test_a_byte_order_mark_is_no_harm(self) -> None:
        assert len(read_file(b"\xef\xbb\xbf" + file(GOOD[0]))) == 1

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            (b"", "The body is not a log file of CloudTrail"),
            (b"[]", "The body is not a log file of CloudTrail"),
            (b'{"records": []}', "The body is not a log file of CloudTrail"),
            (b'{"Records": {}}', "The body is not a log file of CloudTrail"),
            (b'{"Records": [', "The body is not a log file of CloudTrail"),
            (b"\xff\xfe", "The body is not a log file of CloudTrail"),
            (b'{"Records":[%b]}' % (b'{"a":' * 5000 + b"1" + b"}" * 5000), "The body is not a log file of CloudTrail"),
            (b"[" * 100_000, "The body is not a log file of CloudTrail"),
            (b"\x1f\x8b", "The body is gzip that breaks off."),
            (gzip.compress(file(*GOOD), mtime=0)[:-9], "The body is gzip that breaks off."),
            (gzip.compress(file(GOOD[0]), mtime=0) + b"more", "The body is not gzip"),
            (b"\x1f\x8b\x07" + bytes(20), "The body is not gzip"),
            (gzip.compress(b"not JSON", mtime=0), "The body is not a log file of CloudTrail"),
        ],
    )
    def test_what_is_no_log_file(self, body: bytes, message: str) -> None:
        code, found = refusal(body)
        assert code == "ValidationException"
        assert found.startswith(message)

    def test_a_bomb_is_not_unpacked(self) -> None:
        bomb = gzip.compress(bytes(64 << 20), 9)
        assert len(bomb) < 1 << 17
        code, message = refusal(bomb, limit=1 << 20)
        assert code == "RequestEntityTooLargeException"
        assert message == "The log file is longer than 1048576 bytes unpacked."

    def test_many_members_are_not_copied_again_and_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        handed = 0
        real = zlib.decompressobj

        class Counting:
            def __init__(self, wbits: int) -> None:
                self._real = real(wbits)

            def decompress(self, packed: bytes, most: int) -> bytes:
                nonlocal handed
                handed += len(packed)
                return self._real.decompress(packed, most)

            def __getattr__(self, name: str) -> Any:
                return getattr(self._real, name)

        monkeypatch.setattr("bus.origins.cloudtrail.zlib.decompressobj", Counting)
        members, body = 2000, gzip.compress(b"")
        assert unpack(body * members, limit=1) == b""
        assert handed < members * (1 << 12)

    def test_a_file_of_nothing_but_small_values_is_not_taken_apart(self) -> None:
        code, message = refusal(b'{"Records":[' + b"0," * MOST_VALUES + b"0,0]}")
        assert (code, message) == (
            "RequestEntityTooLargeException",
            f"The log file has more than {MOST_VALUES} values.",
        )

    def test_the_limit_is_that_of_the_text(self) -> None:
        body = file(GOOD[0])
        for sent in (body, gzip.compress(body)):
            assert unpack(sent, limit=len(body)) == body
            assert refusal(sent, limit=len(body) - 1)[0] == "RequestEntityTooLargeException"
