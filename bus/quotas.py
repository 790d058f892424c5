"""How much of what an account may have: AWS's documented default quotas, as one value."""

from __future__ import annotations

from dataclasses import dataclass

from bus.errors import ApiError


@dataclass(frozen=True, slots=True)
class Quotas:
    """The numbers AWS documents; each counts the resources named, per account and region or per owner."""

    event_buses: int = 100
    rules_per_bus: int = 300
    wildcard_rules_per_bus: int = 30
    targets_per_rule: int = 5
    endpoints: int = 100
    tags_per_resource: int = 50
    connections: int = 3000
    api_destinations: int = 3000
    active_replays: int = 10
    schedules: int = 1_000_000
    schedule_groups: int = 500


def check_quota(count: int, quota: int) -> None:
    """Raise LimitExceededException when ``count`` resources would be more than ``quota``."""
    if count > quota:
        raise ApiError("LimitExceededException", "The requested resource exceeds the maximum number allowed.")
