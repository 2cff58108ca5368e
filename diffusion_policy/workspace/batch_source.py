"""Where batches come from: any dataset, gathered a whole batch at a time where it knows how."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

from diffusion_policy.common.pytorch_util import dict_apply
from diffusion_policy.workspace.resident_data import ResidentData, ResidentWindows


class BatchSource:
    """Iterates over the batches of an epoch, on a device.

    Windows of resident data are gathered where these lie. Else a dataset with `get_windows(indices)` and
    `transform(windows)` is asked once for each batch, in processes if there are to be any. Either way windows travel
    as they are stored, images as bytes, and are transformed on the device. Any other dataset is asked once for each
    sample. The samples and their order for a seed are always the same: those of torch's `DataLoader`.

    Args:
        dataset: a map-style dataset.
        device: where batches go.
        batch_size: samples in a batch.
        shuffle: a new random order each epoch, drawn from torch's global generator.
        drop_last: leave out a last, smaller batch.
        resident: data that the dataset is a part of; the arguments below are then not needed.
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
        resident: ResidentData | None = None,
        pin_memory: bool = False,
        persistent_workers: bool = False,
        **kwargs: Any,
    ) -> None:
        if len(dataset) == 0:
            raise ValueError("the dataset has no samples: give it more episodes, or a shorter horizon")
        self.device = device
        self._worker_seeds = torch.Generator()
        self._transform = dataset.transform if hasattr(dataset, "get_windows") else _unchanged
        order = RandomSampler(dataset) if shuffle else SequentialSampler(dataset)
        batches = BatchSampler(order, batch_size, drop_last)
        if resident is not None:
            pin = device.type == "cuda" and resident.device.type == "cpu"
            windows = ResidentWindows(resident, dataset, pin)
            self._batches: Any = _ResidentBatches(batches, windows, resident.device)
            return
        kwargs["pin_memory"] = pin_memory and device.type == "cuda"
        kwargs["persistent_workers"] = persistent_workers and kwargs.get("num_workers", 0) > 0
        kwargs["generator"] = self._worker_seeds
        if hasattr(dataset, "get_windows"):
            self._batches = DataLoader(_WholeBatches(dataset), batch_size=None, sampler=batches, **kwargs)
        else:
            self._batches = DataLoader(dataset, batch_sampler=batches, **kwargs)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        # A loader draws its workers' seed from the global generator, but with persistent workers in its first epoch
        # only: a resumed run would draw where an uninterrupted one does not. So the seed is drawn here, each epoch.
        self._worker_seeds.manual_seed(int(torch.empty((), dtype=torch.int64).random_()))
        for batch in self._batches:
            yield self._transform(dict_apply(batch, lambda x: x.to(self.device, non_blocking=True)))


class _ResidentBatches:
    """An epoch's windows, whose order reaches the data's device once, not batch by batch."""

    def __init__(self, batches: BatchSampler, windows: ResidentWindows, device: torch.device) -> None:
        self.batches = batches
        self.windows = windows
        self.device = device

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        order = torch.tensor(list(self.batches.sampler), dtype=torch.int64, device=self.device)
        for idxs in order.split(self.batches.batch_size)[: len(self.batches)]:
            yield self.windows(idxs)


def _unchanged(batch: Any) -> Any:
    return batch


class _WholeBatches(Dataset):
    """A dataset whose index is a list of sample indices and whose item is their windows."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitem__(self, indices: list[int]) -> Any:
        return self.dataset.get_windows(indices)
