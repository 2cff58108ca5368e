"""Images of demonstrations compressed in a `.zarr.zip`, which is written once, and from there into memory.

Processes that start together wait for the first, and what a killed one has written is gone on with. A cache holds
`data/<key>`, images as `(N, H, W, 3)`, and `meta/episode_ends`, as the field's do.
"""

import fcntl
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.common.shape_meta import ShapeMeta
from diffusion_policy.common.zarr_store import StoreLike, open_group
from diffusion_policy.dataset.image_loading import load_images
from diffusion_policy.dataset.zarr_loading import InMemory, holds, stored_images

log = logging.getLogger(__name__)

QUALITY = 50
"""dB of PSNR that images keep, about, where they are compressed."""


def ensure_cache(
    cache: Path,
    fingerprint: str,
    difference: Callable[[ReplayBuffer], str],
    write: Callable[[Path], None],
) -> None:
    """Writes a cache unless it is there, of the data that are wanted; of several processes one does.

    Args:
        fingerprint: of the data, for a file's name.
        difference: what is other in a stored cache than in the data; nothing where it is of them.
        write: fills a folder with a replay buffer of the data. The folder may hold what an earlier call of the same
            fingerprint wrote before it was killed.

    Raises:
        OSError: the cache's folder cannot be written to.
    """
    if _is_current(cache, difference):
        return
    with _locked(cache.with_name(f"{cache.name}.lock")):
        if not _is_current(cache, difference):  # unless another process has written it meanwhile
            write_cache(cache, fingerprint, write)


def write_cache(cache: Path, fingerprint: str, write: Callable[[Path], None]) -> None:
    """Lets a cache be filled aside, then moves it into place; arguments as of `ensure_cache`."""
    partial = cache.with_name(f".{cache.name}.{fingerprint}.partial")
    for stale in cache.parent.glob(f".{cache.name}.*.partial"):
        if stale != partial:
            shutil.rmtree(stale)
    write(partial)
    ReplayBuffer.create_from_path(partial).save_to_path(cache)
    shutil.rmtree(partial)


def load_cached(location: StoreLike, shape_meta: ShapeMeta, source: str, in_memory: InMemory = "auto") -> ReplayBuffer:
    """The observations of `shape_meta` and `action` of a stored replay buffer.

    All are numpy arrays, images as uint8, except images that are not to be held in memory: these stay compressed.

    Args:
        location: of the replay buffer, as for `open_group`.
        source: where the data come from, for messages.
        in_memory: whether images are decoded into memory; "auto": if they fit.
    """
    group = open_group(location)
    with closing(group.store):
        stored = ReplayBuffer(group)
        ends = stored.episode_ends
        states = ReplayBuffer.copy_from_store(group, keys=[*shape_meta.low_dim_keys, "action"])
        n_bytes = sum(math.prod(stored[key].shape) for key in shape_meta.rgb_keys)
        images: dict[str, Any] = {}
        is_held = holds(in_memory, n_bytes, source)
        for key in shape_meta.rgb_keys:
            if is_held:
                images[key] = load_images(stored[key], key, ends, source)
            else:
                images[key] = stored_images(location, stored[key], key, ends, len(shape_meta.rgb_keys))
    return ReplayBuffer({"data": {**images, **dict(states.items())}, "meta": {"episode_ends": ends}})


def _is_current(cache: Path, difference: Callable[[ReplayBuffer], str]) -> bool:
    if not cache.exists():
        return False
    try:
        group = open_group(cache)
        with closing(group.store):
            differs = difference(ReplayBuffer(group))
    except (ValueError, KeyError) as error:
        log.warning("%s is written anew: %s", cache, error)
        return False
    if differs:
        log.warning("%s is written anew: it is of other data, in %s", cache, differs)
    return not differs


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Waits for other processes that hold the lock; it is free as soon as its holder ends, however that is."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise OSError(
            f"cannot write the cache beside the data ({error}): make the folder writable, or use "
            "task.dataset.use_cache=false"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
