"""Data that lie in memory whole, on the GPU or beside it, and windows gathered from them a batch at a time."""

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion_policy.common.config import ConfigError
from diffusion_policy.dataset.base_dataset import BaseDataset

logger = logging.getLogger(__name__)

CHOICES = ("auto", "cuda", "cpu", "loader")
SHARE_OF_FREE_MEMORY = 0.4
"""Most of the GPU's free memory that data take unasked: the model, its gradients and activations need room too."""


def choose_data_device(choice: str, dataset: Any, device: torch.device) -> str:
    """Where the data of a training run lie.

    Args:
        choice: `training.data_device`; "auto" is the GPU where the data fit beside the model, else the memory of
            the computer, else wherever the dataset keeps them.
        dataset: what is trained on.
        device: what is trained on it.

    Returns:
        "cuda" or "cpu", where the data lie whole as tensors; or "loader": processes read batches from the dataset.

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
    if choice == "auto":
        return "cuda" if device.type == "cuda" and _fits(dataset, device) else "cpu"
    return choice


class ResidentData:
    """The arrays of a dataset as tensors, which its training and its validation part share.

    Args:
        dataset: with a `sampler` over numpy arrays.
        device: where the tensors lie; on the CPU they are the arrays themselves.
    """

    def __init__(self, dataset: Any, device: torch.device) -> None:
        self.device = device
        self.tensors = {key: torch.from_numpy(array).to(device) for key, array in dataset.sampler.arrays.items()}


def make_resident_data(choice: str, dataset: Any, device: torch.device) -> ResidentData | None:
    """The data where `choose_data_device` says, or None where processes have to read them."""
    data_device = choose_data_device(choice, dataset, device)
    if data_device == "loader":
        logger.info("Batches come from the dataset, read by dataloader.num_workers processes")
        return None
    logger.info("Batches come from data %s", "on the GPU" if data_device == "cuda" else "in memory")
    return ResidentData(dataset, device if data_device == "cuda" else torch.device("cpu"))


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
        rows = dataset.sampler.window_rows(np.arange(len(dataset.sampler)))
        self._rows = torch.from_numpy(rows).to(data.device)

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
    if not all(isinstance(array, np.ndarray) for array in dataset.sampler.arrays.values()):
        return f"{name} reads its data from a store"
    if dataset.sampler.key_first_k:
        return f"the sampler of {name} has key_first_k"
    return None


def _fits(dataset: Any, device: torch.device) -> bool:
    needed = sum(array.nbytes for array in dataset.sampler.arrays.values())
    free, _ = torch.cuda.mem_get_info(device)
    return needed <= SHARE_OF_FREE_MEMORY * free
