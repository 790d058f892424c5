"""The events, requests and rules that every measure uses.

An entry is an order of a shop: about 0.7 KB, of which about 600 bytes are its detail. Requests take turns: in one the
details are text as Python's `json.dumps` makes it (spaces after commas and colons), in the next compact text as most
other languages make it. The request around them is always what boto3 sends.
"""

from __future__ import annotations

import json
from typing import Any

from bus.clock import IdSource, SystemClock
from rules.event import render_envelope

BATCH = 10
SOURCE = "shop.orders"
DETAIL_TYPE = "OrderPlaced"
TIME = "2026-03-14T09:26:53Z"
CONTENT_TYPE = "application/x-amz-json-1.1"
STAMP_WIDTH = 20
"""Digits of a number that is written into a request that was made before; a fixed width keeps its length."""

NAMES = ("Ada Fairweather", "Zoë Lindqvist", "Tom Okafor", "Mira Castellanos")
"""One in four is not ASCII, which costs whoever sizes, matches and compacts the text."""

_STAMP = "#" * STAMP_WIDTH


def detail(number: int, *, n: str | None = None, at: str = "0") -> dict[str, Any]:
    """The order with this number, which ``n`` repeats; ``at`` is the instant it was put (ns)."""
    return {
        "n": f"{number:0{STAMP_WIDTH}d}" if n is None else n,
        "at": at,
        "orderId": f"ord-{number:012d}",
        "placedAt": "2026-03-14T09:26:53.589Z",
        "currency": "EUR",
        "total": 129.85 + number % 50,
        "express": number % 3 == 0,
        "customer": {
            "id": f"cus-{number % 977:08d}",
            "name": NAMES[number % len(NAMES)],
            "tier": "gold",
            "since": 2019,
        },
        "shipTo": {"street": "14 Harbour Lane", "city": "Kiel", "zip": "24103", "country": "DE"},
        "items": [
            {"sku": "TEA-0042-GRN", "title": "Gunpowder green tea, 250 g", "qty": 2, "price": 12.5},
            {"sku": "POT-0007-IRN", "title": "Cast-iron teapot, 0.9 l", "qty": 1, "price": 104.85},
        ],
        "note": "Please leave the parcel with the neighbours at number 16 when nobody opens.",
        "channel": {"kind": "web", "campaign": "spring-newsletter", "session": f"s-{number * 7919:010x}"},
    }


def entry(number: int, *, compact: bool, source: str = SOURCE, **stamps: str) -> dict[str, str]:
    """One entry of PutEvents."""
    separators = (",", ":") if compact else None
    text = json.dumps(detail(number, **stamps), separators=separators, ensure_ascii=not compact)
    return {"Source": source, "DetailType": DETAIL_TYPE, "Detail": text}


def put_request(first: int, *, size: int = BATCH, source: str = SOURCE) -> bytes:
    """A whole HTTP request that puts ``size`` events, numbered from ``first``."""
    compact = first // BATCH % 2 == 1
    return _request([entry(first + place, compact=compact, source=source) for place in range(size)])


def stamped_request() -> list[bytes]:
    """A request of one event in three pieces, between which its number and its instant belong."""
    return _request([entry(0, compact=False, n=_STAMP, at=_STAMP)]).split(_STAMP.encode())


def _request(entries: list[dict[str, str]]) -> bytes:
    body = json.dumps({"Entries": entries}).encode()
    head = (
        "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: {CONTENT_TYPE}\r\nX-Amz-Target: AWSEvents.PutEvents\r\n"
        "User-Agent: busbar-bench\r\nAccept-Encoding: identity\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def envelope(number: int, ids: IdSource, *, source: str = SOURCE) -> bytes:
    """The event as a target receives it."""
    return render_envelope(
        event_id=ids.new(),
        detail_type=DETAIL_TYPE,
        source=source,
        account="000000000000",
        time=TIME,
        region="us-east-1",
        resources=[],
        detail=json.dumps(detail(number), separators=(",", ":"), ensure_ascii=False).encode(),
    )


def envelopes(count: int, *, source: str = SOURCE) -> list[bytes]:
    """Distinct events as a target receives them."""
    ids = IdSource(SystemClock())
    return [envelope(number, ids, source=source) for number in range(count)]


SERVICES = ("orders", "payments", "stock", "returns", "mail", "search", "carts", "fraud", "loyalty", "reports")


def patterns(*, matching: bool) -> list[dict[str, Any]]:
    """A hundred event patterns, ten for each of ten services, of which one or none matches the events.

    Of the ten on the events' own source one has their detail-type as well and differs (or not) in the detail only,
    so that the detail has to be looked into.
    """
    return [pattern for service in SERVICES for pattern in _of_service(f"shop.{service}", matching=matching)]


def _of_service(source: str, *, matching: bool) -> list[dict[str, Any]]:
    named: dict[str, Any] = {"source": [source]}
    return [
        {**named, "detail-type": [DETAIL_TYPE], "detail": {"currency": ["EUR" if matching else "USD"]}},
        {**named, "detail-type": ["OrderCancelled"]},
        {**named, "detail-type": ["OrderShipped"]},
        {**named, "detail-type": ["InvoiceSent", "InvoicePaid"]},
        {**named, "detail-type": [{"prefix": "Refund"}]},
        {**named, "detail-type": ["OrderShipped"], "detail": {"shipTo": {"country": ["FR", "BE"]}}},
        {**named, "detail-type": ["OrderCancelled"], "detail": {"total": [{"numeric": [">", 1000]}]}},
        {**named, "detail-type": [DETAIL_TYPE], "detail": {"customer": {"tier": ["platinum"]}}},
        {**named, "detail": {"coupon": [{"exists": True}]}},
        {**named, "detail": {"channel": {"kind": [{"anything-but": ["web", "app"]}]}}},
    ]
