"""Processes of devices, which never outlive the one that started them."""

import gc
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import cv2

from diffusion_policy.real_world.parent_watch import die_with_parent


def attach_to_parent() -> None:
    """Called first in a child: it is killed when its parent ends, however that ends, and leaves Ctrl-C to the parent.

    The parent is the thread that started the child: start devices from one that stays.
    """
    die_with_parent()
    gc.freeze()  # a search for garbage in all that the parent has loaded would hold the device up
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:  # it ended before
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def without_opencv_threads() -> Iterator[None]:
    """For the start of a process that uses OpenCV: a forked one would wait for threads that only its parent has."""
    n_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # ends them
    try:
        yield
    finally:
        cv2.setNumThreads(n_threads)


def end(process: multiprocessing.process.BaseProcess, timeout: float) -> None:
    """Waits `timeout` s for `process` to end, then kills it."""
    process.join(timeout)
    if process.is_alive():
        process.kill()
        process.join()
