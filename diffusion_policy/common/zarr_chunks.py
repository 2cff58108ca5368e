"""Whole chunks of rows of a zarr array, read faster than by indexing it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import zarr
from numcodecs import Blosc
from zarr.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, StorePath

from diffusion_policy.common.zarr_array import ZarrArray, compressor_of, damaged, read_array


def read_chunks(array: ZarrArray, numbers: Sequence[int], n_rows: int) -> list[np.ndarray]:
    """The chunks of rows of these numbers, of the first `n_rows` of an array.

    Raises:
        ValueError: one is damaged.
    """
    rows = [chunk_rows(array, number, n_rows) for number in numbers]
    if not _is_plain(array):
        return [read_array(array, each) for each in rows]
    return [_decoded(array, value, each) for value, each in zip(_encoded(array, numbers), rows, strict=True)]


def chunk_rows(array: ZarrArray, number: int, n_rows: int) -> slice:
    """The rows of a chunk, of those below `n_rows`."""
    length = array.chunks[0]
    return slice(number * length, min((number + 1) * length, n_rows))


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


def _decoded(array: ZarrArray, value: bytes | None, rows: slice) -> np.ndarray:
    n_rows = rows.stop - rows.start
    if value is None:  # never written, as zarr has it
        return np.full((n_rows, *array.shape[1:]), array.fill_value, array.dtype)
    codec = compressor_of(array)
    if isinstance(codec, Blosc) and int.from_bytes(value[12:16], "little") != len(value):  # it would read on
        raise damaged(array, ValueError(f"the chunk of row {rows.start} was cut short"))
    try:
        flat = np.frombuffer(value if codec is None else codec.decode(value), array.dtype)
        return flat.reshape(array.chunks)[:n_rows]
    except (ValueError, RuntimeError) as error:
        raise damaged(array, error) from error


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
