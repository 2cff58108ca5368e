"""Arrays larger than memory: rows are read from their store as they are needed, a few chunks are kept."""

import asyncio
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from types import EllipsisType
from typing import Any

import numpy as np
import torch.utils.data
import zarr
from numcodecs import Blosc
from numpy.typing import DTypeLike
from zarr.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, StorePath

from diffusion_policy.common.distributed import processes_here
from diffusion_policy.common.memory import free_memory
from diffusion_policy.common.zarr_array import ZarrArray, compressor_of, damaged, get_array, read_array, subgroup
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

    def _read(self, numbers: Sequence[int]) -> list[np.ndarray]:
        if not _is_plain(self._array):
            return [self._converted(read_array(self._array, self._rows(number)), number) for number in numbers]
        encoded = _encoded(self._array, numbers)
        decoded = map(self._decoded, encoded, numbers)
        return [self._converted(rows, number) for rows, number in zip(decoded, numbers, strict=True)]

    def _rows(self, number: int) -> slice:
        length = self._array.chunks[0]
        return slice(number * length, min((number + 1) * length, self._n_rows))

    def _decoded(self, value: bytes | None, number: int) -> np.ndarray:
        rows = self._rows(number)
        n_rows = rows.stop - rows.start
        array = self._array
        if value is None:  # never written, as zarr has it
            return np.full((n_rows, *array.shape[1:]), array.fill_value, array.dtype)
        codec = compressor_of(array)
        if isinstance(codec, Blosc) and int.from_bytes(value[12:16], "little") != len(value):  # it would read on
            raise damaged(array, ValueError(f"chunk {number} was cut short"))
        try:
            flat = np.frombuffer(value if codec is None else codec.decode(value), array.dtype)
            return flat.reshape(array.chunks)[:n_rows]
        except (ValueError, RuntimeError) as error:
            raise damaged(array, error) from error

    def _converted(self, rows: np.ndarray, number: int) -> np.ndarray:
        return rows if self._convert is None else self._convert(rows, self._rows(number).start)


def _is_plain(array: ZarrArray) -> bool:
    """Whether a chunk is rows, encoded by one compressor: then decoding it here is many times faster than in zarr."""
    metadata = array.metadata
    return (
        metadata.zarr_format == 2
        and not metadata.filters
        and metadata.order == "C"
        and tuple(array.chunks[1:]) == tuple(array.shape[1:])
        and not array.dtype.hasobject
    )


def _encoded(array: ZarrArray, numbers: Sequence[int]) -> list[bytes | None]:
    """Chunks as they are stored."""
    keys = [array.metadata.encode_chunk_key((number, *(0,) * (array.ndim - 1))) for number in numbers]
    if isinstance(array.store, LocalStore):  # in a third of the time
        return [_content(array.store.root / array.path / key) for key in keys]
    return sync(_fetch([array.store_path / key for key in keys])) if keys else []


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


async def _fetch(paths: Sequence[StorePath]) -> list[bytes | None]:
    """What is at these paths, several at the same time."""
    prototype = default_buffer_prototype()
    limit = asyncio.Semaphore(zarr.config.get("async.concurrency"))

    async def fetch(path: StorePath) -> bytes | None:
        async with limit:
            value = await path.get(prototype)
        return None if value is None else value.to_bytes()

    return await asyncio.gather(*map(fetch, paths))
