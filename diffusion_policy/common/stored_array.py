"""Arrays larger than memory: rows are read from their store as they are needed, a few chunks are kept."""

import os
from collections import OrderedDict
from collections.abc import Callable
from types import EllipsisType
from typing import Any

import numpy as np
import torch.utils.data
from numpy.typing import DTypeLike

from diffusion_policy.common.distributed import processes_here
from diffusion_policy.common.memory import free_memory
from diffusion_policy.common.zarr_array import ZarrArray, get_array, subgroup
from diffusion_policy.common.zarr_chunks import chunk_rows, read_chunks
from diffusion_policy.common.zarr_store import StoreLike, open_group

CACHE_BYTES = 512e6
"""Most that decoded chunks take, in all processes that load batches for one training process together."""
SHARE_OF_FREE_MEMORY = 0.1
READ_BYTES = 64e6
"""What is read at a time."""

Convert = Callable[[np.ndarray, int], np.ndarray]


class StoredArray:
    """The rows `(N, ...)` of an array of a replay buffer, for reading.

    Each process opens the store for itself, so that it can be handed to processes that load batches.

    Args:
        location: of the replay buffer, as for `open_group`.
        key: of the array in `data`.
        n_rows: rows that belong to episodes, N.
        convert: makes of stored rows, and the number of the first of them, what is returned.
        dtype: of what is returned; None for the one stored.
        n_shares: arrays that are sampled together, among which the cache is divided.
    """

    def __init__(
        self,
        location: StoreLike,
        key: str,
        n_rows: int,
        convert: Convert | None = None,
        dtype: DTypeLike | None = None,
        n_shares: int = 1,
    ) -> None:
        self._location = location
        self._key = key
        self._convert = convert
        self._n_shares = n_shares
        self._reader: _Reader | None = None
        array = self._open()
        self.shape: tuple[int, ...] = (n_rows, *array.shape[1:])
        self.chunks: tuple[int, ...] = array.chunks
        self.dtype = array.dtype if dtype is None else np.dtype(dtype)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """What all rows would take in memory."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"StoredArray({self._key!r} of {self._location}, {self.shape}, {self.dtype})"

    def __getitem__(self, rows: slice | EllipsisType) -> np.ndarray:
        """Consecutive rows, or every so many."""
        return self.take(np.arange(len(self))[rows])

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The rows of these numbers `(n,)`, in any order, `(n, ...)`; each chunk that they are in is read once.

        Raises:
            ValueError: a chunk is damaged.
        """
        length = self.chunks[0]
        result = np.empty((len(rows), *self.shape[1:]), self.dtype)
        numbers, nth = np.unique(rows // length, return_inverse=True)
        order = np.argsort(nth, kind="stable")
        places = np.split(order, np.searchsorted(nth[order], np.arange(1, len(numbers))))
        reader = self._reader_here()
        step = max(1, int(READ_BYTES / reader.chunk_bytes))
        for start in range(0, len(numbers), step):
            part = slice(start, start + step)
            for number, chunk, place in zip(numbers[part], reader.chunks(numbers[part]), places[part], strict=True):
                result[place] = chunk[rows[place] - number * length]
        return result

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_reader": None}

    def _open(self) -> ZarrArray:
        return get_array(subgroup(open_group(self._location), "data"), self._key)

    def _reader_here(self) -> "_Reader":
        """This process's: handles and event loops do not survive a fork."""
        if self._reader is None or self._reader.process != os.getpid():
            workers = torch.utils.data.get_worker_info()
            n_processes = 1 if workers is None else workers.num_workers
            cache_bytes = min(CACHE_BYTES, SHARE_OF_FREE_MEMORY * free_memory() / processes_here())
            share = cache_bytes / (n_processes * self._n_shares)
            self._reader = _Reader(self._open(), len(self), self._convert, share)
        return self._reader


class _Reader:
    """Decoded chunks of an open array, the last ones used kept."""

    def __init__(self, array: ZarrArray, n_rows: int, convert: Convert | None, cache_bytes: float) -> None:
        self.process = os.getpid()
        self._array = array
        self._n_rows = n_rows
        self._convert = convert
        self.chunk_bytes = int(np.prod(array.chunks)) * array.dtype.itemsize
        self._room = int(cache_bytes / self.chunk_bytes)
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()

    def chunks(self, numbers: np.ndarray) -> list[np.ndarray]:
        """The chunks of rows of these numbers."""
        missing = [number for number in numbers.tolist() if number not in self._kept]
        found = dict(zip(missing, self._read(missing), strict=True))
        for number in numbers.tolist():
            chunk = found.get(number)
            found[number] = self._kept.pop(number) if chunk is None else chunk
        if self._room:
            self._kept.update(found)
            while len(self._kept) > self._room:
                self._kept.popitem(last=False)
        return [found[number] for number in numbers.tolist()]

    def _read(self, numbers: list[int]) -> list[np.ndarray]:
        chunks = read_chunks(self._array, numbers, self._n_rows)
        if self._convert is None:
            return chunks
        starts = [chunk_rows(self._array, number, self._n_rows).start for number in numbers]
        return list(map(self._convert, chunks, starts))
