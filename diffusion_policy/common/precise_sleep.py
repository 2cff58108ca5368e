"""Waiting to within microseconds: sleep for most of the time, then watch the clock."""

import time
from collections.abc import Callable


def precise_sleep(dt: float, slack_time: float = 0.001, time_func: Callable[[], float] = time.monotonic) -> None:
    """Returns after `dt` seconds of `time_func`, of which it keeps a core busy for the last `slack_time`."""
    precise_wait(time_func() + dt, slack_time, time_func)


def precise_wait(t_end: float, slack_time: float = 0.001, time_func: Callable[[], float] = time.monotonic) -> None:
    """Returns when `time_func` says `t_end` (s), at once if that is past; see `precise_sleep`."""
    remaining = t_end - time_func()
    if remaining > slack_time:
        time.sleep(remaining - slack_time)
    while time_func() < t_end:
        pass
