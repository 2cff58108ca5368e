"""Trains on images that take more than the memory there is; run as a script, which writes what happened as JSON."""

import json
import re
import resource
import sys
from pathlib import Path

import hydra
import numcodecs
import numpy as np
import zarr
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict
from tiny import tiny

from diffusion_policy.common.config import register_resolvers
from diffusion_policy.dataset.pusht_image_dataset import PushTImageDataset
from diffusion_policy.workspace import train_diffusion_unet_image_workspace  # noqa: F401 - before memory is limited

CONFIG = "train_diffusion_unet_image_workspace"
SIZE, CHUNK, EPISODE, N_PATTERNS = 96, 64, 128, 8
SPARE = 1.2e9
"""What the program may take beyond its own size (bytes)."""


def pattern(step):
    """The value of all of a step's image."""
    return step % CHUNK + step // CHUNK % N_PATTERNS


def write_demonstrations(path, n_bytes):
    """Images of so many bytes; as few of their chunks differ, they are written many times faster than encoded."""
    n_steps = int(n_bytes / (SIZE * SIZE * 3 * EPISODE)) * EPISODE
    steps = np.arange(n_steps)
    root = zarr.open_group(path, mode="w", zarr_format=2)
    state = np.stack([steps % 512, steps % 511, *np.zeros((3, n_steps))], axis=1).astype(np.float32)
    root.create_array("data/state", data=state)
    root.create_array("data/action", data=state[:, :2].copy())
    root.create_array("meta/episode_ends", data=steps[::EPISODE] + EPISODE)
    codec, chunk = numcodecs.Blosc("zstd", 1), (CHUNK, SIZE, SIZE, 3)
    root.create_array("data/img", shape=(n_steps, *chunk[1:]), dtype=np.uint8, chunks=chunk, compressors=codec)
    values = pattern(steps[: CHUNK * N_PATTERNS]).astype(np.uint8).reshape(N_PATTERNS, CHUNK, 1, 1, 1)
    encoded = [codec.encode(np.broadcast_to(value, chunk).copy()) for value in values]
    for i in range(n_steps // CHUNK):
        Path(path, "data", "img", f"{i}.0.0.0").write_bytes(encoded[i % N_PATTERNS])


def make_cfg(repository, data):
    register_resolvers()
    overrides = ["dataloader.num_workers=2", "policy.obs_encoder.crop_shape=[32,32]", "training.num_epochs=1"]
    with initialize_config_dir(str(Path(repository, "diffusion_policy", "config")), version_base=None):
        cfg = compose(CONFIG, overrides=[*tiny(CONFIG), *overrides, f"task.dataset.zarr_path={data}"])
    OmegaConf.resolve(cfg)
    with open_dict(cfg):
        cfg.task.env_runner = {"_target_": "diffusion_policy.env_runner.real_pusht_image_runner.RealPushTImageRunner"}
        cfg.checkpoint.topk.k = 0
    return cfg


def own_size():
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def own_most_resident():
    """Most that lay in memory (kB); `getrusage` would count the process that started this one as well."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def main(repository, folder, n_bytes):
    data = Path(folder, "demonstrations.zarr")
    write_demonstrations(data, float(n_bytes))
    cfg = make_cfg(repository, data)
    limit = int(own_size() + SPARE)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        PushTImageDataset(str(data), in_memory=True)
        refused = False
    except MemoryError:
        refused = True
    dataset = PushTImageDataset(str(data), horizon=16, n_obs_steps=2)
    windows = np.arange(0, len(dataset), len(dataset) // 50)
    images = dataset.get_windows(windows)["img"].numpy()
    expected = pattern(dataset.sampler.window_rows(windows)[:, :2])
    workspace = hydra.utils.get_class(cfg._target_)(cfg, output_dir=str(folder))
    workspace.run()
    result = {
        "refused": refused,
        "right": bool((images == expected[:, :, None, None, None]).all()),
        "images": dataset.replay_buffer["img"].nbytes,
        "limit": limit,
        "steps": workspace.global_step,
        "resident": 1024 * max(own_most_resident(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss),
    }
    sys.stdout.write("\n" + json.dumps(result) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
