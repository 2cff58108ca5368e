"""An epoch of batches of Push-T windows: sample by sample, as torch's DataLoader does, or a batch at a time.

A batch is gathered by the dataset or, as training does by default, from tensors that hold all the data.
"""

from pathlib import Path

import torch
from side_by_side import compare
from torch.utils.data import DataLoader

from diffusion_policy.dataset.pusht_dataset import PushTLowdimDataset
from diffusion_policy.workspace.batch_source import BatchSource
from diffusion_policy.workspace.resident_data import ResidentData

DEMONSTRATIONS = Path(__file__).resolve().parents[1] / "assets" / "pusht_demo.zarr.zip"
CPU = torch.device("cpu")


def main() -> None:
    dataset = PushTLowdimDataset(str(DEMONSTRATIONS), horizon=16, pad_before=1, pad_after=7, max_train_episodes=60)
    batches = {"batch_size": 256, "shuffle": True}
    loaders = {
        "DataLoader, sample by sample": DataLoader(dataset, **batches),
        "batch by batch": BatchSource(dataset, CPU, **batches),
        "batch by batch, resident data": BatchSource(dataset, CPU, resident=ResidentData(dataset, CPU), **batches),
    }
    ways = {name: lambda loader=loader: sum(1 for _ in loader) for name, loader in loaders.items()}
    compare(f"Epoch of {len(dataset)} windows, batch 256, no workers", ways, rounds=5)


if __name__ == "__main__":
    main()
