"""Where batches come from: any dataset, gathered a whole batch at a time where it knows how."""

from typing import Any

from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler


class _WholeBatches(Dataset):
    """A dataset whose index is a list of sample indices and whose item is their batch."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitem__(self, indices: list[int]) -> Any:
        return self.dataset.get_batch(indices)


def make_batch_source(
    dataset: Any, batch_size: int, shuffle: bool = False, drop_last: bool = False, **kwargs: Any
) -> DataLoader:
    """Iterates over the batches of an epoch.

    A dataset with `get_batch(indices)` is asked once for each batch; any other once for each sample. The
    samples and their order for a seed are the same either way: those of torch's `DataLoader`.

    Args:
        dataset: a map-style dataset.
        batch_size: samples in a batch.
        shuffle: a new random order each epoch, drawn from torch's global generator.
        drop_last: leave out a last, smaller batch.
        kwargs: as for `DataLoader` (`num_workers`, `pin_memory`, `persistent_workers`, ...).
    """
    if len(dataset) == 0:
        raise ValueError("the dataset has no samples: give it more episodes, or a shorter horizon")
    if not hasattr(dataset, "get_batch"):
        return DataLoader(dataset, batch_size=batch_size, shuffle=shuffle, drop_last=drop_last, **kwargs)
    order = RandomSampler(dataset) if shuffle else SequentialSampler(dataset)
    batches = BatchSampler(order, batch_size, drop_last)
    return DataLoader(_WholeBatches(dataset), batch_size=None, sampler=batches, **kwargs)
