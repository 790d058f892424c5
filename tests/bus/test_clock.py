"""Ids: well formed, strictly increasing, whatever the clock does."""

from __future__ import annotations

import uuid
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from bus.clock import ENDING, IdSource, ManualClock


def test_an_id_is_a_uuid_version_7_with_the_time_in_front() -> None:
    clock = ManualClock(1_700_000_000_123)
    made = uuid.UUID(IdSource(clock).new())
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert made.int >> 80 == 1_700_000_000_123


@settings(deadline=None)
@given(st.lists(st.integers(-5000, 5000), max_size=50))
def test_ids_increase_even_when_the_clock_steps_back(steps: list[int]) -> None:
    clock = ManualClock()
    ids = IdSource(clock)
    made = [ids.new()]
    for step in steps:
        clock.advance(step / 1000)
        made.extend(ids.new() for _ in range(3))
    assert made == sorted(set(made))


def test_more_ids_than_one_millisecond_holds() -> None:
    ids = IdSource(ManualClock())
    made = [ids.new() for _ in range(10_000)]
    assert made == sorted(set(made))
    assert all(len(each) == 36 for each in made)


@settings(deadline=None)
@given(st.lists(st.integers(1, 10), max_size=1000))
def test_ids_made_together_are_as_good_as_ids_made_one_by_one(counts: list[int]) -> None:
    ids = IdSource(ManualClock())
    made: list[str] = []
    for count in counts:
        together = ids.several(count)
        assert len(together) == count
        made += [*together, ids.new()]
    assert made == sorted(set(made))
    assert all(uuid.UUID(each).version == 7 for each in made)


def test_an_id_with_another_ending_is_another_id() -> None:
    ids = IdSource(ManualClock())
    known = set(ids.several(1000))
    others = {each[:-ENDING] + ids.ending() for each in known}
    assert not known & others
    assert {UUID(each).version for each in others} == {7}
    assert {len(each) for each in others} == {36}
