"""One step of training: loss, gradients, optimizer, learning rate, moving average."""

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.cuda_graph import CaptureError
from diffusion_policy.common.pytorch_util import dict_apply
from diffusion_policy.model.diffusion.ema_model import EMAModel
from diffusion_policy.workspace.gradient_mean import GradientMean
from diffusion_policy.workspace.graph_step import GraphStep

logger = logging.getLogger(__name__)


class TrainStep:
    """Computes the loss of a batch and, every `accumulate` calls, updates the model; nothing waits for the device.

    Args:
        model: has `compute_losses(batch)` and `device`.
        optimizer: over the model's parameters.
        lr_scheduler: stepped after each update.
        ema: moving average of the model, moved each call.
        accumulate: batches whose mean gradient makes one update.
        max_grad_norm: gradients whose norm over all parameters is greater are scaled down to it.
        step: as `choose_step` returns it: eager, compile, graph, or auto: graph if that can be.
        precision: float32, or bfloat16 for autocast to it.
        gradient_mean: over the processes that train together, each on a part of the batch; None if there is but this.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Optimizer,
        lr_scheduler: LRScheduler,
        ema: EMAModel | None = None,
        accumulate: int = 1,
        max_grad_norm: float | None = None,
        step: str = "eager",
        precision: torch.dtype = torch.float32,
        gradient_mean: GradientMean | None = None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.ema = ema
        self.accumulate = accumulate
        self.max_grad_norm = max_grad_norm
        self.precision = precision
        self.gradient_mean = gradient_mean
        self._compute_losses = model.compute_losses
        if step == "compile":
            # Random numbers are drawn as without compilation, so that losses compare.
            options: dict[str, Any] = {"fallback_random": True}
            self._compute_losses = torch.compile(model.compute_losses, dynamic=False, options=options)
        self._step = step
        self._graph: GraphStep | None = None
        if step in ("auto", "graph"):
            self._graph = GraphStep(self._forward_backward_update, optimizer, model.device)
        models = [model] if ema is None else [model, ema.averaged_model]
        self._changed = [tensor for each in models for tensor in (*each.parameters(), *each.buffers())]

    def __call__(self, batch: Mapping[str, Any], step: int) -> dict[str, Tensor]:
        """Trains on a batch; returns its loss and the parts of it by name, detached and still on the device.

        Args:
            batch: on the model's device.
            step: number of batches seen before this one.
        """
        updates = (step + 1) % self.accumulate == 0
        if self.ema is not None:
            self.ema.advance()
        losses = self._run(batch, updates)
        # Autograd sees neither what a fused optimizer changes nor what a CUDA graph does.
        torch.autograd.graph.increment_version(self._changed)
        if updates:
            self.lr_scheduler.step()
        return losses

    @property
    def lr(self) -> float:
        """Learning rate of the next update."""
        return float(self.lr_scheduler.get_last_lr()[0])

    def _run(self, batch: Mapping[str, Any], updates: bool) -> dict[str, Tensor]:
        if self._graph is not None:
            try:
                return self._graph(batch, updates)
            except CaptureError as error:
                if self._step == "graph":
                    raise ConfigError(f"training.step=graph is not possible: {error}; use auto or eager") from error
                logger.info("Training steps run one operation after the other, not as a CUDA graph: %s", error)
                self._graph = None
        return self._forward_backward_update(batch, updates)

    def _forward_backward_update(self, batch: Mapping[str, Any], updates: bool) -> dict[str, Tensor]:
        """What a step does on the device."""
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16):
            losses: dict[str, Tensor] = self._compute_losses(batch)
        with self._gradients_meant(updates) as n_processes:
            (losses["loss"] / (self.accumulate * n_processes)).backward()
        if updates:
            if self.max_grad_norm is not None:
                clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
            self.optimizer.step()
            # Graphs of one cycle add to the same gradients, which must then stay where they are.
            self.optimizer.zero_grad(set_to_none=self._graph is None or self.accumulate == 1)
        if self.ema is not None:
            self.ema.update(self.model)
        return dict_apply(losses, torch.Tensor.detach)

    def _gradients_meant(self, updates: bool) -> AbstractContextManager[int]:
        """A backward pass whose gradients are averaged if they update; gives how many processes there are."""
        if self.gradient_mean is None:
            return nullcontext(1)
        return self.gradient_mean.in_backward(updates)


def peak_memory_mb(device: torch.device) -> float:
    """Most memory the run has held: on the GPU if it trains there, else of the process, in MB (10^6 bytes)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
