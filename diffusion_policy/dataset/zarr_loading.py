"""Demonstrations of a zarr as datasets hold them: in memory where they fit, else left in their store."""

import logging
import math
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np

from diffusion_policy.common.memory import fits
from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.common.stored_array import StoredArray
from diffusion_policy.common.zarr_array import ZarrArray
from diffusion_policy.common.zarr_store import StoreLike, open_group
from diffusion_policy.dataset.data_checks import check_finite
from diffusion_policy.dataset.image_loading import as_bytes, check_images, load_images

log = logging.getLogger(__name__)

InMemory = bool | str
"""Whether arrays are read into memory; "auto": if they fit."""
IN_MEMORY = ("auto", True, False)
LONG_CHUNK = 32
"""Steps. A window reads whole chunks: longer ones mostly in vain."""


def load_zarr(
    zarr_path: StoreLike, vectors: Sequence[str], images: Sequence[str] = (), in_memory: InMemory = "auto"
) -> ReplayBuffer:
    """The arrays of a folder, zip or URL that a dataset needs.

    What is large are the images or, where there are none, the vectors. Vectors beside images are small: they are always
    read into memory.

    Args:
        vectors: keys of arrays of numbers; NaN and infinite ones are refused.
        images: keys of images `(N, H, W, 3)` of whole numbers from 0 to 255; they become uint8.
        in_memory: of what is large. What stays in its store is checked when it is read.

    Raises:
        KeyError: an array is missing.
        ValueError: the data, or `in_memory`, are not as said.
    """
    group = open_group(zarr_path)
    with closing(group.store):
        stored = ReplayBuffer(group)
        missing = sorted({*vectors, *images} - set(stored.keys()))
        if missing:
            raise KeyError(
                f"{zarr_path} has no {missing}; it has {stored.keys()}. Those to read are named by arguments of the "
                "dataset, such as image_key, obs_key and action_key"
            )
        large = list(images or vectors)
        n_bytes = sum(math.prod(stored[key].shape) * (1 if images else stored[key].dtype.itemsize) for key in large)
        left = [] if holds(in_memory, n_bytes, str(zarr_path)) else large
        buffer = ReplayBuffer.copy_from_store(group, keys=[key for key in vectors if key not in left])
        check_finite(buffer, str(zarr_path))
        data: dict[str, Any] = {}
        for key in [*images, *vectors]:
            if key in left and images:
                data[key] = stored_images(zarr_path, stored[key], key, buffer.episode_ends, len(left))
            elif key in left:
                data[key] = StoredArray(zarr_path, key, stored.n_steps, n_shares=len(left))
            elif key in images:
                data[key] = load_images(stored[key], key, buffer.episode_ends, str(zarr_path))
            else:
                data[key] = buffer[key]
    return ReplayBuffer({"data": data, "meta": {"episode_ends": buffer.episode_ends}})


def holds(in_memory: InMemory, n_bytes: int, source: str) -> bool:
    """Whether data of a size are to be read into memory.

    Raises:
        ValueError: there is no such choice.
    """
    if in_memory not in IN_MEMORY:
        raise ValueError(f"task.dataset.in_memory must be auto, true or false, got {in_memory!r}")
    is_held = fits(n_bytes) if in_memory == "auto" else bool(in_memory)
    if not is_held:
        log.info("%s, %.1f GB, stays in its store: batches are read from there", source, n_bytes / 1e9)
    return is_held


def stored_images(location: StoreLike, array: ZarrArray, key: str, ends: np.ndarray, n_shares: int) -> StoredArray:
    """Images that stay in their store, checked and uint8 once they are read; arguments as of `StoredArray`."""
    source = str(location)
    check_images(array, key, source)
    if array.chunks[0] > LONG_CHUNK:
        log.warning(
            "%s: %r is stored in chunks of %d steps, of which a window needs few: reading is slow. Copy it once, with "
            "ReplayBuffer.copy_from_path(..., store='NAME.zarr', chunks={%r: (1, %d, %d, 3)})",
            *(source, key, array.chunks[0], key, *array.shape[1:3]),
        )
    convert = None if array.dtype == np.uint8 else partial(as_bytes, key, ends, source)
    return StoredArray(location, key, array.shape[0], convert, np.uint8, n_shares)
