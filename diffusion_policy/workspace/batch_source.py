"""Where batches come from: any dataset, gathered a whole batch at a time where it knows how."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

from diffusion_policy.common.pytorch_util import dict_apply


class BatchSource:
    """Iterates over the batches of an epoch, on a device.

    A dataset with `get_windows(indices)` and `transform(windows)` is asked once for each batch, and what it gives is
    transformed on the device: images travel as the bytes they are stored in. Any other dataset is asked once for each
    sample. The samples and their order for a seed are the same either way: those of torch's `DataLoader`.

    Args:
        dataset: a map-style dataset.
        device: where batches go.
        batch_size: samples in a batch.
        shuffle: a new random order each epoch, drawn from torch's global generator.
        drop_last: leave out a last, smaller batch.
        pin_memory: copy from pinned memory; of use on a GPU only, hence ignored elsewhere.
        kwargs: as for `DataLoader` (`num_workers`, `persistent_workers`, ...).
    """

    def __init__(
        self,
        dataset: Any,
        device: torch.device,
        batch_size: int,
        shuffle: bool = False,
        drop_last: bool = False,
        pin_memory: bool = False,
        **kwargs: Any,
    ) -> None:
        if len(dataset) == 0:
            raise ValueError("the dataset has no samples: give it more episodes, or a shorter horizon")
        kwargs["pin_memory"] = pin_memory and device.type == "cuda"
        self.device = device
        if hasattr(dataset, "get_windows"):
            order = RandomSampler(dataset) if shuffle else SequentialSampler(dataset)
            batches = BatchSampler(order, batch_size, drop_last)
            self._loader = DataLoader(_WholeBatches(dataset), batch_size=None, sampler=batches, **kwargs)
            self._transform = dataset.transform
        else:
            self._loader = DataLoader(dataset, batch_size=batch_size, shuffle=shuffle, drop_last=drop_last, **kwargs)
            self._transform = lambda batch: batch

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self._loader:
            yield self._transform(dict_apply(batch, lambda x: x.to(self.device, non_blocking=True)))


class _WholeBatches(Dataset):
    """A dataset whose index is a list of sample indices and whose item is their windows."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitem__(self, indices: list[int]) -> Any:
        return self.dataset.get_windows(indices)
