"""A queue from one process to another, without locks."""

from collections.abc import Mapping, Sequence
from multiprocessing.managers import SharedMemoryManager
from queue import Empty, Full
from typing import Any

from numpy.typing import NDArray

from diffusion_policy.shared_memory.shared_memory_util import (
    ArraySpec,
    ItemArrays,
    SharedAtomicCounter,
    specs_from_examples,
)

__all__ = ["Empty", "Full", "SharedMemoryQueue"]


class SharedMemoryQueue:
    """First in, first out; items are dicts of arrays. One process (one thread) puts, another gets; nothing ever waits.

    Each side has a counter of its own that the other only reads: an item is complete before the count of puts says so,
    and copied before the count of gets gives its slot back. A process that dies in a call leaves the queue as it was.

    Args:
        shm_manager: not needed (the memory frees itself); may be None.
        array_specs: the entries of an item.
        buffer_size: most items that the queue holds.
    """

    def __init__(
        self, shm_manager: SharedMemoryManager | None, array_specs: Sequence[ArraySpec], buffer_size: int
    ) -> None:
        self.array_specs = list(array_specs)
        self.buffer_size = buffer_size
        self._items = ItemArrays(self.array_specs, buffer_size)
        self._n_put = SharedAtomicCounter(shm_manager)
        self._n_got = SharedAtomicCounter(shm_manager)

    @classmethod
    def create_from_examples(
        cls, shm_manager: SharedMemoryManager | None, examples: Mapping[str, Any], buffer_size: int
    ) -> "SharedMemoryQueue":
        """A queue for items like `examples`, a dict of arrays and numbers."""
        return cls(shm_manager, specs_from_examples(examples), buffer_size)

    def qsize(self) -> int:
        return self._n_put.load() - self._n_got.load()

    def empty(self) -> bool:
        return self.qsize() <= 0

    def clear(self) -> None:
        """Drops every item; for the process that gets."""
        self._n_got.store(self._n_put.load())

    def put(self, data: Mapping[str, Any]) -> None:
        """Adds an item.

        Raises:
            ValueError: `data` is not an item.
            Full: nobody got items in time; `data` is not added.
        """
        item = self._items.check(data)
        n_put = self._n_put.load()
        if n_put - self._n_got.load() >= self.buffer_size:
            raise Full(f"The queue holds {self.buffer_size} items that nobody took.")
        self._items.write(n_put % self.buffer_size, item)
        self._n_put.store(n_put + 1)

    def get(self, out: dict[str, NDArray[Any]] | None = None) -> dict[str, NDArray[Any]]:
        """The oldest item, in `out` or in new arrays.

        Raises:
            Empty: there is none.
        """
        out = self._allocate_empty() if out is None else out
        self._take(1, {name: array[None] for name, array in out.items()})
        return out

    def get_k(self, k: int, out: dict[str, NDArray[Any]] | None = None) -> dict[str, NDArray[Any]]:
        """The `k` oldest items, oldest first, as arrays `(k, ...)`.

        Raises:
            Empty: there are fewer; none is taken.
        """
        return self._get_k_impl(k, out)

    def get_all(self, out: dict[str, NDArray[Any]] | None = None) -> dict[str, NDArray[Any]]:
        """All items, oldest first, as arrays `(k, ...)`.

        Raises:
            Empty: there is none.
        """
        return self._get_k_impl(max(self.qsize(), 1), out)

    def _get_k_impl(self, k: int, out: dict[str, NDArray[Any]] | None = None) -> dict[str, NDArray[Any]]:
        out = self._allocate_empty(k) if out is None else out
        self._take(k, out)
        return out

    def _take(self, k: int, out: dict[str, NDArray[Any]]) -> None:
        n_got = self._n_got.load()
        if (n_items := self._n_put.load() - n_got) < k:
            raise Empty(f"{k} items were asked for, the queue holds {n_items}.")
        self._items.read(n_got % self.buffer_size, k, out)
        self._n_got.store(n_got + k)

    def _allocate_empty(self, k: int | None = None) -> dict[str, NDArray[Any]]:
        return self._items.allocate(k)
