"""Images of a zarr array into memory as bytes, whatever they are stored as, and from there into samples."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffusion_policy.common.zarr_array import ZarrArray, read_array, row_blocks
from diffusion_policy.dataset.data_checks import step_and_episode

# Each thread holds a block as stored and a chunk that is being decoded. More threads, or larger blocks, load
# hardly faster on two cores and take more memory.
_THREADS = 3
_BLOCK_BYTES = 16e6


def load_images(array: ZarrArray, name: str, episode_ends: np.ndarray, source: str) -> NDArray[np.uint8]:
    """Reads images `(N, H, W, 3)` of whole numbers from 0 to 255, stored as any type of number, as uint8.

    Blocks of a few chunks are decoded and converted in parallel, so that the array never exists as stored.

    Args:
        array: the images.
        name: what to call the array in errors.
        episode_ends: row after the last of each episode, `(E,)`.
        source: where the data come from.

    Raises:
        ValueError: the array has another shape or type, or a value is not finite, not whole or out of range.
    """
    check_images(array, name, source)
    images = np.empty(array.shape, dtype=np.uint8)

    def load(rows: slice) -> None:
        as_bytes(name, episode_ends, source, read_array(array, rows), rows.start, images[rows])

    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(load, row_blocks(array, _BLOCK_BYTES)):
            pass  # the first error in the order of rows is raised here
    return images


def check_images(array: ZarrArray, name: str, source: str) -> None:
    """Refuses an array that cannot hold images, by its shape and type."""
    if array.ndim != 4 or array.shape[3] != 3:
        raise ValueError(
            f"{source}: {name!r} has shape {array.shape}, expected images (N, H, W, 3): convert them, channels last"
        )
    if not (np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)):
        raise ValueError(f"{source}: {name!r} is of type {array.dtype}, expected uint8 or another type of number")


def as_bytes(
    name: str,
    episode_ends: np.ndarray,
    source: str,
    stored: np.ndarray,
    start: int,
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Images `(n, H, W, 3)` of any type of number as uint8, in `out` where given; `start` is the step of the first.

    Raises:
        ValueError: a value is not finite, not whole or out of range.
    """
    loaded = np.empty(stored.shape, dtype=np.uint8) if out is None else out
    with np.errstate(invalid="ignore"):  # of NaN and values out of range, found below
        np.copyto(loaded, stored, casting="unsafe")
    if not np.array_equal(loaded, stored):
        raise ValueError(f"{source}: {_first_difference(name, stored, loaded, start, episode_ends)}")
    return loaded


def float_images(images: Tensor) -> Tensor:
    """Images `(..., H, W, 3)` uint8 as samples have them, `(..., 3, H, W)` float32 in [0, 1]."""
    # Channels move while the images are bytes: a quarter of the memory traffic.
    return images.movedim(-1, -3).contiguous().to(torch.float32) / 255


def _first_difference(name: str, stored: np.ndarray, loaded: np.ndarray, start: int, episode_ends: np.ndarray) -> str:
    different = loaded != stored
    row = int(np.argmax(different.reshape(len(different), -1).any(axis=1)))
    value = stored[row][different[row]][0]
    return (
        f"{name!r} has the value {value} at {step_and_episode(start + row, episode_ends)}, expected whole numbers "
        "from 0 to 255: convert the images to uint8 (those in [0, 1] times 255), or drop that episode"
    )
