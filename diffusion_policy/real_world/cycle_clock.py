"""The beat of a control loop, which does not drift."""

import time

from diffusion_policy.common.precise_sleep import precise_wait


class CycleClock:
    """Cycles of `dt` s, one after the other.

    A loop that is late goes on at once; one that is late by more than `MOST_BEHIND` cycles leaves out those it missed,
    instead of hurrying through them.

    Args:
        dt: length of a cycle.
        start_time: of cycle 0 (wall clock, s); None for now.

    Attributes:
        index: of the cycle under way.
        n_missed: cycles that were left out.
    """

    MOST_BEHIND = 2

    def __init__(self, dt: float, start_time: float | None = None) -> None:
        self.dt = dt
        self.index = 0
        self.n_missed = 0
        self._start = time.monotonic() + (0 if start_time is None else start_time - time.time())

    def time_of(self, index: float) -> float:
        """When a cycle begins (wall clock, s)."""
        return self._start + index * self.dt - time.monotonic() + time.time()

    @property
    def end(self) -> float:
        """When the cycle under way ends (monotonic clock, s)."""
        return self._start + (self.index + 1) * self.dt

    def wait(self, before_end: float = 0.0) -> None:
        """Returns so many seconds before the cycle ends."""
        precise_wait(self.end - before_end)

    def next(self) -> None:
        """Waits for the end of the cycle and begins the next."""
        self.wait()
        self.index += 1
        behind = int((time.monotonic() - self._start) / self.dt) - self.index
        if behind > self.MOST_BEHIND:
            self.index += behind
            self.n_missed += behind
