"""Which of many intervals hold a value.

The distinct end points cut the line into segments: one for every point and one for every gap. An interval is a range of
segments, kept in the O(log n) nodes of a segment tree that cover it; a value finds its segment by bisection and its
intervals on the way from that leaf to the root. That is O(log n + found) a value and O(n log n) memory, also for
intervals that all overlap, where a list for each segment would take O(n²).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")

Interval = tuple[Any, bool, Any, bool]
"""Low end, whether it belongs to the interval, high end, whether it does; the ends are of any one ordered type."""


class Intervals(Generic[Item]):
    """An immutable set of intervals, each with an item."""

    __slots__ = ("_leaves", "_nodes", "_points")

    def __init__(self, intervals: Iterable[tuple[Interval, Item]]) -> None:
        listed = list(intervals)
        self._points = sorted({end for (low, _, high, _), _ in listed for end in (low, high)})
        self._leaves = 2 * len(self._points) + 1
        self._nodes: list[list[Item]] = [[] for _ in range(2 * self._leaves)]
        for (low, low_included, high, high_included), item in listed:
            first = 2 * bisect_left(self._points, low) + (1 if low_included else 2)
            last = 2 * bisect_left(self._points, high) + (1 if high_included else 0)
            self._cover(first, last, item)

    def _cover(self, first: int, last: int, item: Item) -> None:
        left, right = first + self._leaves, last + self._leaves + 1
        while left < right:
            if left & 1:
                self._nodes[left].append(item)
                left += 1
            if right & 1:
                right -= 1
                self._nodes[right].append(item)
            left, right = left >> 1, right >> 1

    def segment(self, value: Any) -> int:
        """The segment of a value; values of one segment lie in the same intervals."""
        return bisect_left(self._points, value) + bisect_right(self._points, value)

    def at(self, segment: int) -> list[Item]:
        """The items of all intervals that hold a segment."""
        found: list[Item] = []
        node = segment + self._leaves
        while node:
            found += self._nodes[node]
            node >>= 1
        return found
