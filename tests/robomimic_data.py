"""Files in robomimic's layout, of random numbers, and what makes files once for all test processes."""

import fcntl
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

OBS_DIMS = {"object": 10, "robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_gripper_qpos": 2}
IMAGE = "agentview_image"
SHAPE_META = {
    "obs": {
        IMAGE: {"shape": [3, 12, 16], "type": "rgb"},
        "robot0_eef_pos": {"shape": [3]},
        "robot0_eef_quat": {"shape": [4]},
    },
    "action": {"shape": [7]},
}


def smooth_images(rng: np.random.Generator, n: int) -> np.ndarray:
    """Images that JPEG 2000 keeps nearly as they are, `(n, 12, 16, 3)`."""
    corners = rng.integers(0, 256, (n, 1, 1, 3)), rng.integers(0, 256, (n, 1, 1, 3))
    weight = np.linspace(0, 1, 16)[None, None, :, None]
    return np.broadcast_to(corners[0] * weight + corners[1] * (1 - weight), (n, 12, 16, 3)).astype(np.uint8)


def write_random(path: Path, lengths: tuple[int, ...] = (12, 9, 10, 14), action_dim: int = 7) -> Path:
    """A file of random numbers in the layout; it has no environment."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        for i, n in enumerate(lengths):
            demo = data.create_group(f"demo_{i}")
            demo["actions"] = rng.uniform(-1, 1, (n, action_dim))
            demo["states"] = rng.normal(size=(n, 32))
            for key, dim in OBS_DIMS.items():
                demo[f"obs/{key}"] = rng.normal(size=(n, dim))
            demo[f"obs/{IMAGE}"] = smooth_images(rng, n)
    return path


def edit(path: Path, change: Any) -> None:
    """Opens a file and applies `change` to it."""
    with h5py.File(path, "r+") as file:
        change(file)


def set_env_args(path: Path, env_args: Any) -> None:
    edit(path, lambda file: file["data"].attrs.update({"env_args": json.dumps(env_args)}))


def make_once(path: Path, make: Any) -> Path:
    """Lets one of the test processes make a file; the others wait for it."""
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            make(path)
    return path
