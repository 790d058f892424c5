"""CloudTrail records: what event each of them is on a bus.

The detail of such an event is the record itself. Everything else of the envelope is read off it here: the detail-type
from `eventType`, the source from `eventSource`, the rest from the members of like meaning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid5

from rules.errors import RulesError
from rules.event import EventTimeError, read_time

API_CALL = "AWS API Call via CloudTrail"
DETAIL_TYPES: Mapping[str, str] = {
    "AwsApiCall": API_CALL,
    "AwsConsoleSignIn": "AWS Console Sign In via CloudTrail",
    "AwsConsoleAction": "AWS Console Action via CloudTrail",
    "AwsServiceEvent": "AWS Service Event via CloudTrail",
    "AwsCloudTrailInsight": "AWS Insight via CloudTrail",
    "AwsVpceEvent": "AWS Network Activity Event via CloudTrail",
}
"""The detail-type for each eventType. AWS's guide spells the second one "Signin" in its list, and sends it so."""

_INSIGHT = "AwsCloudTrailInsight"
_IDS = UUID("6a1f3c1e-2d0b-5f0e-9a51-0c6b2b7f4d11")
"""The name space of the events' ids: one and the same record always becomes one and the same event."""

_DOMAIN = re.compile(r"\.amazonaws\.com(?:\.cn)?$")
_SERVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.\-_]{0,200}")
_REGION = re.compile(r"[a-z0-9\-]{1,64}")
_ACCOUNT = re.compile(r"[0-9]{12}")
_SHOWN = 100
"""Characters of a wrong value that a reason repeats."""


class RecordError(RulesError):
    """A record that is no event; `reason` completes a sentence that begins with the record."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the record {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class TrailEvent:
    """The envelope of a record's event.

    `event_id` is None for a record without an eventID (before version 1.01 of the format), `account` for one that
    names no account. `time` is as envelopes have it.
    """

    event_id: str | None
    source: str
    detail_type: str
    time: str
    region: str
    account: str | None
    resources: tuple[str, ...]


def read_record(record: object) -> TrailEvent:
    """Say what event a parsed record is; RecordError when it is none."""
    if not isinstance(record, Mapping):
        raise RecordError("is not a JSON object")
    event_type = _text(record, "eventType", default="AwsApiCall")  # the oldest records have none
    if event_type not in DETAIL_TYPES:
        raise RecordError(f"has an eventType that does not become an event: {event_type[:_SHOWN]!r}")
    return TrailEvent(
        event_id=_event_id(record),
        source=_source(record, event_type),
        detail_type=DETAIL_TYPES[event_type],
        time=_time(record),
        region=_region(record),
        account=next(_accounts(record), None),
        resources=tuple(_resources(record)),
    )


def _text(record: Mapping[str, Any], member: str, *, default: str | None = None) -> str:
    value = record.get(member)
    if value is None:
        if default is None:
            raise RecordError(f"has no {member}")
        return default
    if not isinstance(value, str) or not value:
        raise RecordError(f"has an {member} that is not text")
    return value


def _event_id(record: Mapping[str, Any]) -> str | None:
    given = _text(record, "eventID", default="")
    if not given.isascii():
        raise RecordError("has an eventID with characters that no id has")
    return str(uuid5(_IDS, given)) if given else None


def _source(record: Mapping[str, Any], event_type: str) -> str:
    # An insight is CloudTrail's own; the service it is about stands inside.
    name = "cloudtrail" if event_type == _INSIGHT else _DOMAIN.sub("", _text(record, "eventSource"))
    if not _SERVICE.fullmatch(name):
        raise RecordError(f"has an eventSource that names no service: {name[:_SHOWN]!r}")
    return f"aws.{name}"


def _time(record: Mapping[str, Any]) -> str:
    given = _text(record, "eventTime")
    try:
        return read_time(given)
    except EventTimeError as error:
        raise RecordError(f"has an eventTime that is none: {error}") from None


def _region(record: Mapping[str, Any]) -> str:
    region = _text(record, "awsRegion")
    if not _REGION.fullmatch(region):
        raise RecordError(f"has an awsRegion that is none: {region[:_SHOWN]!r}")
    return region


def _accounts(record: Mapping[str, Any]) -> Iterator[str]:
    """The accounts a record names, the recipient first; an anonymous caller's is not one."""
    identity = record.get("userIdentity")
    caller = identity.get("accountId") if isinstance(identity, Mapping) else None
    for given in (record.get("recipientAccountId"), caller):
        if isinstance(given, str) and _ACCOUNT.fullmatch(given):
            yield given


def _resources(record: Mapping[str, Any]) -> Iterator[str]:
    listed = record.get("resources")
    for each in listed if isinstance(listed, list) else ():
        if isinstance(each, Mapping) and isinstance(each.get("ARN"), str):
            yield each["ARN"]
