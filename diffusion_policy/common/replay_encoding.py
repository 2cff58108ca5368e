"""How the arrays of a replay buffer are encoded in zarr: chunk shape and compressor; and writing them all."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import numcodecs
import zarr
from numcodecs.abc import Codec

from diffusion_policy.common.replay_backend import Backend, Encoding, ZarrBackend
from diffusion_policy.common.zarr_array import (
    Array,
    check_chunks_compatible,
    compressor_of,
    copy_array,
    delete_array,
    get_optimal_chunks,
)
from diffusion_policy.common.zarr_store import IfExists, check_choice, is_same_store

Chunks: TypeAlias = tuple[int, ...]
Compressor: TypeAlias = str | Codec | None
ChunksArg: TypeAlias = Mapping[str, Chunks] | Chunks
CompressorsArg: TypeAlias = Mapping[str, Compressor] | Compressor

NO_CHOICE: Mapping[str, Any] = MappingProxyType({})
_COMPRESSORS = {
    "default": numcodecs.Blosc("lz4", clevel=5, shuffle=numcodecs.Blosc.NOSHUFFLE),
    "disk": numcodecs.Blosc("zstd", clevel=5, shuffle=numcodecs.Blosc.BITSHUFFLE),
}


def resolve_compressor(compressor: Compressor = "default") -> Codec | None:
    """The codec of a name, 'default' (fast) or 'disk' (small); a codec, or None for raw, passes through."""
    if not isinstance(compressor, str):
        return compressor
    if compressor not in _COMPRESSORS:
        raise ValueError(f"unknown compressor {compressor!r}: give one of {sorted(_COMPRESSORS)} or a codec")
    return _COMPRESSORS[compressor]


def resolve_array_compressor(compressors: CompressorsArg, key: str, array: Array) -> Codec | None:
    """The compressor chosen for `key`, else the one that `array` has, else the default."""
    if not isinstance(compressors, Mapping):
        return resolve_compressor(compressors)
    if key in compressors:
        return resolve_compressor(compressors[key])
    if isinstance(array, zarr.Array) and array.metadata.zarr_format == 2:
        return compressor_of(array)
    return resolve_compressor()


def resolve_array_chunks(chunks: ChunksArg, key: str, array: Array) -> Chunks:
    """The chunk shape chosen for `key`, else the one that `array` has, else one of about 2 MB.

    Raises:
        ValueError: the choice does not fit the array.
    """
    if isinstance(chunks, Mapping) and key not in chunks:
        return array.chunks if isinstance(array, zarr.Array) else get_optimal_chunks(array.shape, array.dtype)
    chosen = tuple(chunks[key] if isinstance(chunks, Mapping) else chunks)
    check_chunks_compatible(chosen, array.shape)
    return chosen


def resolve_encoding(chunks: ChunksArg, compressors: CompressorsArg, key: str, array: Array) -> Encoding:
    """Chunk shape and compressor for `key`."""
    return resolve_array_chunks(chunks, key, array), resolve_array_compressor(compressors, key, array)


def write_buffer(
    source: Backend,
    target: zarr.Group,
    keys: Iterable[str],
    chunks: ChunksArg,
    compressors: CompressorsArg,
    if_exists: IfExists = "replace",
) -> None:
    """Copies these keys and all of `meta` into a zarr group, `episode_ends` last.

    Raises:
        ValueError: the group is where `source` itself is stored.
        FileExistsError: an array exists and `if_exists` is 'raise'.
    """
    check_choice("if_exists", if_exists, IfExists)
    if isinstance(source, ZarrBackend) and is_same_store(source.data.store, target.store):
        raise ValueError(f"cannot copy the replay buffer in {target.store} onto itself: choose another store")
    data, meta = target.require_group("data"), target.require_group("meta")
    if if_exists == "replace":
        delete_array(meta, "episode_ends")  # so that no mix of old and new ever passes for a buffer
    for key in keys:
        array = source.array(key)
        _write_array(data, key, array, resolve_encoding(chunks, compressors, key, array), if_exists)
    for name in sorted(source.meta_keys(), key="episode_ends".__eq__):
        array = source.meta_array(name)
        compressor = NO_CHOICE if isinstance(array, zarr.Array) else numcodecs.Blosc()
        _write_array(meta, name, array, resolve_encoding(NO_CHOICE, compressor, name, array), if_exists)


def _write_array(group: zarr.Group, name: str, array: Array, encoding: Encoding, if_exists: IfExists) -> None:
    if name in group:
        if if_exists == "raise":
            raise FileExistsError(f"array {name!r} exists in {group.store}: use if_exists='replace' or 'skip'")
        if if_exists == "skip":
            return
        delete_array(group, name)
    copy_array(array, group, name, *encoding)
