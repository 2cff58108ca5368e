"""One step of training: loss, gradients, optimizer, learning rate."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class TrainStep:
    """Computes the loss of a batch and, every `accumulate` calls, updates the model.

    Args:
        model: has `compute_loss(batch)`.
        optimizer: over the model's parameters.
        lr_scheduler: stepped after each update.
        accumulate: batches whose mean gradient makes one update.
    """

    def __init__(self, model: Any, optimizer: Optimizer, lr_scheduler: LRScheduler, accumulate: int = 1) -> None:
        self.model = model
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.accumulate = accumulate

    def __call__(self, batch: Mapping[str, Any], step: int) -> Tensor:
        """Trains on a batch; returns its loss, detached and still on the device.

        Args:
            batch: on the model's device.
            step: number of batches seen before this one.
        """
        loss: Tensor = self.model.compute_loss(batch)
        (loss / self.accumulate).backward()
        if (step + 1) % self.accumulate == 0:
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.lr_scheduler.step()
        return loss.detach()

    @property
    def lr(self) -> float:
        """Learning rate of the next update."""
        return float(self.lr_scheduler.get_last_lr()[0])


def peak_memory_mb(device: torch.device) -> float:
    """Most memory the run has held: on the GPU if it trains there, else of the process, in MB (10^6 bytes)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
