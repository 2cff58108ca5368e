"""What rings and queues in shared memory are made of."""

import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.managers import SharedMemoryManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.shared_memory.anonymous_memory import AnonymousMemory
from diffusion_policy.shared_memory.memory_order import fence
from diffusion_policy.shared_memory.shared_ndarray import SharedNDArray


@dataclass
class ArraySpec:
    """Name, shape and dtype of one entry of an item."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype


class SharedAtomicCounter:
    """An int64 that one process changes and any may read; starts at 0.

    Whoever loads a value also sees what was written before it was stored: both are fences. As `add` loads and stores,
    two processes must not change the same counter.

    Args:
        shm_manager: not needed (the memory frees itself); may be None.
        size: bytes of memory, at least 8.
    """

    def __init__(self, shm_manager: SharedMemoryManager | None, size: int = 8) -> None:
        self._word: SharedNDArray[np.int64] = SharedNDArray(AnonymousMemory(size), (1,), np.int64)

    @property
    def buf(self) -> memoryview:
        return self._word.get().data.cast("B")

    def load(self) -> int:
        value = self._word.get().item()
        fence()
        return value

    def store(self, value: int) -> None:
        fence()
        self._word.get()[0] = value

    def add(self, value: int) -> None:
        self.store(self._word.get().item() + value)


class ItemArrays:
    """`size` items in shared memory, each a dict of arrays as `specs` say."""

    def __init__(self, specs: Sequence[ArraySpec], size: int) -> None:
        self.specs = {spec.name: spec for spec in specs}
        self._arrays: dict[str, SharedNDArray[Any]] = {
            spec.name: SharedNDArray.create_from_shape(None, (size, *spec.shape), spec.dtype) for spec in specs
        }

    def check(self, data: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """`data` as arrays.

        Raises:
            ValueError: names or shapes are not those of an item, or a value does not fit its dtype.
        """
        if data.keys() != self.specs.keys():
            raise ValueError(f"An item has entries {sorted(self.specs)}, got {sorted(data)}.")
        item = {name: np.asarray(value) for name, value in data.items()}
        for name, spec in self.specs.items():
            if item[name].shape != spec.shape or not np.can_cast(item[name].dtype, spec.dtype, "same_kind"):
                given = f"shape {item[name].shape} and dtype {item[name].dtype}"
                raise ValueError(f"'{name}' has shape {spec.shape} and dtype {spec.dtype}, got {given}.")
        return item

    def write(self, index: int, item: Mapping[str, NDArray[Any]]) -> None:
        for name, value in item.items():
            self._arrays[name].get()[index] = value

    def read(self, first: int, k: int, out: dict[str, NDArray[Any]]) -> None:
        """Copies `k` items from index `first` on, around the end, into `out`: arrays `(k, ...)`."""
        for name, array in self._arrays.items():
            source = array.get()
            n_straight = min(k, len(source) - first)
            out[name][:n_straight] = source[first : first + n_straight]
            out[name][n_straight:] = source[: k - n_straight]

    def allocate(self, k: int | None = None) -> dict[str, NDArray[Any]]:
        """Room for one item, or for `k` of them: arrays `(k, ...)`."""
        leading = () if k is None else (k,)
        return {name: np.empty((*leading, *spec.shape), spec.dtype) for name, spec in self.specs.items()}


def specs_from_examples(examples: Mapping[str, Any]) -> list[ArraySpec]:
    """The specs of items such as `examples`: a dict of arrays and numbers.

    Raises:
        TypeError: an entry is neither.
    """
    for name, value in examples.items():
        if not isinstance(value, np.ndarray | np.generic | numbers.Number):
            raise TypeError(f"'{name}' must be an array or a number, got {type(value).__name__}.")
    arrays = {name: np.asarray(value) for name, value in examples.items()}
    return [ArraySpec(name, array.shape, array.dtype) for name, array in arrays.items()]
