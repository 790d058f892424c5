"""The three states of a rule, and the events that a plainly enabled rule does not receive."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from rules.cloudtrail import API_CALL


class RuleState(StrEnum):
    """What PutRule takes as State."""

    ENABLED = "ENABLED"
    DISABLED = "DISABLED"
    ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS = "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS"


_READ_PREFIXES = ("Get", "List", "Describe")

# AWS documents these two as writes although their names, and the readOnly of their records, say otherwise.
_WRITES = frozenset({("sts.amazonaws.com", "GetFederationToken"), ("sts.amazonaws.com", "GetSessionToken")})

_FLAGS: dict[object, bool] = {True: True, False: False, "true": True, "false": False}


def receives(state: str, detail_type: str, detail_loader: Callable[[], object]) -> bool:
    """Tell whether a rule in this state gets an event that its pattern matches.

    `detail_loader` gives the parsed detail; it is called only for an API call that CloudTrail reports and a state that
    depends on it. KeyError for an unknown state.
    """
    return _RECEIVES[state](detail_type, detail_loader)


def is_read_only_management(detail_type: str, detail: object) -> bool:
    """Tell whether CloudTrail reports a read-only management call: what ENABLED withholds.

    What the record says of itself counts (`managementEvent`, `eventCategory`, `readOnly`); where it is silent it is
    taken as a management event, and its name decides between reading and writing. Sign-ins, insights, service and
    network events are not API calls, whatever their records say, and are never withheld.
    """
    if detail_type != API_CALL or not isinstance(detail, Mapping):
        return False
    return _is_management(detail) and _is_read_only(detail)


def _is_management(record: Mapping[str, Any]) -> bool:
    said = _flag(record, "managementEvent")
    if said is not None:
        return said
    return bool(record.get("eventCategory", "Management") == "Management")


def _is_read_only(record: Mapping[str, Any]) -> bool:
    source, name = record.get("eventSource"), record.get("eventName")
    if not isinstance(name, str):
        name = ""
    if isinstance(source, str) and (source, name) in _WRITES:
        return False
    said = _flag(record, "readOnly")
    return name.startswith(_READ_PREFIXES) if said is None else said


def _flag(record: Mapping[str, Any], member: str) -> bool | None:
    value = record.get(member)
    return _FLAGS.get(value) if isinstance(value, bool | str) else None


_RECEIVES: dict[str, Callable[[str, Callable[[], object]], bool]] = {
    RuleState.DISABLED: lambda detail_type, load: False,
    RuleState.ENABLED: lambda detail_type, load: (
        detail_type != API_CALL or not is_read_only_management(detail_type, load())
    ),
    RuleState.ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS: lambda detail_type, load: True,
}
