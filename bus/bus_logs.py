"""Bus logs: what a bus with a LogConfig tells of every event, step by step.

Each step is one record of AWS's form, a line in the bus's file. `STEPS` says from which level on a step is told. The
callers ask ``if logs.buses`` before they call anything here, so that a server on which no bus logs pays for no more
than that; what is asked for is then looked up by the bus.

The invocation id stands for one event and one target, in all its attempts and after a restart; it is made from both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import orjson

from bus.accepted import Accepted
from bus.arrival import open_envelope
from bus.clock import Clock
from bus.scope import Scope
from bus.store import Lease
from bus.targets import Delivered, Failed, Outcome, Route
from rules.arn import bus_arn, is_url, parse

LEVELS = {"OFF": 0, "ERROR": 1, "INFO": 2, "TRACE": 3}

STEPS = {
    "EVENT_RECEIPT": "TRACE",
    "EVENT_INGEST_SUCCESS": "INFO",
    "EVENT_INGEST_FAILURE": "ERROR",
    "RULE_MATCH_START": "TRACE",
    "RULE_MATCH": "INFO",
    "NO_STANDARD_RULES_MATCHED": "INFO",
    "INVOCATION_START": "INFO",
    "INVOCATION_ATTEMPT_START": "TRACE",
    "INVOCATION_ATTEMPT_SUCCESS": "INFO",
    "INVOCATION_ATTEMPT_RETRYABLE_FAILURE": "ERROR",
    "INVOCATION_ATTEMPT_THROTTLE": "ERROR",
    "INVOCATION_ATTEMPT_PERMANENT_FAILURE": "ERROR",
    "INVOCATION_SUCCESS": "INFO",
    "INVOCATION_FAILURE": "ERROR",
    "INVOCATION_DLQ": "ERROR",
}

SUCCESS = "SUCCESS"
THROTTLING = "THROTTLING"
LARGEST_RECORD = 1_000_000
"""Bytes; of a larger record the longest member of its details is dropped."""

_PROPERTIES = frozenset({"Id", "Arn", "RoleArn", "Input", "InputPath", "InputTransformer"})
"""Members of a target that are told elsewhere in a record; all others are its properties."""


@dataclass(frozen=True, slots=True)
class Logging:
    """How much a bus tells: steps up to this level, with or without what the events hold."""

    level: int
    full: bool


def logging_of(config: Mapping[str, Any] | None) -> Logging | None:
    """What a LogConfig asks for; None when it asks for nothing."""
    level = LEVELS[(config or {}).get("Level") or "OFF"]
    return Logging(level, (config or {}).get("IncludeDetail") == "FULL") if level else None


class Rule(Protocol):
    """What is told of a rule that matched."""

    @property
    def arn(self) -> str: ...
    @property
    def routes(self) -> Iterable[Route]: ...
    @property
    def managed_by(self) -> str | None: ...


class BusLogs:
    """Writes the records.

    ``buses`` has the buses that log, by scope and name, as of now; ``write`` takes the name of a bus's file and a line.
    """

    def __init__(
        self, clock: Clock, *, buses: Mapping[tuple[Scope, str], Logging], write: Callable[[Path, bytes], None]
    ) -> None:
        self.buses = buses
        self._clock = clock
        self._write = write

    # -- events

    def tell_of(self, scope: Scope, bus: str) -> bool:
        """Whether that bus logs."""
        return (scope, bus) in self.buses

    def accepted(self, scope: Scope, bus: str, event: Accepted, rules: Iterable[Rule]) -> None:
        """An event is on the bus, and these rules receive it."""
        logging = self.buses.get((scope, bus))
        if logging is None:
            return
        rules = list(rules)
        told = _event_details(event.body, logging)
        if not rules and told["source"].startswith("aws."):
            return  # AWS says nothing of its services' events unless a rule wants them
        record = _Record(self, logging, scope, bus, event.event_id)
        record.write("EVENT_RECEIPT", told, at=event.ts)
        record.write("EVENT_INGEST_SUCCESS", told)
        record.write("RULE_MATCH_START", told)
        for rule in rules:
            routes = list(rule.routes)
            record.write(
                "RULE_MATCH",
                {
                    "rule_arn": rule.arn,
                    "target_arns": [route.arn for route in routes],
                    "invocation_ids": [invocation_id(event.event_id, route) for route in routes],
                },
            )
        if all(rule.managed_by is not None for rule in rules):
            record.write("NO_STANDARD_RULES_MATCHED", {})

    def refused(self, scope: Scope, bus: str, event: Accepted, reason: str) -> None:
        """An event could not be stored, and its sender was told so."""
        logging = self.buses.get((scope, bus))
        if logging is not None:
            record = _Record(self, logging, scope, bus, event.event_id)
            details, error = _event_details(event.body, logging), _error("events", reason)
            record.write("EVENT_INGEST_FAILURE", details, error=error)

    # -- deliveries

    def created(self, event: Accepted, waiting: Iterable[Route], over: Iterable[Route]) -> None:
        """Deliveries begin; those that are ``over`` ended well with the commit of their event."""
        for route in waiting:
            self._about(route, event.event_id, "INVOCATION_START", _target(route, 0))
        now = self._clock.now_ms()
        for route in over:
            self._about(route, event.event_id, "INVOCATION_START", _target(route, 0))
            self._about(route, event.event_id, "INVOCATION_ATTEMPT_START", _target(route, 1))
            self._about(route, event.event_id, "INVOCATION_ATTEMPT_SUCCESS", _attempt(route, 1, SUCCESS, 0))
            self._about(route, event.event_id, "INVOCATION_SUCCESS", _end(route, 1, SUCCESS, now - event.ts))

    def attempting(self, route: Route, lease: Lease, body: bytes) -> None:
        """An attempt begins, with this body."""
        details = _target(route, lease.attempts + 1)
        self._about(route, lease.event_id, "INVOCATION_ATTEMPT_START", details, body)

    def attempted(self, route: Route, lease: Lease, body: bytes, outcome: Outcome, took_s: float) -> None:
        """An attempt ended; when it ended well, so did the delivery."""
        number, took = lease.attempts + 1, round(took_s * 1000)
        if isinstance(outcome, Delivered):
            details = _end(route, number, SUCCESS, self._clock.now_ms() - lease.ts)
            self._about(route, lease.event_id, "INVOCATION_ATTEMPT_SUCCESS", _attempt(route, number, SUCCESS, took))
            self._about(route, lease.event_id, "INVOCATION_SUCCESS", {**details, "target_duration_ms": took}, body)
            return
        details = _attempt(route, number, outcome.code, took)
        self._about(route, lease.event_id, _failed_step(outcome), details, error=_target_error(route, outcome))

    def ended(self, route: Route, lease: Lease, body: bytes, failure: Failed, *, attempts: int, letter: bool) -> None:
        """A delivery is over without success; ``letter`` says that its dead-letter queue has it."""
        details = _end(route, attempts, failure.code, None)
        error = _target_error(route, failure)
        self._about(route, lease.event_id, "INVOCATION_FAILURE", details, body, error=error)
        if letter:
            self._about(route, lease.event_id, "INVOCATION_DLQ", details, body, error=error)

    def _about(
        self,
        route: Route,
        event_id: str,
        step: str,
        details: dict[str, Any],
        body: bytes | None = None,
        *,
        error: dict[str, Any] | None = None,
    ) -> None:
        logging = self.buses.get((route.scope, route.bus))
        if logging is None:
            return
        if logging.full:
            details = {**details, **_content(route, body)}
        record = _Record(self, logging, route.scope, route.bus, event_id)
        record.write(step, details, error=error, invocation=invocation_id(event_id, route))

    def put(self, scope: Scope, bus: str, record: dict[str, Any], at: int | None) -> None:
        """Write a record, with the instant of its step in milliseconds; None is now."""
        record["message_timestamp_ms"] = self._clock.now_ms() if at is None else at
        self._write(file_name(scope, bus), _line(record))


@dataclass(frozen=True, slots=True)
class _Record:
    """What the records of one event have in common."""

    logs: BusLogs
    logging: Logging
    scope: Scope
    bus: str
    event_id: str

    def write(
        self,
        step: str,
        details: dict[str, Any],
        *,
        at: int | None = None,
        error: dict[str, Any] | None = None,
        invocation: str | None = None,
    ) -> None:
        """One step, when the bus wants to know of it."""
        level = STEPS[step]
        if LEVELS[level] > self.logging.level:
            return
        record: dict[str, Any] = {
            "resource_arn": bus_arn(self.bus, region=self.scope.region, account=self.scope.account),
            "event_bus_name": self.bus,
            "event_id": self.event_id,
            "invocation_id": invocation,
            "message_type": step,
            "log_level": level,
            "details": details,
            "error": error,
        }
        self.logs.put(self.scope, self.bus, {key: value for key, value in record.items() if value is not None}, at)


def silent(clock: Clock) -> BusLogs:
    """The logs of a server on which no bus has any."""
    return BusLogs(clock, buses={}, write=lambda name, line: None)


def file_name(scope: Scope, bus: str) -> Path:
    """The path of a bus's log below the folder of all of them; ``/``, which partner buses have, becomes ``+``."""
    return Path(scope.account, scope.region, bus.replace("/", "+") + ".jsonl")


def invocation_id(event_id: str, route: Route) -> str:
    """A name for the deliveries of an event to a target."""
    return str(UUID(bytes=blake2b(f"{event_id}/{route.number}".encode(), digest_size=16).digest(), version=5))


def _event_details(body: bytes, logging: Logging) -> dict[str, Any]:
    envelope = open_envelope(body)
    details = {
        "caller_account_id": envelope.account,
        "source_time_ms": int(datetime.fromisoformat(envelope.time).timestamp() * 1000),
        "source": envelope.source,
        "detail_type": envelope.detail_type,
        "resources": envelope.resources,
    }
    return {**details, "event_detail": bytes(envelope.detail).decode()} if logging.full else details


def _target(route: Route, attempts: int) -> dict[str, Any]:
    return {**_parties(route), "attempt_count": attempts}


def _parties(route: Route) -> dict[str, Any]:
    parties = {"rule_arn": route.rule_arn, "role_arn": route.target.get("RoleArn"), "target_arn": route.arn}
    return {key: value for key, value in parties.items() if value is not None}


def _attempt(route: Route, number: int, status: str, took: int) -> dict[str, Any]:
    kind = "FIRST" if number == 1 else "RETRY"
    return {
        **_parties(route),
        "attempt_type": kind,
        "attempt_count": number,
        "invocation_status": status,
        "target_duration_ms": took,
    }


def _end(route: Route, attempts: int, status: str, latency: int | None) -> dict[str, Any]:
    details = {**_parties(route), "total_attempts": attempts, "final_invocation_status": status}
    return details if latency is None else {**details, "ingestion_to_success_latency_ms": latency}


def _content(route: Route, body: bytes | None) -> dict[str, Any]:
    """What IncludeDetail adds: what the target was sent, and how it is called."""
    properties = {member: value for member, value in route.target.items() if member not in _PROPERTIES}
    content = {"target_properties": orjson.dumps(properties).decode()} if properties else {}
    return content if body is None else {**content, "target_input": body.decode(errors="backslashreplace")}


def _failed_step(failure: Failed) -> str:
    if not failure.retry:
        return "INVOCATION_ATTEMPT_PERMANENT_FAILURE"
    throttled = failure.code == THROTTLING
    return "INVOCATION_ATTEMPT_THROTTLE" if throttled else "INVOCATION_ATTEMPT_RETRYABLE_FAILURE"


def _target_error(route: Route, failure: Failed) -> dict[str, Any]:
    return _error("http" if is_url(route.arn) else parse(route.arn).service, failure.message or failure.code)


def _error(service: str, message: str) -> dict[str, Any]:
    return {"error_message": message, "aws_service": service}


def _line(record: dict[str, Any]) -> bytes:
    """A record as JSON; when it is too large, without the longest of its details and with its name."""
    line = orjson.dumps(record) + b"\n"
    details = dict(record["details"])
    if len(line) <= LARGEST_RECORD or not details:
        return line
    longest = max(details, key=lambda name: len(str(details[name])))
    del details[longest]
    return _line({**record, "details": details, "dropped_fields": [*record.get("dropped_fields", ()), longest]})
