import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from diffusion_policy.workspace.batch_source import make_batch_source


class Squares(Dataset):
    def __len__(self):
        return 103

    def __getitem__(self, idx):
        return {"x": torch.tensor(float(idx)), "y": torch.tensor([idx, idx**2])}


class SquaresByBatch(Squares):
    def get_batch(self, indices):
        idx = torch.tensor(indices)
        return {"x": idx.float(), "y": torch.stack((idx, idx**2), dim=1)}


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("dataset", [Squares(), SquaresByBatch()])
def test_same_samples_in_the_same_order_as_a_plain_loader(dataset, num_workers, shuffle):
    torch.manual_seed(5)
    expected = [list(DataLoader(Squares(), batch_size=10, shuffle=shuffle)) for _ in range(2)]
    after = torch.rand(1)
    torch.manual_seed(5)
    source = make_batch_source(dataset, batch_size=10, shuffle=shuffle, num_workers=num_workers)
    assert len(source) == 11
    for epoch in expected:
        batches = list(source)
        assert len(batches) == len(epoch)
        for batch, other in zip(batches, epoch, strict=True):
            assert batch.keys() == other.keys()
            assert all(torch.equal(batch[key], other[key]) for key in batch)
    assert torch.rand(1) == after


def test_drop_last_and_empty_dataset():
    assert len(list(make_batch_source(SquaresByBatch(), batch_size=10, drop_last=True))) == 10
    with pytest.raises(ValueError, match="no samples"):
        make_batch_source([], batch_size=10)
