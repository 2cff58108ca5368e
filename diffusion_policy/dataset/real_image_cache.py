"""Recordings of a robot in memory, and compressed in a cache beside their videos for the next time."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from diffusion_policy.codecs.imagecodecs_numcodecs import Jpeg2k, register_codecs
from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.common.shape_meta import ShapeMeta
from diffusion_policy.common.zarr_array import read_array
from diffusion_policy.common.zarr_store import StoreLike, open_group
from diffusion_policy.dataset.data_checks import check_finite, check_shape_meta
from diffusion_policy.dataset.image_cache import QUALITY, ensure_cache, load_cached
from diffusion_policy.real_world.real_data_conversion import SOURCE, frames_fingerprint, real_data_to_replay_buffer
from diffusion_policy.real_world.recorded_dataset import (
    camera_videos,
    open_recordings,
    video_folder,
    wanted_columns,
)


def load_recordings(dataset_path: str, shape_meta: Mapping[str, Any], use_cache: bool) -> ReplayBuffer:
    """The observations of `shape_meta` and `action`; images `(N, H, W, 3)` uint8.

    All are numpy arrays, except images that do not fit into memory: these are zarr arrays that stay compressed.

    Raises:
        FileNotFoundError: there are no recordings, or a video of them is missing.
        ValueError: they are damaged or not what `shape_meta` says.
    """
    register_codecs(verbose=False)
    source = _Source(dataset_path, ShapeMeta.parse(shape_meta))
    if use_cache:
        cache = Path(dataset_path) / f"{_name_of(shape_meta)}.zarr.zip"
        ensure_cache(cache, source.fingerprint.hex()[:12], source.difference, source.write)
        return load_cached(cache, source.shape_meta, dataset_path)
    store: dict[str, Any] = {}
    source.write(open_group(store, mode="a").store)
    return load_cached(store, source.shape_meta, dataset_path)


class _Source:
    """Recordings as the observations of `shape_meta` and `action`."""

    def __init__(self, path: str, shape_meta: ShapeMeta) -> None:
        self.path = path
        self.shape_meta = shape_meta
        recordings = open_recordings(path)
        self.ends = recordings.episode_ends
        wanted = {"action": (shape_meta.action_dim,), **{key: shape_meta.obs[key] for key in shape_meta.low_dim_keys}}
        self.columns = {key: wanted_columns(key, shape) for key, shape in wanted.items()}
        numbers = {key: recordings[key][:][..., self.columns[key]] for key in wanted if key in recordings}
        self.numbers = ReplayBuffer({"data": numbers, "meta": {"episode_ends": self.ends}})
        check_finite(self.numbers, path)
        self.has_videos = video_folder(path, 0).is_dir()  # else the cache alone was copied, perhaps
        self.videos = camera_videos(path, len(self.ends), shape_meta.rgb_keys) if self.has_videos else {}
        images = {key: (*shape_meta.obs[key][1:], 3) for key in shape_meta.rgb_keys}
        check_shape_meta(shape_meta, {**{key: value.shape[1:] for key, value in numbers.items()}, **images}, path)

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """Width and height of the images of each camera, px."""
        shapes = {key: self.shape_meta.obs[key] for key in self.shape_meta.rgb_keys}
        return {key: (width, height) for key, (_, height, width) in shapes.items()}

    @property
    def fingerprint(self) -> bytes:
        """Of the images."""
        return frames_fingerprint(self.videos, self.sizes, Jpeg2k(level=QUALITY))

    def difference(self, cached: ReplayBuffer) -> str:
        """What of `cached` is not as recorded."""
        if not np.array_equal(cached.episode_ends, self.ends):
            return "episode_ends"
        stored = {key: cached[key] for key in cached.keys()}  # noqa: SIM118 - not a dict
        shapes = {key: (len(self.numbers["action"]), height, width, 3) for key, (width, height) in self.sizes.items()}
        others = [key for key, shape in shapes.items() if key not in stored or stored[key].shape != shape]
        for key, values in self.numbers.items():
            if key not in stored or not np.array_equal(stored[key][:], values):
                others.append(key)
        # Caches of the original do not say which videos they are of.
        if self.has_videos and SOURCE in cached.meta and np.asarray(cached.meta[SOURCE]).tobytes() != self.fingerprint:
            others.append("videos")
        return ", ".join(others)

    def write(self, store: StoreLike) -> None:
        """Copies the recordings into a store; images that an earlier call has written stay."""
        buffer = real_data_to_replay_buffer(
            self.path,
            store,
            self.sizes,
            lowdim_keys=self.numbers.keys(),
            image_keys=self.shape_meta.rgb_keys,
            image_compressor=Jpeg2k(level=QUALITY),
        )
        for key, columns in self.columns.items():
            if columns != slice(None):
                zarr_resize_index_last_dim(buffer.data[key], range(*columns.indices(buffer[key].shape[-1])))


def zarr_resize_index_last_dim(zarr_arr: Any, idxs: Sequence[int]) -> Any:
    """Keeps the entries `idxs` of the last axis of a zarr array, in that order."""
    kept = read_array(zarr_arr)[..., list(idxs)]
    zarr_arr.resize(kept.shape)
    zarr_arr[...] = kept
    return zarr_arr


def _name_of(shape_meta: Mapping[str, Any]) -> str:
    """What the original calls the cache of a `shape_meta`."""
    plain = OmegaConf.to_container(OmegaConf.create(dict(shape_meta)), resolve=True)
    return hashlib.md5(json.dumps(plain, sort_keys=True).encode()).hexdigest()
