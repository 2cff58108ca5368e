"""A training step as a CUDA graph: launched as one, where its operations one by one keep the CPU busy for longer."""

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from diffusion_policy.common.cuda_graph import CaptureError, capture
from diffusion_policy.common.pytorch_util import dict_apply

logger = logging.getLogger(__name__)

WARM_UP_STEPS = 3
"""Steps of each kind before it is captured, in which libraries choose their kernels and allocate what they keep."""


class GraphStep:
    """Calls a step a few times, then captures it in a CUDA graph and replays that.

    Every call trains, those before the capture as well, so the updates are those of calling the step itself. Each
    shape of batch has a graph of its own, and so have steps that update the model and those that add to the
    gradients only. The graphs share their memory, and the gradients where there are any between steps.

    What a graph reads anew at each replay is the batch, the random generator and the learning rates. All else must
    stay as captured: which parameters are trained, where they lie, training or evaluation mode.

    Args:
        step: called as `step(batch, updates)`; returns losses, scalars by name.
        optimizer: that `step` uses; its learning rates are read from `param_groups` at each call.
        device: a GPU.
    """

    def __init__(
        self,
        step: Callable[[Mapping[str, Any], bool], dict[str, Tensor]],
        optimizer: Optimizer,
        device: torch.device,
    ) -> None:
        self._step = step
        self._optimizer = optimizer
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._lrs = [torch.zeros((), device=device) for _ in optimizer.param_groups]
        self._obstacle = _obstacle(optimizer)
        self._n_warm_ups: Counter[Hashable] = Counter()
        self._captured: dict[Hashable, _Captured] = {}

    def __call__(self, batch: Mapping[str, Any], updates: bool) -> dict[str, Tensor]:
        """Trains on a batch; returns its losses, which stay as they are when the next ones are computed.

        Raises:
            CaptureError: before anything is done.
        """
        if self._obstacle is not None:
            raise CaptureError(self._obstacle)
        for lr, group in zip(self._lrs, self._optimizer.param_groups, strict=True):
            lr.fill_(group["lr"])
        kind = (updates, *((path, leaf.shape, leaf.dtype) for path, leaf in _leaves(batch)))
        if kind not in self._captured:
            if self._n_warm_ups[kind] < WARM_UP_STEPS:
                self._n_warm_ups[kind] += 1
                return self._warm_up(batch, updates, is_last=self._n_warm_ups[kind] == WARM_UP_STEPS)
            self._captured[kind] = self._capture(batch, updates)
            if len(self._captured) == 1:
                logger.info("Training steps are replayed from a CUDA graph")
        return self._captured[kind].replay(batch)

    def _warm_up(self, batch: Mapping[str, Any], updates: bool, is_last: bool) -> dict[str, Tensor]:
        """A step as it is, on the stream of the capture: libraries keep workspaces for each stream."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        watch: AbstractContextManager[list[Any]] = _synchronizations() if is_last else nullcontext([])
        with torch.cuda.stream(self._stream), self._lrs_on_device(), watch as found:
            losses = self._step(batch, updates)
        if found:
            self._obstacle = f"it waits for the GPU in {found[0].filename}:{found[0].lineno}"
        current.wait_stream(self._stream)
        return losses

    def _capture(self, batch: Mapping[str, Any], updates: bool) -> "_Captured":
        inputs = dict_apply(batch, torch.clone)
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        gradients = [parameter.grad for parameter in parameters]
        try:
            with self._lrs_on_device(capturing=True):
                graph, losses = capture(lambda: self._step(inputs, updates), self._stream, self._pool)
        finally:
            # Gradients allocated in the capture hold nothing.
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
        return _Captured(graph, [leaf for _, leaf in _leaves(inputs)], losses)

    @contextmanager
    def _lrs_on_device(self, capturing: bool = False) -> Iterator[None]:
        """Has the optimizer read learning rates that replays can change; its settings are as before afterwards."""
        groups = self._optimizer.param_groups
        settings = [{key: group[key] for key in ("lr", "capturable")} for group in groups]
        for group, lr in zip(groups, self._lrs, strict=True):
            group["lr"] = lr
            group["capturable"] = group["capturable"] or capturing
        try:
            yield
        finally:
            for group, setting in zip(groups, settings, strict=True):
                group.update(setting)


@dataclass
class _Captured:
    """A graph, the tensors that it reads a batch from, in the batch's order, and those that it leaves the losses in."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    losses: dict[str, Tensor]

    def replay(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        torch._foreach_copy_(self.inputs, [leaf for _, leaf in _leaves(batch)])
        self.graph.replay()
        return dict_apply(self.losses, torch.clone)


def _obstacle(optimizer: Optimizer) -> str | None:
    """Why an optimizer's step cannot be captured."""
    for group in optimizer.param_groups:
        if "capturable" not in group or not (group["capturable"] or group.get("fused")):
            name = type(optimizer).__name__
            return f"{name} keeps numbers of each step on the CPU; torch's Adam and AdamW do not if fused"
    return None


def _leaves(batch: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    """The tensors of a nested batch, with their keys."""
    for key, value in batch.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value


@contextmanager
def _synchronizations() -> Iterator[list[warnings.WarningMessage]]:
    """Collects, as warnings that say where, what waits for the GPU: in a capture it would be an error.

    Other warnings are lost: to be used on what has run before.
    """
    mode = torch.cuda.get_sync_debug_mode()
    found: list[warnings.WarningMessage] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    found += [warning for warning in caught if "synchronizing CUDA operation" in str(warning.message)]
