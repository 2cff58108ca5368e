"""Where the arrays of a ReplayBuffer live: numpy arrays in dicts, or a zarr group."""

import logging
from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

import numcodecs
import numpy as np
import zarr
from numcodecs.abc import Codec

from diffusion_policy.common.replay_checks import (
    check_episode_ends,
    check_equal_lengths,
    check_format,
    check_lengths,
    check_root,
)
from diffusion_policy.common.zarr_array import (
    Array,
    ZarrArray,
    array_names,
    compressor_of,
    delete_array,
    finish_replacements,
    get_array,
    read_array,
    replace_array,
    set_length,
    subgroup,
    with_length,
)

NumpyRoot: TypeAlias = dict[str, dict[str, np.ndarray]]
Encoding: TypeAlias = tuple[tuple[int, ...], Codec | None]
"""Chunk shape and compressor."""

log = logging.getLogger(__name__)


class Backend(Protocol):
    """Arrays of steps under `keys`, arrays of anything else under `meta_keys`."""

    name: str
    data: Any
    meta: Any

    @property
    def n_steps(self) -> int: ...
    def keys(self) -> list[str]: ...
    def array(self, key: str) -> Array: ...
    def items(self) -> list[tuple[str, Any]]: ...
    def meta_keys(self) -> list[str]: ...
    def meta_array(self, name: str) -> Array: ...
    def set_meta(self, name: str, value: np.ndarray) -> None: ...

    def append(self, episode: Mapping[str, np.ndarray], encodings: Mapping[str, Encoding]) -> None:
        """Appends a checked episode; `encodings` are for the keys that do not exist yet."""

    def drop(self) -> None:
        """Drops the last episode."""


class NumpyBackend:
    """Numpy arrays; they grow geometrically, so that appending costs no more than the new episode."""

    name = "numpy"

    def __init__(self, root: NumpyRoot) -> None:
        check_root(root)
        self.data, self.meta = root["data"], root["meta"]
        self._grown: dict[str, np.ndarray] = {}
        check_episode_ends(self.meta["episode_ends"])
        check_equal_lengths({key: value.shape for key, value in self.data.items()}, self.n_steps)

    @property
    def n_steps(self) -> int:
        ends = self.meta["episode_ends"]
        return int(ends[-1]) if len(ends) else 0

    def keys(self) -> list[str]:
        return list(self.data)

    def array(self, key: str) -> np.ndarray:
        if key not in self.data:
            raise KeyError(f"no array {key!r} in this replay buffer, which has {self.keys()}")
        return self.data[key]

    def items(self) -> list[tuple[str, np.ndarray]]:
        return list(self.data.items())

    def meta_keys(self) -> list[str]:
        return list(self.meta)

    def meta_array(self, name: str) -> np.ndarray:
        return self.meta[name]

    def set_meta(self, name: str, value: np.ndarray) -> None:
        self.meta[name] = value

    def append(self, episode: Mapping[str, np.ndarray], encodings: Mapping[str, Encoding]) -> None:
        start = self.n_steps
        stop = start + len(next(iter(episode.values())))
        if not len(self.meta["episode_ends"]):
            self.data.clear()
        for key, value in episode.items():
            array = self.data.get(key, value[:0])
            grown = self._grown.get(key)
            if grown is None or array.base is not grown or len(grown) < stop:
                grown = np.empty((max(stop, 2 * start), *array.shape[1:]), dtype=array.dtype)
                grown[:start] = array
                self._grown[key] = grown
            grown[start:stop] = value
            self.data[key] = grown[:stop]
        self.meta["episode_ends"] = np.append(self.meta["episode_ends"], stop)

    def drop(self) -> None:
        self.meta["episode_ends"] = self.meta["episode_ends"][:-1]
        for key, array in self.data.items():
            self.data[key] = array[: self.n_steps]


class ZarrBackend:
    """Arrays of a zarr group. An episode exists once its end is written; all else goes before or after."""

    name = "zarr"

    def __init__(self, root: zarr.Group) -> None:
        check_root(root)
        self.data, self.meta = subgroup(root, "data"), subgroup(root, "meta")
        if not root.read_only:
            check_format(root)
            finish_replacements(self.data)
            finish_replacements(self.meta)
        check_episode_ends(read_array(self.meta_array("episode_ends")))
        shapes = {key: get_array(self.data, key).shape for key in self.keys()}
        check_lengths(shapes, self.n_steps)
        leftovers = {key: shape[0] - self.n_steps for key, shape in shapes.items() if shape[0] > self.n_steps}
        if leftovers:
            log.warning("%s: rows beyond the last whole episode are ignored: %s", root.store, leftovers)

    @property
    def n_steps(self) -> int:
        ends = read_array(self.meta_array("episode_ends"))
        return int(ends[-1]) if len(ends) else 0

    def keys(self) -> list[str]:
        return array_names(self.data)

    def array(self, key: str) -> ZarrArray:
        return with_length(get_array(self.data, key), self.n_steps)

    def items(self) -> list[tuple[str, ZarrArray]]:
        n_steps = self.n_steps
        return [(key, with_length(get_array(self.data, key), n_steps)) for key in self.keys()]

    def meta_keys(self) -> list[str]:
        return array_names(self.meta)

    def meta_array(self, name: str) -> ZarrArray:
        return get_array(self.meta, name)

    def set_meta(self, name: str, value: np.ndarray) -> None:
        replace_array(self.meta, name, value, tuple(max(1, size) for size in value.shape), numcodecs.Blosc())

    def append(self, episode: Mapping[str, np.ndarray], encodings: Mapping[str, Encoding]) -> None:
        start = self.n_steps
        stop = start + len(next(iter(episode.values())))
        if not self.meta_array("episode_ends").shape[0]:
            self._delete_unfinished(episode)
        existing = self.keys()
        for key, value in episode.items():
            if key not in existing:
                self._create(key, value, *encodings[key])
            array = get_array(self.data, key)
            array.resize((stop, *array.shape[1:]))
            array[start:stop] = value
        self._commit(stop)

    def drop(self) -> None:
        ends = self.meta_array("episode_ends")
        set_length(ends, ends.shape[0] - 1)
        for key in self.keys():
            array = get_array(self.data, key)
            array.resize((self.n_steps, *array.shape[1:]))

    def _commit(self, end: int) -> None:
        """Appends to `episode_ends`: first the chunk that holds the value, then the length that reveals it.

        A full chunk is replaced by one with half as much room again, so that growing costs little.
        """
        ends = self.meta_array("episode_ends")
        index = ends.shape[0]
        if index < ends.chunks[0]:
            with_length(ends, index + 1)[index] = end
            set_length(ends, index + 1)
        else:
            grown = np.append(read_array(ends), np.asarray(end, dtype=ends.dtype))
            replace_array(self.meta, "episode_ends", grown, (int(1.5 * len(grown)),), compressor_of(ends))

    def _create(self, key: str, value: np.ndarray, chunks: tuple[int, ...], compressor: Codec | None) -> None:
        shape = (0, *value.shape[1:])
        self.data.create_array(key, shape=shape, dtype=value.dtype, chunks=chunks, compressors=compressor, filters=None)

    def _delete_unfinished(self, episode: Mapping[str, np.ndarray]) -> None:
        """Of arrays without an episode, only empty ones made for episodes like this one are worth keeping."""
        for key in self.keys():
            array = get_array(self.data, key)
            fits = key in episode and array.shape == (0, *episode[key].shape[1:])
            if not fits or array.dtype != episode[key].dtype:
                log.warning("%s: replacing data/%s, which belongs to no whole episode", self.data.store, key)
                delete_array(self.data, key)
