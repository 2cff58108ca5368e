"""One zarr array at a time: chunk shapes, codecs, copies, and changes that are done whole or not at all.

Arrays are always written in zarr format 2, which zarr 2 and zarr 3 both read. Every change below that
replaces or commits something is an order of single key writes, each of them atomic in zarr's stores (a local
file is written aside, then renamed), chosen so that a process killed between any two of them loses nothing.
"""

import itertools
import math
import zlib
from collections.abc import Iterator, Sequence
from types import EllipsisType
from typing import Any, Protocol, TypeAlias
from warnings import catch_warnings, simplefilter
from zipfile import BadZipFile

import numpy as np
import zarr
from numcodecs.abc import Codec
from numpy.typing import DTypeLike, NDArray
from zarr.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.errors import ZarrUserWarning
from zarr.storage import StorePath

ZarrArray: TypeAlias = zarr.Array[Any]
Array: TypeAlias = ZarrArray | np.ndarray

TEMP_KEY = "_temp"
_COPY_BLOCK_BYTES = 64e6


def get_optimal_chunks(
    shape: Sequence[int],
    dtype: DTypeLike,
    target_chunk_bytes: float = 2e6,
    max_chunk_length: int | None = None,
) -> tuple[int, ...]:
    """Chunk shape of about `target_chunk_bytes`: trailing axes stay whole as long as they fit.

    The first axis (time) is cut to `max_chunk_length` where given.
    """
    chunks: list[int] = []
    row_bytes = float(np.dtype(dtype).itemsize)
    for size in reversed(shape):
        chunks.append(max(1, min(size, math.ceil(target_chunk_bytes / row_bytes))))
        row_bytes *= max(size, 1)
    if max_chunk_length is not None and chunks:
        chunks[-1] = max(1, min(chunks[-1], max_chunk_length))
    return tuple(reversed(chunks))


def check_chunks_compatible(chunks: Sequence[int], shape: Sequence[int]) -> None:
    """Raises ValueError unless `chunks` has one positive integer for each axis of `shape`."""
    if len(chunks) != len(shape) or not all(isinstance(c, (int, np.integer)) and c > 0 for c in chunks):
        raise ValueError(
            f"chunks {tuple(chunks)} do not fit an array of shape {tuple(shape)}: "
            f"give one positive integer for each of its {len(shape)} axes"
        )


def compressor_of(array: ZarrArray) -> Codec | None:
    """The numcodecs compressor of a zarr format 2 array; None where it is stored raw."""
    metadata = array.metadata
    if metadata.zarr_format != 2:
        raise ValueError(f"{array.path} of {array.store} has zarr format 3; copy the buffer to get format 2")
    return metadata.compressor


def subgroup(root: zarr.Group, name: str) -> zarr.Group:
    """The group `name` of `root`."""
    group = root[name]
    if not isinstance(group, zarr.Group):
        raise ValueError(f"{root.store}: {name!r} is an array, expected a group")
    return group


def array_names(group: zarr.Group) -> list[str]:
    """Sorted names of the arrays of a group, those of an interrupted `replace_array` included.

    Raises:
        ValueError: one of them is damaged or needs a codec that is not registered.
    """
    return sorted({name.removeprefix(f"{TEMP_KEY}_") for name in _stored_names(group)})


def get_array(group: zarr.Group, name: str) -> ZarrArray:
    """An array by name, also while an interrupted `replace_array` left it under its temporary name.

    Raises:
        KeyError: there is none, with the names there are.
    """
    for candidate in (name, f"{TEMP_KEY}_{name}"):
        array = group.get(candidate)
        if isinstance(array, zarr.Array):
            return array
    raise KeyError(f"no array {name!r} in zarr group {group.path!r}, which has {array_names(group)}")


class Rows(Protocol):
    """Anything else that gives numpy arrays of rows."""

    def __getitem__(self, rows: slice | EllipsisType) -> np.ndarray: ...


def read_array(array: "Array | Rows", rows: slice | EllipsisType = ...) -> np.ndarray:
    """Reads an array, or rows of it.

    Raises:
        ValueError: a chunk is damaged.
    """
    if not isinstance(array, zarr.Array):
        return array[rows]
    try:
        return np.asarray(array[rows])
    except (BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise damaged(array, error) from error


def damaged(array: ZarrArray, error: Exception) -> ValueError:
    """What to raise where a chunk cannot be read."""
    return ValueError(
        f"cannot read array {array.path} of {array.store}: {error}. The dataset is damaged: fetch or convert it again"
    )


def written_chunks(array: ZarrArray) -> NDArray[np.bool_]:
    """Which chunks along the first axis are stored, of an array that has one along each other axis.

    A chunk of nothing but the fill value, which zarr does not store, counts as not written.
    """
    stored = set(sync(_keys_of(array)))
    n_chunks = -(-array.shape[0] // array.chunks[0])
    names = [array.metadata.encode_chunk_key((i, *[0] * (array.ndim - 1))) for i in range(n_chunks)]
    return np.array([f"{array.path}/{name}" in stored for name in names], dtype=bool)


def with_length(array: ZarrArray, length: int) -> ZarrArray:
    """A handle that reads and writes the first `length` rows, leaving the stored shape as it is."""
    if array.shape[0] == length:
        return array
    metadata = array.metadata.update_shape((length, *array.shape[1:]))
    return zarr.Array(zarr.AsyncArray(metadata, array.store_path))


def set_length(array: ZarrArray, length: int) -> None:
    """Commits a new length in one atomic write; chunks beyond it stay, to be overwritten later."""
    shape = (length, *array.shape[1:])
    sync(array.async_array.resize(shape, delete_outside_chunks=False))


def copy_array(
    source: Array,
    group: zarr.Group,
    name: str,
    chunks: Sequence[int],
    compressor: Codec | None,
) -> None:
    """Writes `source` to `group[name]`, which must not exist.

    Encoded chunks are copied as they are where chunk shape and compressor stay the same: fast, and images of
    a lossy codec lose nothing.
    """
    check_chunks_compatible(chunks, source.shape)
    if isinstance(source, zarr.Array) and _same_encoding(source, chunks, compressor):
        sync(_copy_encoded(source, group.store_path / name))
        return
    target = group.create_array(
        name,
        shape=source.shape,
        dtype=source.dtype,
        chunks=tuple(chunks),
        compressors=compressor,
        filters=None,
    )
    for rows in row_blocks(target):
        target[rows] = read_array(source, rows)


def delete_array(group: zarr.Group, name: str) -> None:
    """Deletes an array: its metadata first, so that it is never seen with chunks missing."""
    sync(_delete(group.store_path / name))


def replace_array(
    group: zarr.Group,
    name: str,
    source: Array,
    chunks: Sequence[int],
    compressor: Codec | None,
    tmp_key: str = TEMP_KEY,
) -> None:
    """Makes `group[name]` a copy of `source`, which may be that very array.

    A complete temporary copy exists before the old array goes, and until the new one is complete; a process
    killed in between leaves one of the two, which `get_array` finds and `finish_replacements` puts in place.
    """
    temporary = f"{tmp_key}_{name}"
    if name not in group:
        copy_array(source, group, name, chunks, compressor)
        return
    delete_array(group, temporary)
    copy_array(source, group, temporary, chunks, compressor)
    _move_into_place(group, temporary, name)


def finish_replacements(group: zarr.Group) -> None:
    """Completes or undoes what a process killed inside `replace_array` left in a writable group."""
    names = _stored_names(group)
    for temporary in (name for name in names if name.startswith(f"{TEMP_KEY}_")):
        name = temporary.removeprefix(f"{TEMP_KEY}_")
        if name in names:
            delete_array(group, temporary)
        else:
            _move_into_place(group, temporary, name)


def recode_array(
    group: zarr.Group,
    name: str,
    chunks: Sequence[int],
    compressor: Codec | None,
    length: int | None = None,
    tmp_key: str = TEMP_KEY,
) -> None:
    """Rewrites `group[name]`, or its first `length` rows, where chunk shape or compressor differ."""
    array = get_array(group, name)
    if not _same_encoding(array, chunks, compressor):
        source = array if length is None else with_length(array, length)
        replace_array(group, name, source, chunks, compressor, tmp_key)


def rechunk_recompress_array(
    group: zarr.Group,
    name: str,
    chunks: Sequence[int] | None = None,
    chunk_length: int | None = None,
    compressor: Codec | None = None,
    tmp_key: str = TEMP_KEY,
) -> ZarrArray:
    """Rewrites `group[name]` with another chunk shape or compressor, and returns it.

    Args:
        chunks: chunk shape; None keeps it, except that `chunk_length` replaces its first axis.
        compressor: None keeps the compressor there is.
        tmp_key: prefix of the temporary array; only the default one is found again after a kill.
    """
    array = get_array(group, name)
    if chunks is None:
        chunks = array.chunks if chunk_length is None else (chunk_length, *array.chunks[1:])
    if compressor is None:
        compressor = compressor_of(array)
    recode_array(group, name, chunks, compressor, tmp_key=tmp_key)
    return get_array(group, name)


def _stored_names(group: zarr.Group) -> set[str]:
    try:
        with catch_warnings():
            simplefilter("ignore", ZarrUserWarning)  # leftovers of a killed write are no zarr objects
            return set(group.array_keys())
    except ValueError as error:
        raise ValueError(
            f"cannot open the arrays of {group.store_path}: {error}. If that is a codec of imagecodecs, call "
            "diffusion_policy.codecs.imagecodecs_numcodecs.register_codecs() first"
        ) from error


def _same_encoding(array: ZarrArray, chunks: Sequence[int], compressor: Codec | None) -> bool:
    return (
        array.metadata.zarr_format == 2 and tuple(array.chunks) == tuple(chunks) and compressor_of(array) == compressor
    )


def row_blocks(array: ZarrArray, block_bytes: float = _COPY_BLOCK_BYTES) -> Iterator[slice | EllipsisType]:
    """What to index with to go through an array in whole chunks, as many as fit `block_bytes` or one."""
    if array.ndim == 0:
        yield ...
        return
    row_bytes = array.dtype.itemsize * math.prod(array.shape[1:])
    chunk_length = array.chunks[0]
    step = chunk_length * max(1, int(block_bytes / max(1, row_bytes * chunk_length)))
    for start in range(0, array.shape[0], step):
        yield slice(start, min(start + step, array.shape[0]))


def _move_into_place(group: zarr.Group, temporary: str, name: str) -> None:
    delete_array(group, name)
    sync(_copy_encoded(get_array(group, temporary), group.store_path / name))
    delete_array(group, temporary)


async def _keys_of(array: ZarrArray) -> list[str]:
    return [key async for key in array.store.list_prefix(f"{array.path}/")]


async def _delete(path: StorePath) -> None:
    await (path / ".zarray").delete()
    await path.delete_dir()


async def _copy_encoded(source: ZarrArray, target: StorePath) -> None:
    """Copies chunk by chunk without decoding; `.zarray`, which makes the copy an array, comes last."""
    prototype = default_buffer_prototype()
    counts = [-(-size // chunk) for size, chunk in zip(source.shape, source.chunks, strict=True)]
    for index in itertools.product(*map(range, counts)):
        key = source.metadata.encode_chunk_key(index)
        chunk = await (source.store_path / key).get(prototype)
        if chunk is not None:
            await (target / key).set(chunk)
    documents = source.metadata.to_buffer_dict(prototype)
    for key in (".zattrs", ".zarray"):
        await (target / key).set(documents[key])
