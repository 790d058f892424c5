"""How hard one target is pressed: a window of attempts under way, and a pause when it keeps failing.

The window halves when attempts fail one after another and grows by one with each success, so a
target that comes back is at full speed again within a few round trips. After `PATIENCE` failures
in a row the target is taken for dead: attempts stop for a pause that doubles up to `LONGEST_PAUSE`,
then one probe decides. A dead target with a long backlog thereby costs a probe every few seconds
instead of the whole process's attention, and its deliveries lose no attempts while nobody listens.
"""

from __future__ import annotations

PATIENCE = 8
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0


class Pace:
    """Window and pause of one target; instants are seconds of a monotonic clock."""

    __slots__ = ("_failures", "_largest", "_pause", "resume_at", "window")

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._failures = 0
        self._pause = 0.0
        self.window = float(largest)
        self.resume_at = 0.0

    def allows(self, running: int, now: float) -> bool:
        """Whether one more attempt may start."""
        return running < self.window and now >= self.resume_at

    @property
    def failing(self) -> bool:
        """Whether the target is taken for dead."""
        return self._failures >= PATIENCE

    def succeeded(self) -> None:
        """The target took a delivery, or refused it with an answer: it is alive."""
        self._failures = 0
        self._pause = 0.0
        self.resume_at = 0.0
        if self.window < self._largest:
            self.window = min(self._largest, self.window + 1)

    def failed(self, started: float, now: float) -> None:
        """An attempt that began at ``started`` failed in a way that may pass."""
        if started < self.resume_at:
            return  # it was under way when the pause began: old news
        self._failures += 1
        if self._failures < PATIENCE:
            return
        self.window = max(1.0, self.window / 2)
        self._pause = min(LONGEST_PAUSE, self._pause * 2 or FIRST_PAUSE)
        self.resume_at = now + self._pause
