"""The pace of a target: the window, the pause, and the way back."""

from __future__ import annotations

import itertools

from bus.dispatch.pace import FIRST_PAUSE, LONGEST_PAUSE, PATIENCE, Pace


def fail(pace: Pace, times: int, *, now: float = 0.0) -> None:
    for _ in range(times):
        pace.failed(now, now)


def test_a_healthy_target_gets_the_whole_window() -> None:
    pace = Pace(64)
    assert pace.allows(63, 0.0)
    assert not pace.allows(64, 0.0)


def test_a_few_failures_change_nothing() -> None:
    pace = Pace(64)
    fail(pace, PATIENCE - 1)
    assert pace.window == 64
    assert pace.allows(0, 0.0)


def test_failures_in_a_row_pause_and_narrow() -> None:
    pace = Pace(64)
    fail(pace, PATIENCE)
    assert pace.window == 32
    assert not pace.allows(0, FIRST_PAUSE / 2)
    assert pace.allows(0, FIRST_PAUSE)


def test_the_pause_doubles_up_to_its_longest() -> None:
    pace = Pace(64)
    now = 0.0
    pauses = []
    fail(pace, PATIENCE - 1)
    for _ in range(12):
        pace.failed(now, now)
        pauses.append(pace.resume_at - now)
        now = pace.resume_at
    assert all(abs(later - min(2 * earlier, LONGEST_PAUSE)) < 1e-9 for earlier, later in itertools.pairwise(pauses))
    assert abs(pauses[-1] - LONGEST_PAUSE) < 1e-9
    assert pace.window == 1


def test_attempts_from_before_the_pause_do_not_lengthen_it() -> None:
    pace = Pace(64)
    fail(pace, PATIENCE)
    resume = pace.resume_at
    for _ in range(60):
        pace.failed(0.0, 0.05)
    assert pace.resume_at == resume


def test_one_success_ends_the_pause_and_the_window_grows_back() -> None:
    pace = Pace(4)
    now = 0.0
    fail(pace, PATIENCE)
    for _ in range(5):
        now = pace.resume_at
        pace.failed(now, now)
    assert pace.window == 1
    pace.succeeded()
    assert pace.allows(1, now)
    for _ in range(10):
        pace.succeeded()
    assert pace.window == 4
    fail(pace, PATIENCE - 1)
    assert pace.resume_at == 0.0, "the count of failures began anew"
