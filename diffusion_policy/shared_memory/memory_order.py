"""The order in which other processes see what this one writes."""

import ctypes
import platform
from _thread import allocate_lock
from collections.abc import Callable

# An aligned 8-byte word is written and read by one instruction, so never by halves. What remains is the order of words:
# a processor may show its stores, or do its loads, in another order than the program's. A fence forbids that.

_MEMBARRIER_CMD_GLOBAL_EXPEDITED = 2
_MEMBARRIER_SYSCALL = {"x86_64": 324, "aarch64": 283}


def _locked_instruction() -> None:
    """x86-64: taking a free lock is a locked instruction, which no load or store passes, not even a streaming store."""
    allocate_lock().acquire()


def _membarrier() -> Callable[[], None]:
    """Others: the kernel's barrier, membarrier(2), on the processors that run this process's threads."""
    number = _MEMBARRIER_SYSCALL.get(platform.machine())
    syscall = ctypes.CDLL(None, use_errno=True).syscall

    def barrier() -> None:
        syscall(number, _MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0)

    if number is None or syscall(number, _MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) != 0:
        raise RuntimeError(f"Lock-free shared memory has no memory barrier here ({platform.machine()}).")
    return barrier


fence: Callable[[], None] = _locked_instruction if platform.machine() == "x86_64" else _membarrier()
"""Whatever stands before it in the program is done, as all processes see it, before whatever stands behind it."""
