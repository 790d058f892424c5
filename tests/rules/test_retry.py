import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.retry import Exhausted, RetryAt, RetryPolicy, decide, is_too_old, parse_retry_after

T0 = 1_767_261_600_000  # 2026-01-01T10:00:00Z
HOUR_MS = 3_600_000


def longest() -> float:
    return 1.0


def delay(attempt: int, draw: float = 1.0, retry_after_s: float | None = None) -> int:
    decision = decide(RetryPolicy(), attempt, T0, T0 + 5, retry_after_s=retry_after_s, jitter=lambda: draw)
    assert isinstance(decision, RetryAt)
    return decision.due_ms - (T0 + 5)


def test_delays_double_up_to_five_minutes() -> None:
    assert [delay(n) for n in range(1, 12)] == [
        1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 128_000, 256_000, 300_000, 300_000,
    ]  # fmt: skip
    assert delay(185) == 300_000


def test_jitter_spreads_delays_from_nothing_to_the_full_one() -> None:
    assert [delay(3, draw) for draw in (0.0, 0.25, 0.5)] == [0, 1000, 2000]


def test_the_longer_of_retry_after_and_the_normal_delay() -> None:
    assert delay(1, retry_after_s=30) == 30_000
    assert delay(1, retry_after_s=0) == 1000
    assert delay(12, retry_after_s=30) == 300_000
    assert delay(1, retry_after_s=0.5, draw=0) == 500


def test_a_negative_retry_after_ends_retries() -> None:
    decision = decide(RetryPolicy(), 3, T0, T0, retry_after_s=-1, jitter=longest)
    assert decision == Exhausted("MaximumRetryAttempts", 2)


@pytest.mark.parametrize("retries", [0, 1, 185])
def test_the_maximum_counts_retries_not_attempts(retries: int) -> None:
    policy = RetryPolicy(max_attempts=retries)
    for attempt in range(1, retries + 1):
        assert isinstance(decide(policy, attempt, T0, T0, jitter=longest), RetryAt)
    last = decide(policy, retries + 1, T0, T0, jitter=longest)
    assert last == Exhausted("MaximumRetryAttempts", retries)


def test_age_ends_retries() -> None:
    policy = RetryPolicy(max_age_s=60)
    over = Exhausted("MaximumEventAgeInSeconds", 1)
    assert decide(policy, 2, T0, T0 + 60_000, jitter=longest) == over
    assert decide(policy, 2, T0, T0 + 58_000, jitter=longest) == over
    assert decide(policy, 2, T0, T0 + 57_999, jitter=longest) == RetryAt(T0 + 59_999)
    assert decide(policy, 2, T0, T0, retry_after_s=60, jitter=longest) == over


def test_both_limits_reached_name_the_attempts() -> None:
    decision = decide(RetryPolicy(max_attempts=1), 2, T0, T0 + 48 * HOUR_MS, jitter=longest)
    assert decision == Exhausted("MaximumRetryAttempts", 1)


def test_a_retry_23_hours_away() -> None:
    first = decide(RetryPolicy(), 1, T0, T0 + 100, retry_after_s=23 * 3600, jitter=longest)
    assert first == RetryAt(T0 + 100 + 23 * HOUR_MS)
    # Nothing but two stored numbers links the calls, so a restart in between changes nothing.
    second = decide(RetryPolicy(), 2, T0, first.due_ms, jitter=longest)
    assert second == RetryAt(first.due_ms + 2000)
    third = decide(RetryPolicy(), 3, T0, T0 + 24 * HOUR_MS, jitter=longest)
    assert third == Exhausted("MaximumEventAgeInSeconds", 2)


def test_too_old() -> None:
    policy = RetryPolicy(max_age_s=60)
    assert not is_too_old(policy, accepted_at_ms=T0, now_ms=T0 + 59_999)
    assert is_too_old(policy, accepted_at_ms=T0, now_ms=T0 + 60_000)
    assert not is_too_old(policy, accepted_at_ms=T0, now_ms=T0 - HOUR_MS)


@settings(deadline=None)
@given(
    policy=st.builds(RetryPolicy, max_attempts=st.integers(0, 185), max_age_s=st.integers(60, 86_400)),
    outcomes=st.lists(st.none() | st.floats(-1, 1e9), min_size=1),
    draw=st.floats(0, 1, exclude_max=True),
)
def test_every_delivery_ends_within_its_limits(policy: RetryPolicy, outcomes: list[float | None], draw: float) -> None:
    now, attempt = T0, 1
    while isinstance(
        decision := decide(
            policy,
            attempt,
            T0,
            now,
            retry_after_s=outcomes[attempt % len(outcomes)],
            jitter=lambda: draw,
        ),
        RetryAt,
    ):
        assert now <= decision.due_ms < T0 + policy.max_age_s * 1000
        now, attempt = decision.due_ms, attempt + 1
    assert decision.retries == attempt - 1 <= policy.max_attempts


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("1.5", 1.5),
        ("-1", -1.0),
        ("-0", 0.0),
        ("+7", 7.0),
        ("9" * 400, 1e9),
        ("-" + "9" * 400, -1e9),
        ("Thu, 01 Jan 2026 10:00:30 GMT", 30.0),
        ("Thursday, 01-Jan-26 10:00:30 GMT", 30.0),
        ("Thu Jan  1 10:00:30 2026", 30.0),
        ("Thu, 01 Jan 2026 11:00:30 +0100", 30.0),
        ("Thu, 01 Jan 2026 09:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 1e9),
        ("", None),
        ("soon", None),
        ("1e3", None),
        ("nan", None),
        ("inf", None),
        ("٣", None),
        ("Thu, 99 Jan 2026 10:00:30 GMT", None),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0.0),
    ],
)
def test_retry_after(header: str, seconds: float | None) -> None:
    assert parse_retry_after(header, T0) == seconds


@settings(deadline=None)
@given(st.text(max_size=40) | st.text(alphabet="Thu, 01Jan26:-+GMT9", max_size=40))
def test_any_retry_after(header: str) -> None:
    seconds = parse_retry_after(header, T0)
    assert seconds is None or abs(seconds) <= 1e9
