"""A replay as a value: what was asked for, how far it is, and what the operations show of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from bus.scope import Scope
from rules import arn

STARTING, RUNNING, CANCELLING = "STARTING", "RUNNING", "CANCELLING"
COMPLETED, CANCELLED, FAILED = "COMPLETED", "CANCELLED", "FAILED"
GOING_ON = frozenset({STARTING, RUNNING})
ACTIVE = GOING_ON | {CANCELLING}

INSTEAD: Mapping[tuple[str, str], str] = {
    (CANCELLING, RUNNING): CANCELLING,
    (CANCELLING, COMPLETED): CANCELLED,
    (CANCELLING, FAILED): CANCELLED,
}
"""(state, state it is to change to): the state it changes to instead, because a cancellation came first."""


class Replay(msgspec.Struct, frozen=True):
    """A replay.

    The window is ``start`` <= time < ``end`` (epoch seconds); ``started`` and ``ended`` are when the replay itself did
    (ms). ``archive_number`` names the archive's incarnation, ``mark`` is what the ids of replayed events are made from.
    Progress: ``place`` is that of the last event replayed for certain, ``replayed`` how many they were, of ``total``
    (None before they are counted), ``last`` what DescribeReplay shows as EventLastReplayedTime.
    """

    account: str
    region: str
    name: str
    archive: str
    archive_number: int
    bus: str
    start: int
    end: int
    started: int
    mark: str
    description: str | None = None
    filters: tuple[str, ...] = ()
    state: str = STARTING
    reason: str | None = None
    ended: int | None = None
    place: tuple[int, int] | None = None
    replayed: int = 0
    total: int | None = None
    last: int | None = None

    @property
    def scope(self) -> Scope:
        return Scope(self.account, self.region)

    @property
    def arn(self) -> str:
        return arn.replay_arn(self.name, region=self.region, account=self.account)

    @property
    def key(self) -> str:
        """The replay's key in the store."""
        return f"{self.account}/{self.region}/{self.name}"

    @property
    def archive_arn(self) -> str:
        return arn.archive_arn(self.archive, region=self.region, account=self.account)

    @property
    def bus_arn(self) -> str:
        return arn.bus_arn(self.bus, region=self.region, account=self.account)


def listed(replay: Replay) -> dict[str, Any]:
    """The members that ListReplays shows."""
    members = {
        "ReplayName": replay.name,
        "EventSourceArn": replay.archive_arn,
        "State": replay.state,
        "StateReason": replay.reason,
        "EventStartTime": replay.start,
        "EventEndTime": replay.end,
        "EventLastReplayedTime": replay.last,
        "ReplayStartTime": replay.started // 1000,
        "ReplayEndTime": None if replay.ended is None else replay.ended // 1000,
    }
    return {member: value for member, value in members.items() if value is not None}


def described(replay: Replay) -> dict[str, Any]:
    """The members that DescribeReplay shows."""
    destination: dict[str, Any] = {"Arn": replay.bus_arn}
    if replay.filters:
        destination["FilterArns"] = list(replay.filters)
    described = {**listed(replay), "ReplayArn": replay.arn, "Destination": destination}
    return described if replay.description is None else {**described, "Description": replay.description}
