"""The pure half of busbar: values in, values out, no clock, no sockets, no files.

    from rules import MatchIndex, Pattern

    index = MatchIndex({"gold": Pattern.parse('{"detail": {"tier": ["gold"]}}')})
    index.match({"detail": {"tier": "gold"}})           # ["gold"]
    index.match_json(b'{"detail": {"tier": "gold"}}')   # the same, from text

`Pattern.parse` accepts and refuses exactly what Amazon EventBridge does, with its messages. A `MatchIndex` never
changes; adding or removing a rule gives a new one, so any number of threads may match without a lock.
"""

from rules.errors import PatternError, RulesError, ScheduleError
from rules.explain import Finding, explain
from rules.flatten import EventError, parse_event
from rules.index import MatchIndex
from rules.pattern import Pattern
from rules.schedule import Schedule, parse_at, parse_schedule

__all__ = [
    "EventError",
    "Finding",
    "MatchIndex",
    "Pattern",
    "PatternError",
    "RulesError",
    "Schedule",
    "ScheduleError",
    "explain",
    "parse_at",
    "parse_event",
    "parse_schedule",
]
