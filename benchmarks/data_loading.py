"""An epoch of batches of Push-T windows: one sample at a time, as torch's DataLoader does, or a batch at a time."""

from pathlib import Path

import torch
from side_by_side import compare
from torch.utils.data import DataLoader

from diffusion_policy.dataset.pusht_dataset import PushTLowdimDataset
from diffusion_policy.workspace.batch_source import BatchSource

DEMONSTRATIONS = Path(__file__).resolve().parents[1] / "assets" / "pusht_demo.zarr.zip"


def main() -> None:
    dataset = PushTLowdimDataset(str(DEMONSTRATIONS), horizon=16, pad_before=1, pad_after=7, max_train_episodes=60)
    loaders = {
        "DataLoader, sample by sample": DataLoader(dataset, batch_size=256, shuffle=True),
        "batch source": BatchSource(dataset, torch.device("cpu"), batch_size=256, shuffle=True),
    }
    ways = {name: lambda loader=loader: sum(1 for _ in loader) for name, loader in loaders.items()}
    compare(f"Epoch of {len(dataset)} windows, batch 256, no workers", ways, rounds=5)


if __name__ == "__main__":
    main()
