"""The last few items that one process puts, for any number of processes to read, without locks."""

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.managers import SharedMemoryManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.shared_memory.memory_order import fence
from diffusion_policy.shared_memory.shared_memory_util import (
    ArraySpec,
    ItemArrays,
    SharedAtomicCounter,
    specs_from_examples,
)
from diffusion_policy.shared_memory.shared_ndarray import SharedNDArray


class SharedMemoryRingBuffer:
    """One process puts items (dicts of arrays); any may read the last `k` of them, each as it was put.

    Every slot carries the number of the put it holds: `2 n + 1` while put `n` is being written, `2 n + 2` when it is
    complete. A reader copies first, then looks whether the numbers are still those of the puts it wanted; if not it was
    overtaken, and reads anew. So it never returns a mixture (a sequence lock a slot).

    Beside that the writer leaves readers time: there are `ceil(put_desired_frequency * get_time_budget *
    safety_margin) + get_max_k` slots, and a put waits until whoever began to read before the slot's turn came has had
    `get_time_budget` to end.

    Args:
        shm_manager: not needed (the memory frees itself); may be None.
        array_specs: the entries of an item.
        get_max_k: most items that can be read at once.
        get_time_budget: seconds a reader may take.
        put_desired_frequency: how often items will be put (Hz).
        safety_margin: factor on the number of slots beside the `get_max_k`.
        get_attempts: how often a reader tries that takes longer than `get_time_budget`, as it does when the machine
            lets it wait.
    """

    def __init__(
        self,
        shm_manager: SharedMemoryManager | None,
        array_specs: Sequence[ArraySpec],
        get_max_k: int,
        get_time_budget: float,
        put_desired_frequency: float,
        safety_margin: float = 1.5,
        *,
        get_attempts: int = 1,
    ) -> None:
        self.buffer_size = math.ceil(put_desired_frequency * get_time_budget * safety_margin) + get_max_k
        self.array_specs = list(array_specs)
        self.get_max_k = get_max_k
        self.get_time_budget = get_time_budget
        self.put_desired_frequency = put_desired_frequency
        self.get_attempts = get_attempts
        self._items = ItemArrays(self.array_specs, self.buffer_size)
        self._put_numbers: SharedNDArray[np.int64] = SharedNDArray.create_from_array(
            shm_manager, np.zeros(self.buffer_size, np.int64)
        )
        self._put_times = np.zeros(self.buffer_size)  # the writer's own
        self._n_put = SharedAtomicCounter(shm_manager)
        self._n_cleared = SharedAtomicCounter(shm_manager)

    @classmethod
    def create_from_examples(
        cls,
        shm_manager: SharedMemoryManager | None,
        examples: Mapping[str, Any],
        get_max_k: int = 32,
        get_time_budget: float = 0.01,
        put_desired_frequency: float = 60,
        *,
        get_attempts: int = 1,
    ) -> "SharedMemoryRingBuffer":
        """A ring for items like `examples`, a dict of arrays and numbers."""
        specs = specs_from_examples(examples)
        return cls(shm_manager, specs, get_max_k, get_time_budget, put_desired_frequency, get_attempts=get_attempts)

    @property
    def count(self) -> int:
        """How many items were put since the ring was made or cleared; the older ones are gone."""
        return self._n_put.load() - self._n_cleared.load()

    def clear(self) -> None:
        """Forgets every item; for the process that puts."""
        self._n_cleared.store(self._n_put.load())

    def put(self, data: Mapping[str, Any], wait: bool = True) -> None:
        """Adds an item: for one process, one thread.

        Args:
            data: the entries, as the specs say.
            wait: until readers had their time; else raise if they have not.

        Raises:
            ValueError: `data` is not an item; nothing is changed.
            TimeoutError: with `wait=False`, puts come faster than `put_desired_frequency`; nothing is changed.
        """
        item = self._items.check(data)
        number = self._n_put.load()
        self._leave_readers_time(number, wait)
        slot = number % self.buffer_size
        self._put_numbers.get()[slot] = 2 * number + 1
        fence()
        self._items.write(slot, item)
        self._put_times[slot] = time.monotonic()
        fence()
        self._put_numbers.get()[slot] = 2 * number + 2
        self._n_put.store(number + 1)

    def get(self, out: dict[str, NDArray[Any]] | None = None) -> dict[str, NDArray[Any]]:
        """The newest item, in `out` or in new arrays. Raises as `get_last_k`."""
        out = self._items.allocate() if out is None else out
        self._read(1, {name: array[None] for name, array in out.items()})
        return out

    def get_last_k(self, k: int, out: dict[str, NDArray[Any]] | None = None) -> dict[str, NDArray[Any]]:
        """The last `k` items, oldest first, as arrays `(k, ...)`, in `out` or in new ones.

        Raises:
            ValueError: `k` is not in 1 .. get_max_k, or fewer items were put.
            TimeoutError: it took longer than `get_time_budget`, `get_attempts` times.
        """
        if not 1 <= k <= self.get_max_k:
            raise ValueError(f"k={k} items cannot be read at once: it must be 1 to {self.get_max_k} (get_max_k).")
        out = self._items.allocate(k) if out is None else out
        self._read(k, out)
        return out

    def get_all(self) -> dict[str, NDArray[Any]]:
        """As many of the last items as there are, `get_max_k` at most: arrays `(k, ...)`, `k` may be 0."""
        k = min(self.count, self.get_max_k)
        return self.get_last_k(k) if k else self._items.allocate(0)

    def _read(self, k: int, out: dict[str, NDArray[Any]]) -> None:
        for _ in range(self.get_attempts - 1):
            with suppress(TimeoutError):
                self._read_in_time(k, out)
                return
        self._read_in_time(k, out)

    def _read_in_time(self, k: int, out: dict[str, NDArray[Any]]) -> None:
        start = time.monotonic()
        while True:
            end = self._n_put.load()
            if end - self._n_cleared.load() < k:
                raise ValueError(f"{k} items were asked for, but only {self.count} have been put yet.")
            self._items.read((end - k) % self.buffer_size, k, out)
            fence()
            wanted = np.arange(end - k, end)
            intact = np.array_equal(self._put_numbers.get()[wanted % self.buffer_size], 2 * wanted + 2)
            seconds = time.monotonic() - start
            if seconds > self.get_time_budget:
                budget = f"get_time_budget={self.get_time_budget} s"
                raise TimeoutError(f"Reading {k} items took {seconds:.4f} s: more than {budget}. Give it a larger one.")
            if intact:
                return

    def _leave_readers_time(self, number: int, wait: bool) -> None:
        """Of those who may still read the item that goes, the last began before the later one was there."""
        later = number - self.buffer_size + self.get_max_k
        if number < self.buffer_size or later >= number:
            return
        missing = self._put_times[later % self.buffer_size] + self.get_time_budget - time.monotonic()
        if missing <= 0:
            return
        if not wait:
            raise TimeoutError(
                f"Items are put faster than put_desired_frequency={self.put_desired_frequency} Hz for which the ring "
                f"was made: readers need {missing:.4f} s more. Make it for a higher frequency, or put with wait=True."
            )
        time.sleep(missing)

    def _allocate_empty(self, k: int | None = None) -> dict[str, NDArray[Any]]:
        return self._items.allocate(k)
