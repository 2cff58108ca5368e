"""A numpy array in shared memory."""

import math
from multiprocessing.managers import SharedMemoryManager
from multiprocessing.shared_memory import SharedMemory
from typing import Any, Generic, TypeVar, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from diffusion_policy.shared_memory.anonymous_memory import AnonymousMemory

SharedMemoryLike = str | SharedMemory | AnonymousMemory
SharedT = TypeVar("SharedT", bound=np.generic)


class SharedNDArray(Generic[SharedT]):
    """An array that every process it is handed to (by fork, or pickled for a new process) reads and writes.

    The `mem_mgr` of the constructors is not needed, as the memory frees itself with the last process; it may be None.

    Args:
        shm: memory of at least the array's size; the name of a `SharedMemory` attaches to that.
        shape: of the array.
        dtype: of the array; objects cannot be shared.

    Raises:
        ValueError: the memory is too small, or the dtype holds objects.
    """

    def __init__(self, shm: SharedMemoryLike, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self.shm = SharedMemory(name=shm) if isinstance(shm, str) else shm
        self.dtype: np.dtype[SharedT] = cast("np.dtype[SharedT]", np.dtype(dtype))
        if self.dtype.hasobject:
            raise ValueError(f"An array of dtype {self.dtype} cannot be shared: objects live in one process.")
        if (needed := _n_bytes(shape, self.dtype)) > self.shm.size:
            raise ValueError(f"{shape} of {self.dtype} needs {needed} bytes of memory, got {self.shm.size}.")
        self._array: NDArray[SharedT] = np.ndarray(shape, self.dtype, self.shm.buf)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self.shape}, dtype={self.dtype})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.shm, self.shape, self.dtype)

    @classmethod
    def create_from_array(cls, mem_mgr: SharedMemoryManager | None, arr: NDArray[SharedT]) -> "SharedNDArray[SharedT]":
        """A shared copy of `arr`."""
        shared = cls.create_from_shape(mem_mgr, arr.shape, arr.dtype)
        shared.get()[...] = arr
        return shared

    @classmethod
    def create_from_shape(
        cls, mem_mgr: SharedMemoryManager | None, shape: tuple[int, ...], dtype: DTypeLike
    ) -> "SharedNDArray[SharedT]":
        """Zeros."""
        return cls(AnonymousMemory(max(_n_bytes(shape, np.dtype(dtype)), 1)), shape, dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._array.shape

    def get(self) -> NDArray[SharedT]:
        """The array itself, not a copy."""
        return self._array


def _n_bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return math.prod(shape) * dtype.itemsize
