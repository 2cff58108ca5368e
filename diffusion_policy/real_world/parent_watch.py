"""Notices that the parent process has died, however it started this one and however it died."""

import ctypes
import os
import select
import signal

_PR_SET_PDEATHSIG = 1


class ParentWatch:
    """Asks the kernel about a process, in microseconds and without confusing it with a later one of the same id."""

    def __init__(self, parent_pid: int) -> None:
        self._poll = select.poll()
        try:
            self._poll.register(os.pidfd_open(parent_pid), select.POLLIN)
            self._gone = False
        except ProcessLookupError:
            self._gone = True

    def is_alive(self) -> bool:
        self._gone = self._gone or bool(self._poll.poll(0))
        return not self._gone


def die_with_parent(yes: bool = True) -> None:
    """Whether the kernel kills this process when the thread that started it ends (Linux).

    Only for a while in which nothing else can look after the parent: killed is killed, and a thread is no process.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL if yes else 0, 0, 0, 0)
