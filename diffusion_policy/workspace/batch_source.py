"""Where batches come from: any dataset, gathered a whole batch at a time where it knows how."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, Sampler, SequentialSampler

from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.distributed import gather
from diffusion_policy.common.pytorch_util import dict_apply
from diffusion_policy.workspace.resident_data import ResidentData, ResidentWindows


class BatchSource:
    """Iterates over the batches of an epoch, on a device.

    Windows of resident data are gathered where these lie. Else a dataset with `get_windows(indices)` and
    `transform(windows)` is asked once for each batch, in processes if there are to be any. Either way windows travel
    as they are stored, images as bytes, and are transformed on the device. Any other dataset is asked once for each
    sample. The samples and their order for a seed are always the same: those of torch's `DataLoader`.

    Processes that train together have equal parts of every batch. Of a last batch that does not divide, so many samples
    are left out as are too many, other ones in each epoch if these are shuffled.

    Args:
        dataset: a map-style dataset.
        device: where batches go.
        batch_size: samples in a batch, of all processes together.
        shuffle: a new random order each epoch, drawn from torch's global generator (of the first process).
        drop_last: leave out a last, smaller batch.
        resident: data that the dataset is a part of; the arguments below are then not needed.
        pin_memory: copy from pinned memory; of use on a GPU only, hence ignored elsewhere.
        persistent_workers: keep workers between epochs; ignored where there are none.
        rank: which of the parts this process has.
        n_ranks: how many parts there are.
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
        rank: int = 0,
        n_ranks: int = 1,
        **kwargs: Any,
    ) -> None:
        if len(dataset) < n_ranks:
            found = f"{len(dataset)} samples, fewer than processes" if len(dataset) else "no samples"
            raise ValueError(f"the dataset has {found}: give it more episodes, or a shorter horizon")
        check_divides(batch_size, n_ranks, "batch_size")
        self.device = device
        self._n_ranks = n_ranks
        self._worker_seeds = torch.Generator()
        self._order_seeds = torch.Generator() if shuffle else None
        self._transform = dataset.transform if hasattr(dataset, "get_windows") else _unchanged
        samples, share = range(len(dataset)), _Share(rank, n_ranks)
        if resident is not None and resident.n_ranks > 1:
            samples, share = range(len(dataset) // n_ranks), _Share(0, 1)
            batch_size //= n_ranks
        order = RandomSampler(samples, generator=self._order_seeds) if shuffle else SequentialSampler(samples)
        batches = BatchSampler(order, batch_size, drop_last)
        if resident is not None:
            pin = device.type == "cuda" and resident.device.type == "cpu"
            windows = ResidentWindows(resident, dataset, pin)
            self._batches: Any = _ResidentBatches(batches, share, windows, resident.device)
            return
        kwargs["pin_memory"] = pin_memory and device.type == "cuda"
        kwargs["persistent_workers"] = persistent_workers and kwargs.get("num_workers", 0) > 0
        kwargs["generator"] = self._worker_seeds
        parts = _Parts(batches, share)
        if hasattr(dataset, "get_windows"):
            self._batches = DataLoader(_WholeBatches(dataset), batch_size=None, sampler=parts, **kwargs)
        else:
            self._batches = DataLoader(dataset, batch_sampler=parts, **kwargs)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        # A loader draws its workers' seed from the global generator, but with persistent workers in its first epoch
        # only: a resumed run would draw where an uninterrupted one does not. So the seed is drawn here, each epoch.
        self._worker_seeds.manual_seed(_draw_seed())
        if self._order_seeds is not None:
            seed = _draw_seed()
            self._order_seeds.manual_seed(seed if self._n_ranks == 1 else gather(seed)[0])
        for batch in self._batches:
            yield self._transform(dict_apply(batch, lambda x: x.to(self.device, non_blocking=True)))


def check_divides(batch_size: int, n_ranks: int, where: str) -> None:
    """Refuses a batch that processes cannot share equally."""
    if batch_size % n_ranks:
        close = max(1, round(batch_size / n_ranks)) * n_ranks
        raise ConfigError(
            f"{where}={batch_size} is the batch of all {n_ranks} processes together and does not divide among them: "
            f"use {where}={close}, or another number of processes"
        )


@dataclass(frozen=True)
class _Share:
    """One of the equal parts of every batch."""

    rank: int
    n_ranks: int

    def of(self, batch: Any) -> Any:
        size = len(batch) // self.n_ranks
        return batch[self.rank * size : (self.rank + 1) * size]

    def count(self, batches: BatchSampler) -> int:
        """How many of the batches have a part for everyone."""
        n_last = len(batches.sampler) % batches.batch_size  # type: ignore[arg-type]
        return len(batches) - int(0 < n_last < self.n_ranks and not batches.drop_last)


class _Parts(Sampler[list[int]]):
    """The indices of one part of each batch."""

    def __init__(self, batches: BatchSampler, share: _Share) -> None:
        self.batches = batches
        self.share = share

    def __len__(self) -> int:
        return self.share.count(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return map(self.share.of, islice(self.batches, len(self)))


class _ResidentBatches:
    """An epoch's windows, whose order reaches the data's device once, not batch by batch."""

    def __init__(self, batches: BatchSampler, share: _Share, windows: ResidentWindows, device: torch.device) -> None:
        self.batches = batches
        self.share = share
        self.windows = windows
        self.device = device

    def __len__(self) -> int:
        return self.share.count(self.batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        order = torch.tensor(list(self.batches.sampler), dtype=torch.int64, device=self.device)
        for idxs in order.split(self.batches.batch_size)[: len(self)]:
            yield self.windows(self.share.of(idxs))


def _draw_seed() -> int:
    """As torch's samplers draw one of the global generator."""
    return int(torch.empty((), dtype=torch.int64).random_())


def _unchanged(batch: Any) -> Any:
    return batch


class _WholeBatches(Dataset):
    """A dataset whose index is a list of sample indices and whose item is their windows."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitem__(self, indices: list[int]) -> Any:
        return self.dataset.get_windows(indices)
