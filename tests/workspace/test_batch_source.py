import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from diffusion_policy.workspace.batch_source import BatchSource

CPU = torch.device("cpu")


class Squares(Dataset):
    def __len__(self):
        return 103

    def __getitem__(self, idx):
        return {"x": torch.tensor(float(idx)), "obs": {"y": torch.tensor([idx, idx**2])}}


class SquaresByBatch(Squares):
    """Windows are what is stored, whole numbers; `transform` makes samples of them."""

    def get_windows(self, indices):
        return {"n": torch.from_numpy(np.asarray(indices))}

    def transform(self, windows):
        n = windows["n"]
        return {"x": n.float(), "obs": {"y": torch.stack((n, n**2), dim=1)}}


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("dataset", [Squares(), SquaresByBatch()])
def test_same_samples_in_the_same_order_as_a_plain_loader(dataset, num_workers, shuffle):
    torch.manual_seed(5)
    expected = [list(DataLoader(Squares(), batch_size=10, shuffle=shuffle)) for _ in range(2)]
    after = torch.rand(1)
    torch.manual_seed(5)
    source = BatchSource(dataset, CPU, batch_size=10, shuffle=shuffle, num_workers=num_workers, pin_memory=True)
    assert len(source) == 11
    for epoch in expected:
        batches = list(source)
        assert len(batches) == len(epoch)
        for batch, other in zip(batches, epoch, strict=True):
            assert batch.keys() == other.keys()
            assert torch.equal(batch["x"], other["x"])
            assert torch.equal(batch["obs"]["y"], other["obs"]["y"])
    assert torch.rand(1) == after


@pytest.mark.parametrize("dataset", [Squares(), SquaresByBatch()])
def test_batches_arrive_on_the_device_and_are_transformed_there(dataset):
    batch = next(iter(BatchSource(dataset, torch.device("meta"), batch_size=4)))
    assert batch["x"].device.type == batch["obs"]["y"].device.type == "meta"
    assert batch["obs"]["y"].shape == (4, 2)


def test_persistent_workers_without_workers_are_ignored():
    source = BatchSource(SquaresByBatch(), CPU, batch_size=10, num_workers=0, persistent_workers=True)
    assert len(list(source)) == 11


def test_drop_last_and_empty_dataset():
    assert len(list(BatchSource(SquaresByBatch(), CPU, batch_size=10, drop_last=True))) == 10
    with pytest.raises(ValueError, match="no samples"):
        BatchSource([], CPU, batch_size=10)
