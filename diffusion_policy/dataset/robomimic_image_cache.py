"""Images of robomimic's HDF5 files in memory, and compressed in a cache `<file>.zarr.zip` for the next time.

Frames of HDF5 are compressed in ways that make random access slow, or not at all, and then are many times larger.
"""

import hashlib
import json
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from diffusion_policy.codecs.imagecodecs_numcodecs import Jpeg2k, register_codecs
from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.common.robomimic_hdf5 import check_steps, demo_names, open_robomimic, read_rows
from diffusion_policy.common.shape_meta import ShapeMeta
from diffusion_policy.dataset.data_checks import check_finite, check_shape_meta
from diffusion_policy.dataset.image_cache import QUALITY, ensure_cache, load_cached
from diffusion_policy.dataset.robomimic_actions import check_action_dim, converted_actions
from diffusion_policy.dataset.zarr_loading import InMemory, holds
from diffusion_policy.model.common.absolute_actions import ENV_DIM, AbsoluteActions

if TYPE_CHECKING:
    import h5py

log = logging.getLogger(__name__)


def load_images_and_states(
    path: str, shape_meta: ShapeMeta, abs_action: bool, rotation_rep: str, use_cache: bool, in_memory: InMemory = "auto"
) -> ReplayBuffer:
    """The observations of `shape_meta` and `action`, float32; images `(N, H, W, 3)` uint8.

    All are numpy arrays, except images that do not fit into memory, or are not to be there: these stay in the cache.

    Raises:
        ValueError: the file is damaged or not what `shape_meta` says.
        MemoryError: images do not fit, and there is no cache as `use_cache` is false.
    """
    source = _Source(path, shape_meta, abs_action, rotation_rep)
    if not use_cache:
        if not holds(in_memory, source.image_bytes, path):
            raise MemoryError(
                f"the images of {path} take {source.image_bytes / 1e9:.1f} GB of memory, more than there is to spare "
                "or than in_memory allows: use task.dataset.use_cache=true, and they are read from a compressed copy"
            )
        return source.read()
    register_codecs(verbose=False)
    cache = Path(f"{path}.zarr.zip")
    ensure_cache(cache, source.fingerprint, source.difference, source.write)
    return load_cached(cache, shape_meta, str(cache), in_memory)


class _Source:
    """A file as the observations of `shape_meta` and `action`, one demonstration at a time."""

    def __init__(self, path: str, shape_meta: ShapeMeta, abs_action: bool, rotation_rep: str) -> None:
        self.path = path
        self.shape_meta = shape_meta
        self._convert = lambda action: converted_actions(action, abs_action, rotation_rep)
        with open_robomimic(path) as file:
            self.names = demo_names(file)
            there = file["data"][self.names[0]].get("obs", {})
            stored = {key: array.shape[1:] for key, array in there.items()}
            wanted = [f"obs/{key}" for key in shape_meta.obs if key in stored]
            shapes = check_steps(file, self.names, ["actions", *wanted])
            self.n_steps = sum(len(file["data"][name]["actions"]) for name in self.names)
        check_action_dim(shapes["actions"], abs_action, path)
        action_dim = (
            AbsoluteActions(rotation_rep).dim * shapes["actions"][0] // ENV_DIM if abs_action else shapes["actions"][0]
        )
        check_shape_meta(shape_meta, {**stored, "action": (action_dim,)}, path)
        self.shapes = {**{key: stored[key] for key in shape_meta.obs}, "action": (action_dim,)}
        stat = Path(path).stat()
        identity = [stat.st_size, stat.st_mtime_ns, self.shapes, abs_action, rotation_rep]
        self.fingerprint = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]

    @property
    def image_bytes(self) -> int:
        """What all images take, decoded."""
        return sum(self.n_steps * math.prod(self.shapes[key]) for key in self.shape_meta.rgb_keys)

    def episode(self, file: "h5py.File", name: str) -> dict[str, np.ndarray]:
        """Arrays of a demonstration by key, `(N, ...)`."""
        episode = {}
        for key in self.shape_meta.obs:
            values = read_rows(file, f"data/{name}/obs/{key}")
            if key not in self.shape_meta.rgb_keys:
                episode[key] = values.astype(np.float32)
            elif values.dtype == np.uint8:
                episode[key] = values
            else:
                raise ValueError(f"{self.path}: {key!r} is of type {values.dtype}, expected images of uint8")
        episode["action"] = self._convert(read_rows(file, f"data/{name}/actions"))
        check_finite(
            ReplayBuffer({"data": episode, "meta": {"episode_ends": np.array([len(episode["action"])])}}),
            f"{self.path}: {name}",
        )
        return episode

    def read(self) -> ReplayBuffer:
        """All demonstrations, in memory."""
        buffer = ReplayBuffer.create_empty_numpy()
        with open_robomimic(self.path) as file:
            for name in tqdm(self.names, desc=f"reading {self.path}", mininterval=1, leave=False):
                buffer.add_episode(self.episode(file, name))
        return buffer

    def difference(self, cached: ReplayBuffer) -> str:
        """What of `cached` is not as in the file."""
        shapes = {key: cached[key].shape for key in cached.keys()}  # noqa: SIM118 - not a dict
        expected = {key: (self.n_steps, *shape) for key, shape in self.shapes.items()}
        return ", ".join(key for key, shape in expected.items() if shapes.get(key) != shape)

    def write(self, folder: Path) -> None:
        """Appends the demonstrations that are missing in the replay buffer `folder`, images compressed."""
        buffer = ReplayBuffer.create_from_path(folder, mode="a")
        chunks = {key: (1, *self.shapes[key]) for key in self.shape_meta.rgb_keys}
        compressors = {key: Jpeg2k(level=QUALITY) for key in chunks}
        n_done = buffer.n_episodes
        if n_done:
            log.info("the cache of %s is gone on with from demonstration %d", self.path, n_done)
        with open_robomimic(self.path) as file:
            names = tqdm(
                self.names[n_done:], desc=f"compressing images of {self.path}", initial=n_done, total=len(self.names)
            )
            for name in names:
                buffer.add_episode(self.episode(file, name), chunks=chunks, compressors=compressors)
