"""A process that does not wait for what else the computer does."""

import os


def run_in_real_time(priority: int) -> bool:
    """Schedules this process, and the threads that it starts from now on, before all that are not in real time.

    Args:
        priority: among those in real time, 1 to 99.

    Returns:
        Whether it is allowed to.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(priority))
    except PermissionError:
        return False
    return True
