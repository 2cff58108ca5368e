"""Episodes end to end in one array a key, in memory or in zarr.

The layout is that of the field's datasets: `data/<key>` `(N, ...)` holds the steps of all episodes one after
another, `meta/episode_ends` `(E,)` int64 the row after the last step of each. An episode exists once its end
stands there, which is the last thing that an append writes: rows beyond `episode_ends[-1]` are leftovers of a
process killed while it appended. They are ignored on read and overwritten by the next append.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np
import zarr
from numcodecs.abc import Codec

from diffusion_policy.common.replay_backend import Backend, NumpyBackend, NumpyRoot, ZarrBackend
from diffusion_policy.common.replay_checks import as_episode, check_continues, check_format
from diffusion_policy.common.replay_encoding import (
    NO_CHOICE,
    Chunks,
    ChunksArg,
    Compressor,
    CompressorsArg,
    resolve_array_chunks,
    resolve_array_compressor,
    resolve_compressor,
    resolve_encoding,
    write_buffer,
)
from diffusion_policy.common.zarr_array import (
    array_names,
    check_chunks_compatible,
    compressor_of,
    get_optimal_chunks,
    read_array,
    rechunk_recompress_array,
    recode_array,
)
from diffusion_policy.common.zarr_store import (
    IfExists,
    Mode,
    PathLike,
    StoreLike,
    is_path,
    open_group,
    write_path,
)

__all__ = ["ReplayBuffer", "check_chunks_compatible", "get_optimal_chunks", "rechunk_recompress_array"]


class ReplayBuffer:
    """Appendable episodes of arrays, on top of a zarr group or of a dict of numpy arrays.

    `chunks` and `compressors` arguments, wherever they stand, are one value for all keys or a mapping from
    key to value; keys left out keep what they have, or get a chunk shape of about 2 MB and the 'default'
    compressor. A compressor is 'default' (fast), 'disk' (small), a numcodecs codec or None. `if_exists` is
    'replace', 'skip' or 'raise'.

    Args:
        root: zarr group, or dict, with `data` and `meta` in it, the latter with `episode_ends`.

    Raises:
        ValueError: `root` is no valid replay buffer; the message says what is wrong with it.
    """

    def __init__(self, root: zarr.Group | NumpyRoot) -> None:
        self.root = root
        self._backend: Backend = NumpyBackend(root) if isinstance(root, dict) else ZarrBackend(root)

    # Ways to make one

    @classmethod
    def create_empty_zarr(cls, storage: StoreLike | None = None, root: zarr.Group | None = None) -> Self:
        """A buffer in `root` or at the root of `storage` (None: in memory); opens the one that is there."""
        if root is None:
            root = open_group({} if storage is None else storage, mode="a")
        check_format(root)
        data, meta = root.require_group("data"), root.require_group("meta")
        if "episode_ends" not in array_names(meta) and not array_names(data):
            meta.create_array("episode_ends", shape=(0,), dtype=np.int64, chunks=(1,), compressors=None, filters=None)
        return cls(root=root)

    @classmethod
    def create_empty_numpy(cls) -> Self:
        """A buffer of numpy arrays in memory."""
        return cls(root={"data": {}, "meta": {"episode_ends": np.zeros((0,), dtype=np.int64)}})

    @classmethod
    def create_from_group(cls, group: zarr.Group, **kwargs: Any) -> Self:
        """The buffer of a zarr group; an empty one is created in a writable group that has none."""
        if group.read_only:
            return cls(root=group, **kwargs)
        return cls.create_empty_zarr(root=group, **kwargs)

    @classmethod
    def create_from_path(cls, zarr_path: PathLike, mode: Mode = "r", **kwargs: Any) -> Self:
        """Opens a `.zarr` folder or `.zarr.zip` file in place: for small reads, or for appending.

        Args:
            mode: 'r' never modifies the files; 'r+' appends; 'a' also creates the folder; 'w' and 'w-' start
                an empty buffer, 'w' in place of a zarr that is there.
        """
        group = open_group(zarr_path, mode)
        if mode == "r+":
            return cls(root=group, **kwargs)
        return cls.create_from_group(group, **kwargs)

    @classmethod
    def copy_from_store(
        cls,
        src_store: StoreLike | zarr.Group,
        store: StoreLike | None = None,
        keys: Iterable[str] | None = None,
        chunks: ChunksArg = NO_CHOICE,
        compressors: CompressorsArg = NO_CHOICE,
        if_exists: IfExists = "replace",
        **kwargs: Any,
    ) -> Self:
        """Copies a buffer into numpy arrays in memory, or into `store` where one is given.

        Other keyword arguments are accepted and ignored, here and in what else copies or saves.

        Args:
            keys: keys of `data` to copy; None copies all.
        """
        group = src_store if isinstance(src_store, zarr.Group) else open_group(src_store, mode="r")
        source = ZarrBackend(group)
        keys = source.keys() if keys is None else list(keys)
        if store is None:
            data = {key: read_array(source.array(key)) for key in keys}
            meta = {name: read_array(source.meta_array(name)) for name in source.meta_keys()}
            return cls(root={"data": data, "meta": meta})
        if not is_path(store):
            target = open_group(store, mode="a")
            write_buffer(source, target, keys, chunks, compressors, if_exists)
            return cls(root=target)
        write_path(store, lambda root: write_buffer(source, root, keys, chunks, compressors), if_exists)
        return cls.create_from_path(store, mode="r" if str(store).endswith(".zip") else "r+")

    @classmethod
    def copy_from_path(
        cls,
        zarr_path: PathLike,
        backend: str | None = None,
        store: StoreLike | None = None,
        keys: Iterable[str] | None = None,
        chunks: ChunksArg = NO_CHOICE,
        compressors: CompressorsArg = NO_CHOICE,
        if_exists: IfExists = "replace",
        **kwargs: Any,
    ) -> Self:
        """`copy_from_store` from a `.zarr` folder or `.zarr.zip` file; backend 'numpy' means `store` None."""
        group = open_group(zarr_path, mode="r")
        target = None if backend == "numpy" else store
        try:
            return cls.copy_from_store(group, target, keys, chunks, compressors, if_exists)
        finally:
            group.store.close()

    # Saving

    def save_to_store(
        self,
        store: StoreLike,
        chunks: ChunksArg = NO_CHOICE,
        compressors: CompressorsArg = NO_CHOICE,
        if_exists: IfExists = "replace",
        **kwargs: Any,
    ) -> StoreLike:
        """Copies the buffer to the root of a zarr store and returns the store.

        Chunks of zarr arrays are copied without decoding them unless another chunk shape or compressor is
        asked for. `if_exists` concerns each array that is there already.
        """
        target = open_group(store, mode="a")
        write_buffer(self._backend, target, self.keys(), chunks, compressors, if_exists)
        return store

    def save_to_path(
        self,
        zarr_path: PathLike,
        chunks: ChunksArg = NO_CHOICE,
        compressors: CompressorsArg = NO_CHOICE,
        if_exists: IfExists = "replace",
        **kwargs: Any,
    ) -> PathLike:
        """Writes a zarr folder, or one file where the path ends in '.zip', and returns the path.

        It is written aside and renamed when complete, so `zarr_path` is never half-written.
        """
        write_path(
            zarr_path,
            lambda root: write_buffer(self._backend, root, self.keys(), chunks, compressors),
            if_exists,
        )
        return zarr_path

    resolve_compressor = staticmethod(resolve_compressor)
    _resolve_array_compressor = staticmethod(resolve_array_compressor)
    _resolve_array_chunks = staticmethod(resolve_array_chunks)

    # Content

    @property
    def data(self) -> zarr.Group | dict[str, np.ndarray]:
        """Group, or dict, of the arrays as stored; `buffer[key]` gives the rows of whole episodes only."""
        return self._backend.data

    @property
    def meta(self) -> zarr.Group | dict[str, np.ndarray]:
        """Group, or dict, of what is not per step, `episode_ends` among it."""
        return self._backend.meta

    @property
    def backend(self) -> str:
        """'numpy' or 'zarr'."""
        return self._backend.name

    @property
    def episode_ends(self) -> np.ndarray:
        """Row after the last of each episode, `(E,)` int64."""
        return read_array(self._backend.meta_array("episode_ends"))

    @property
    def episode_lengths(self) -> np.ndarray:
        """Steps of each episode, `(E,)`."""
        return np.diff(self.episode_ends, prepend=0)

    @property
    def n_episodes(self) -> int:
        """Number of whole episodes."""
        return len(self.episode_ends)

    @property
    def n_steps(self) -> int:
        """Steps of all whole episodes together."""
        return self._backend.n_steps

    @property
    def chunk_size(self) -> int | None:
        """Rows a chunk of the zarr arrays; None for numpy and for an empty buffer."""
        if self.backend == "numpy":
            return None
        return next((chunks[0] for chunks in self.get_chunks().values()), None)

    def keys(self) -> list[str]:
        """Keys of `data`."""
        return self._backend.keys()

    def values(self) -> list[Any]:
        """Arrays of `data`, in the order of `keys`."""
        return [array for _, array in self._backend.items()]

    def items(self) -> list[tuple[str, Any]]:
        """Pairs of key and array of `data`."""
        return self._backend.items()

    def __getitem__(self, key: str) -> Any:
        """Array of `data` `(n_steps, ...)`: numpy, or a zarr array that reads from the store when sliced."""
        return self._backend.array(key)

    def __contains__(self, key: str) -> bool:
        return key in self.keys()

    def __repr__(self) -> str:
        where = self.root.store if isinstance(self.root, zarr.Group) else "memory"
        arrays = "".join(f"\n  {key}: {value.shape} {value.dtype}" for key, value in self.items())
        name = type(self).__name__
        return f"{name}({self.backend}, {where}): {self.n_episodes} episodes, {self.n_steps} steps{arrays}"

    def get_episode_idxs(self) -> np.ndarray:
        """Index of the episode that each step belongs to, `(n_steps,)` int64."""
        return np.repeat(np.arange(self.n_episodes), self.episode_lengths)

    def get_episode_slice(self, idx: int) -> slice:
        """Rows of an episode; negative indices count from the last one.

        Raises:
            IndexError: there is no such episode.
        """
        bounds = [0, *self.episode_ends.tolist()]
        n_episodes = len(bounds) - 1
        if not -n_episodes <= idx < n_episodes:
            raise IndexError(f"episode {idx} does not exist: the buffer has {n_episodes}")
        idx %= n_episodes
        return slice(bounds[idx], bounds[idx + 1])

    def get_episode(self, idx: int, copy: bool = False) -> dict[str, np.ndarray]:
        """Arrays of one episode; numpy ones are views unless `copy`."""
        rows = self.get_episode_slice(idx)
        return self.get_steps_slice(rows.start, rows.stop, copy=copy)

    def get_steps_slice(
        self, start: int, stop: int, step: int | None = None, copy: bool = False
    ) -> dict[str, np.ndarray]:
        """Arrays of the rows `start:stop:step`; numpy ones are views unless `copy`."""
        steps = {key: read_array(value, slice(start, stop, step)) for key, value in self.items()}
        return {key: value.copy() for key, value in steps.items()} if copy else steps

    # Changes

    def add_episode(
        self,
        data: Mapping[str, Any],
        chunks: ChunksArg = NO_CHOICE,
        compressors: CompressorsArg = NO_CHOICE,
    ) -> None:
        """Appends one episode, whole or, should the process be killed meanwhile, not at all.

        Args:
            data: array `(steps, ...)` for each key of the buffer; the first episode decides the keys, the
                shapes and dtypes of steps, and with `chunks` and `compressors` how they are stored.

        Raises:
            ValueError: the arrays are not of equal, positive length or do not fit the buffer, which then
                stays as it was.
        """
        episode = as_episode(data)
        if self.n_episodes:
            check_continues(episode, dict(self.items()))
        encodings = {key: resolve_encoding(chunks, compressors, key, value) for key, value in episode.items()}
        self._writable().append(episode, encodings)

    def extend(self, data: Mapping[str, Any]) -> None:
        """Appends one episode, as `add_episode`."""
        self.add_episode(data)

    def drop_episode(self) -> None:
        """Removes the last episode.

        Raises:
            IndexError: there is none.
        """
        self.get_episode_slice(-1)
        self._writable().drop()

    def pop_episode(self) -> dict[str, np.ndarray]:
        """Removes the last episode and returns a copy of its arrays."""
        episode = self.get_episode(-1, copy=True)
        self._writable().drop()
        return episode

    def update_meta(self, data: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Sets arrays of `meta`, each replaced as a whole, and returns them as numpy arrays."""
        if "episode_ends" in data:
            raise ValueError("episode_ends follows the episodes: use add_episode and drop_episode")
        arrays = {key: np.asarray(value) for key, value in data.items()}
        for key, value in arrays.items():
            if value.dtype.hasobject:
                raise ValueError(f"meta {key!r} must be an array of numbers or text, got {data[key]!r}")
        for key, value in arrays.items():
            self._writable().set_meta(key, value)
        return arrays

    def get_chunks(self) -> dict[str, Chunks]:
        """Chunk shape of each key; zarr only."""
        return {key: array.chunks for key, array in self._zarr_items()}

    def set_chunks(self, chunks: Mapping[str, Chunks]) -> None:
        """Rewrites the arrays whose chunk shape differs; zarr only."""
        self._recode(chunks, NO_CHOICE)

    def get_compressors(self) -> dict[str, Codec | None]:
        """Compressor of each key; zarr only."""
        return {key: compressor_of(array) for key, array in self._zarr_items()}

    def set_compressors(self, compressors: Mapping[str, Compressor]) -> None:
        """Rewrites the arrays whose compressor differs; zarr only."""
        self._recode(NO_CHOICE, compressors)

    def _recode(self, chunks: Mapping[str, Chunks], compressors: Mapping[str, Compressor]) -> None:
        arrays = self._zarr_items()
        if unknown := {*chunks, *compressors} - dict(arrays).keys():
            raise KeyError(f"no arrays {sorted(unknown)} in this replay buffer, which has {self.keys()}")
        for key, array in arrays:
            encoding = resolve_encoding(chunks, compressors, key, array)
            recode_array(self._writable().data, key, *encoding, length=self.n_steps)

    def _writable(self) -> Backend:
        if isinstance(self.root, zarr.Group) and self.root.read_only:
            raise ValueError(f"{self.root.store} is read-only: open a zarr folder with mode='r+' to change it")
        return self._backend

    def _zarr_items(self) -> list[tuple[str, Any]]:
        if self.backend != "zarr":
            raise ValueError(f"only zarr arrays have chunks and compressors; this buffer's are {self.backend}")
        return self.items()
