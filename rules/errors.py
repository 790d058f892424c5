"""Errors of the pure half: few kinds, facts as fields."""

from __future__ import annotations


class RulesError(Exception):
    """Base of every error that `rules` raises on purpose."""


class PatternError(RulesError):
    """An event pattern was refused.

    `reason` is what AWS prints after "Event pattern is not valid. Reason: ", location tail included where AWS prints
    one; `headline` is its first line.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"Event pattern is not valid. Reason: {reason}")
        self.reason = reason

    @property
    def headline(self) -> str:
        return self.reason.partition("\n")[0]


class ScheduleError(RulesError):
    """A schedule expression was refused; ``reason`` says in words what of it is wrong."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
