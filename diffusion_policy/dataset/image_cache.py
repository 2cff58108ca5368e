"""Images of demonstrations compressed in a `.zarr.zip`, which is written once, and from there into memory.

Processes that start together wait for the first, and what a killed one has written is gone on with. A cache holds
`data/<key>`, images as `(N, H, W, 3)`, and `meta/episode_ends`, as the field's do.
"""

import fcntl
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import MemoryStore

from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.common.shape_meta import ShapeMeta
from diffusion_policy.common.zarr_store import open_group
from diffusion_policy.dataset.image_loading import load_images

log = logging.getLogger(__name__)

QUALITY = 50
"""dB of PSNR that images keep, about, where they are compressed."""

SHARE_OF_FREE_MEMORY = 0.5
"""Most of the free memory that decoded images take."""


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


def load_cached(group: zarr.Group, shape_meta: ShapeMeta, source: str) -> ReplayBuffer:
    """The observations of `shape_meta` and `action` of a stored replay buffer, in memory.

    All are numpy arrays, images as uint8, except images that do not fit: these are zarr arrays that stay compressed.

    Args:
        source: where the data come from, for messages.
    """
    stored = ReplayBuffer(group)
    ends = stored.episode_ends
    states = ReplayBuffer.copy_from_store(group, keys=[*shape_meta.low_dim_keys, "action"])
    if fit(sum(int(np.prod(stored[key].shape)) for key in shape_meta.rgb_keys)):
        images: Any = {key: load_images(stored[key], key, ends, source) for key in shape_meta.rgb_keys}
    else:
        log.info("The images of %s stay compressed in memory: decoded they would not fit", source)
        store = MemoryStore()  # a file's handle would be shared with the processes that load batches
        images = dict(ReplayBuffer.copy_from_store(group, store=store, keys=shape_meta.rgb_keys).items())
    return ReplayBuffer({"data": {**images, **dict(states.items())}, "meta": {"episode_ends": ends}})


def fit(n_bytes: int) -> bool:
    """Whether images of this size, decoded, may be kept in memory."""
    return n_bytes <= SHARE_OF_FREE_MEMORY * _free_memory()


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


def _free_memory() -> int:
    """Bytes that can be had without swapping."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
