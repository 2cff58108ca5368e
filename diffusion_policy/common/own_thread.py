"""Work whose threads do not outlive it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def in_own_thread(work: Callable[[], T]) -> T:
    """What `work()` returns or raises, done in a thread that ends with it.

    OpenMP keeps helpers for every thread that has computed, as long as that thread lives. Once all of them together
    outnumber the processors, each waits by sleeping, and a small network takes twice as long. So whoever loads or warms
    up a policy that another thread will ask does it here.
    """
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(work).result()
