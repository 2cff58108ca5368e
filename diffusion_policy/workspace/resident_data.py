"""Data that lie in memory whole, on the GPU or beside it, and windows gathered from them a batch at a time."""

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.distributed import is_first
from diffusion_policy.common.stored_array import StoredArray
from diffusion_policy.dataset.base_dataset import BaseDataset

logger = logging.getLogger(__name__)

CHOICES = ("auto", "cuda", "cpu", "shards", "loader")
SHARE_OF_FREE_MEMORY = 0.4
"""Most of the GPU's free memory that data take unasked: the model, its gradients and activations need room too."""
BLOCK_BYTES = 64e6
"""What is copied at a time of data that are not in memory, or in parts."""


def choose_data_device(choice: str, dataset: Any, device: torch.device, n_ranks: int = 1) -> str:
    """Where the data of a training run lie.

    Args:
        choice: `training.data_device`; "auto" is the GPU where the data fit beside the model, else the GPUs of all
            processes that train together where a part of the data fits on each, else the memory of the computer, if
            the dataset is there, or wherever the dataset keeps them.
        dataset: what is trained on.
        device: what is trained on it.
        n_ranks: how many processes train together.

    Returns:
        "cuda" or "cpu", where the data lie whole as tensors; "shards", if each process holds a part of them; or
        "loader": processes read batches from the dataset.

    Raises:
        ConfigError: the choice cannot be had, with the reason.
    """
    if choice not in CHOICES:
        raise ConfigError(f"training.data_device must be one of {', '.join(CHOICES)}, got {choice!r}")
    obstacle = _obstacle(dataset)
    if choice == "loader" or (choice == "auto" and obstacle):
        return "loader"
    if obstacle:
        raise ConfigError(f"training.data_device={choice} is not possible: {obstacle}; use auto or loader")
    if choice == "cuda" and device.type != "cuda":
        raise ConfigError(f"training.data_device=cuda needs a GPU to train on, training.device is {device}; use auto")
    in_store = any(isinstance(array, StoredArray) for array in dataset.sampler.arrays.values())
    if choice == "cpu" and in_store:
        raise ConfigError(
            "training.data_device=cpu: the data are not in memory, task.dataset.in_memory decides that; use auto"
        )
    return _automatic(dataset, device, n_ranks, in_store) if choice == "auto" else choice


def _automatic(dataset: Any, device: torch.device, n_ranks: int, in_store: bool) -> str:
    n_bytes = _n_bytes(dataset)
    if _fit_on_gpu(n_bytes, device):
        return "cuda"
    if n_ranks > 1 and _fit_on_gpu(n_bytes // n_ranks, device):
        return "shards"
    return "loader" if in_store else "cpu"


class ResidentData:
    """The arrays of a dataset as tensors, which its training and its validation part share.

    Args:
        dataset: with a `sampler` over arrays.
        device: where the tensors lie; on the CPU they are the arrays themselves, if these are in memory.
        validation: the other part of the dataset; of use for shards only.
        rank: which shard is here: of each part as many windows as the other shards have, one after another.
        n_ranks: how many shards there are; 1 for all the data here.
    """

    def __init__(
        self, dataset: Any, device: torch.device, validation: Any = None, rank: int = 0, n_ranks: int = 1
    ) -> None:
        self.device = device
        self.n_ranks = n_ranks
        self._rank = rank
        self._rows: np.ndarray | None = None
        if n_ranks > 1:
            parts = (dataset,) if validation is None else (dataset, validation)
            self._rows = np.unique(np.concatenate([self._window_rows(part).ravel() for part in parts]))
        arrays = dataset.sampler.arrays
        self.tensors = {key: _as_tensor(array, self._rows, device, key) for key, array in arrays.items()}

    def windows(self, dataset: Any) -> np.ndarray:
        """Where in the tensors the steps of the windows of a part are, of those that are here: `(N, T)`."""
        rows = self._window_rows(dataset)
        return rows if self._rows is None else np.searchsorted(self._rows, rows)

    def _window_rows(self, dataset: Any) -> np.ndarray:
        size = len(dataset.sampler) // self.n_ranks
        rows: np.ndarray = dataset.sampler.window_rows(np.arange(self._rank * size, (self._rank + 1) * size))
        return rows


def make_resident_data(
    choice: str, dataset: Any, device: torch.device, validation: Any = None, rank: int = 0, n_ranks: int = 1
) -> ResidentData | None:
    """The data where `choose_data_device` says, or None where processes have to read them."""
    place = choose_data_device(choice, dataset, device, n_ranks)
    if place == "loader":
        logger.info("Batches come from the dataset, read by dataloader.num_workers processes")
        return None
    if place == "shards":
        n_bytes = _n_bytes(dataset) // n_ranks
        device = device if _fit_on_gpu(n_bytes, device) else torch.device("cpu")
        logger.info("Batches come from data of which each process holds a part, %.1f GB", n_bytes / 1e9)
        return ResidentData(dataset, device, validation, rank, n_ranks)
    logger.info("Batches come from data %s", "on the GPU" if place == "cuda" else "in memory")
    return ResidentData(dataset, device if place == "cuda" else torch.device("cpu"))


class ResidentWindows:
    """Windows of one part of a dataset, gathered from resident data; equal to `dataset.get_windows`.

    Args:
        data: of the dataset that the part is of.
        dataset: the part: its `sampler` says which windows there are, its `first_steps` what is read of them.
        pin: gather into page-locked memory, from where a GPU takes a batch while the CPU works on.
    """

    def __init__(self, data: ResidentData, dataset: Any, pin: bool) -> None:
        self._tensors = data.tensors
        self._first_steps = dataset.first_steps
        self._pin = pin
        self._rows = torch.from_numpy(data.windows(dataset)).to(data.device)

    def __call__(self, idxs: Tensor) -> dict[str, Tensor]:
        """The windows `idxs` `(B,)` int64, `(B, T, ...)` by key, on the device of the data."""
        rows = self._rows[idxs]
        return {
            key: self._gather(tensor, rows[:, : self._first_steps.get(key)]) for key, tensor in self._tensors.items()
        }

    def _gather(self, tensor: Tensor, rows: Tensor) -> Tensor:
        if not self._pin:
            return tensor.index_select(0, rows.flatten()).unflatten(0, rows.shape)
        batch = torch.empty((rows.numel(), *tensor.shape[1:]), dtype=tensor.dtype, pin_memory=True)
        torch.index_select(tensor, 0, rows.flatten(), out=batch)
        return batch.unflatten(0, rows.shape)


def _obstacle(dataset: Any) -> str | None:
    """Why a dataset's windows cannot be gathered from tensors."""
    name = type(dataset).__name__
    if not isinstance(dataset, BaseDataset) or type(dataset).get_windows is not BaseDataset.get_windows:
        return f"{name} has its own way to windows or samples"
    if not all(isinstance(array, np.ndarray | StoredArray) for array in dataset.sampler.arrays.values()):
        return f"{name} reads its data from a store"
    if dataset.sampler.key_first_k:
        return f"the sampler of {name} has key_first_k"
    return None


def _n_bytes(dataset: Any) -> int:
    return sum(array.nbytes for array in dataset.sampler.arrays.values())


def _fit_on_gpu(n_bytes: int, device: torch.device) -> bool:
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return n_bytes <= SHARE_OF_FREE_MEMORY * free


def _as_tensor(array: np.ndarray | StoredArray, rows: np.ndarray | None, device: torch.device, key: str) -> Tensor:
    """An array, or these rows of it, on a device."""
    if isinstance(array, np.ndarray) and rows is None:
        return torch.from_numpy(array).to(device)
    numbers = np.arange(len(array)) if rows is None else rows
    dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
    tensor = torch.empty((len(numbers), *array.shape[1:]), dtype=dtype, device=device)
    size = max(1, int(BLOCK_BYTES * len(numbers) / max(1, tensor.nbytes)))
    with tqdm(total=len(numbers), desc=f"Reading {key}", leave=False, mininterval=1, disable=not is_first()) as bar:
        for start in range(0, len(numbers), size):
            block = numbers[start : start + size]
            values = array.take(block) if isinstance(array, StoredArray) else array[block]
            tensor[start : start + size] = torch.from_numpy(values)
            bar.update(len(block))
    return tensor
