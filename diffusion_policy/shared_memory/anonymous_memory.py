"""Shared memory without a name, which the kernel frees with the last process that holds it."""

import mmap
import os
import sys
import weakref
from multiprocessing import reduction
from typing import Any


class AnonymousMemory:
    """`size` bytes of zeros, shared with the processes it is handed to: forked ones, or ones it is pickled for.

    Named segments (`multiprocessing.shared_memory`) stay in /dev/shm, with their manager's process, when the process
    that made them is killed. This has no name and no process: nothing can stay.

    Raises:
        RuntimeError: the system is not Linux.
    """

    def __init__(self, size: int) -> None:
        if sys.platform != "linux":
            raise RuntimeError(f"Shared memory of the robot's processes needs Linux; this is {sys.platform}.")
        fd = os.memfd_create("diffusion_policy")
        os.ftruncate(fd, size)
        self._open(fd, size)

    def _open(self, fd: int, size: int) -> None:
        self.size = size
        self._fd = fd
        weakref.finalize(self, os.close, fd)
        self._mmap = mmap.mmap(fd, size)
        self.buf = memoryview(self._mmap)

    def __reduce__(self) -> tuple[Any, ...]:
        return _from_duplicate, (reduction.DupFd(self._fd), self.size)


def _from_duplicate(duplicate: Any, size: int) -> AnonymousMemory:
    memory = AnonymousMemory.__new__(AnonymousMemory)
    memory._open(duplicate.detach(), size)
    return memory
