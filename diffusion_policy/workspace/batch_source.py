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
        persistent_workers: keep workers between epochs; ignored where there are none.
        kwargs: as for `DataLoader` (`num_workers`, `prefetch_factor`, ...).
    """

    def __init__(
        self,
        dataset: Any,
        device: torch.device,
        batch_size: int,
        shuffle: bool = False,
        drop_last: bool = False,
        pin_memory: bool = False,
        persistent_workers: bool = False,
        **kwargs: Any,
    ) -> None:
        if len(dataset) == 0:
            raise ValueError("the dataset has no samples: give it more episodes, or a shorter horizon")
        kwargs["pin_memory"] = pin_memory and device.type == "cuda"
        kwargs["persistent_workers"] = persistent_workers and kwargs.get("num_workers", 0) > 0
        self.device = device
        order = RandomSampler(dataset) if shuffle else SequentialSampler(dataset)
        self._worker_seeds = torch.Generator()
        kwargs["generator"] = self._worker_seeds
        if hasattr(dataset, "get_windows"):
            batches = BatchSampler(order, batch_size, drop_last)
            self._loader = DataLoader(_WholeBatches(dataset), batch_size=None, sampler=batches, **kwargs)
            self._transform = dataset.transform
        else:
            self._loader = DataLoader(dataset, batch_size=batch_size, sampler=order, drop_last=drop_last, **kwargs)
            self._transform = lambda batch: batch

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        # A loader draws its workers' seed from the global generator, but with persistent workers in its first epoch
        # only: a resumed run would draw where an uninterrupted one does not. So the seed is drawn here, each epoch.
        self._worker_seeds.manual_seed(int(torch.empty((), dtype=torch.int64).random_()))
        for batch in self._loader:
            yield self._transform(dict_apply(batch, lambda x: x.to(self.device, non_blocking=True)))


class _WholeBatches(Dataset):
    """A dataset whose index is a list of sample indices and whose item is their windows."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitem__(self, indices: list[int]) -> Any:
        return self.dataset.get_windows(indices)
