"""An epoch of batches of Push-T windows: sample by sample, as torch's DataLoader does, or a batch at a time.

A batch is gathered by the dataset or, as training does by default, from tensors that hold all the data. Images that do
not fit into memory are read from their store: here from a folder, none of them kept.
"""

import tempfile
from pathlib import Path

import torch
from side_by_side import compare
from torch.utils.data import DataLoader

from diffusion_policy.common import stored_array
from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.dataset.pusht_dataset import PushTLowdimDataset
from diffusion_policy.dataset.pusht_image_dataset import PushTImageDataset
from diffusion_policy.workspace.batch_source import BatchSource
from diffusion_policy.workspace.resident_data import ResidentData

DEMONSTRATIONS = Path(__file__).resolve().parents[1] / "assets" / "pusht_demo.zarr.zip"
CPU = torch.device("cpu")


WINDOWS = {"horizon": 16, "pad_before": 1, "pad_after": 7}


def main() -> None:
    states()
    images(n_episodes=20)


def states() -> None:
    dataset = PushTLowdimDataset(str(DEMONSTRATIONS), **WINDOWS, max_train_episodes=60)
    batches = {"batch_size": 256, "shuffle": True}
    loaders = {
        "DataLoader, sample by sample": DataLoader(dataset, **batches),
        "batch by batch": BatchSource(dataset, CPU, **batches),
        "batch by batch, resident data": BatchSource(dataset, CPU, resident=ResidentData(dataset, CPU), **batches),
    }
    ways = {name: lambda loader=loader: sum(1 for _ in loader) for name, loader in loaders.items()}
    compare(f"Epoch of {len(dataset)} windows, batch 256, no workers", ways, rounds=5)


def images(n_episodes: int) -> None:
    stored_array.CACHE_BYTES = 0
    shipped, few = ReplayBuffer.copy_from_path(str(DEMONSTRATIONS)), ReplayBuffer.create_empty_numpy()
    for i in range(n_episodes):
        few.add_episode(shipped.get_episode(i))
    batches = {"batch_size": 64, "shuffle": True}
    with tempfile.TemporaryDirectory() as folder:
        few.save_to_path(f"{folder}/few.zarr")
        held = PushTImageDataset(f"{folder}/few.zarr", **WINDOWS, n_obs_steps=2)  # draws the images
        loaders = {
            "in memory, resident": BatchSource(held, CPU, resident=ResidentData(held, CPU), **batches),
            "in memory": BatchSource(held, CPU, **batches),
        }
        for n_chunk in (1, 16, 161):
            path = f"{folder}/{n_chunk}.zarr"
            chunks = {"img": (n_chunk, *held.replay_buffer["img"].shape[1:])}
            held.replay_buffer.save_to_path(path, chunks=chunks, compressors={"img": "disk"})
            stored = PushTImageDataset(path, **WINDOWS, n_obs_steps=2, in_memory=False)
            name = f"stored in chunks of {n_chunk}"
            loaders[name] = BatchSource(stored, CPU, **batches)
            workers = {"num_workers": 2, "persistent_workers": True}
            loaders[f"{name}, 2 workers"] = BatchSource(stored, CPU, **batches, **workers)
        ways = {name: lambda loader=loader: sum(1 for _ in loader) for name, loader in loaders.items()}
        compare(f"Epoch of {len(held)} windows with two images of 96 x 96, batch 64", ways, rounds=3)


if __name__ == "__main__":
    main()
