"""Functions of tensors as CUDA graphs: what a policy computes for an action, launched as one."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from diffusion_policy.common.cuda_graph import CaptureError, capture
from diffusion_policy.model.common.weight_watch import WeightWatch

logger = logging.getLogger(__name__)

Tensors = dict[str, Tensor]
MAX_GRAPHS = 8


@dataclass
class _Captured:
    graph: torch.cuda.CUDAGraph
    inputs: Tensors
    outputs: Tensors
    places: list[int]


class SamplingGraphs:
    """Runs functions of tensors as CUDA graphs, captured at first use for each key and shape of the inputs.

    A graph reads weights where they lay when it was captured: changed in place they count, moved elsewhere they make
    it be captured anew. A function that cannot be captured is called, each time, after a warning.

    Copies of the owner start without graphs.

    Args:
        owner: the module whose weights the functions use.
    """

    def __init__(self, owner: nn.Module) -> None:
        self._owner = owner
        self._watch = WeightWatch(owner)
        self._captured: OrderedDict[Hashable, _Captured | None] = OrderedDict()
        self._lock = threading.Lock()  # a graph has one set of inputs and outputs

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return type(self)(memo.get(id(self._owner), self._owner))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._owner,)

    def __call__(self, key: Hashable, function: Callable[[Tensors], Tensors], inputs: Mapping[str, Tensor]) -> Tensors:
        """`function(inputs)`; the result is the caller's to keep.

        Args:
            key: tells functions apart, and everything beside weights and inputs that they depend on.
            function: of tensors on the GPU by name.
            inputs: anywhere.
        """
        key = (key, *((name, tuple(value.shape), value.dtype) for name, value in inputs.items()))
        with self._lock:
            if key not in self._captured or not self._is_valid(self._captured[key]):
                self._captured[key] = self._capture(function, inputs)
            self._captured.move_to_end(key)
            if len(self._captured) > MAX_GRAPHS:
                self._captured.popitem(last=False)
            captured = self._captured[key]
            if captured is None:
                return function(self._on_device(inputs))
            for name, value in inputs.items():
                captured.inputs[name].copy_(value, non_blocking=True)
            captured.graph.replay()
            return {name: value.clone() for name, value in captured.outputs.items()}

    def _is_valid(self, captured: _Captured | None) -> bool:
        return captured is None or captured.places == self._watch.places()

    def _on_device(self, inputs: Mapping[str, Tensor]) -> Tensors:
        device = next(self._owner.parameters()).device
        return {name: value.to(device, copy=True) for name, value in inputs.items()}

    def _capture(self, function: Callable[[Tensors], Tensors], inputs: Mapping[str, Tensor]) -> _Captured | None:
        static = self._on_device(inputs)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            function(static)  # compiles kernels and raises what is wrong with the inputs
        torch.cuda.current_stream().wait_stream(stream)
        try:
            graph, outputs = capture(lambda: function(static), stream)
        except CaptureError as error:
            name = type(self._owner).__name__
            logger.warning(
                "%s samples step by step, which is slower: it cannot be captured in a CUDA graph (%s)", name, error
            )
            return None
        return _Captured(graph, static, outputs, self._watch.places())
