"""Gradients averaged over processes while the backward pass is still at it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.distributed.distributed_c10d import _coalescing_manager

from diffusion_policy.common.distributed import gather, world_size

BUCKET_BYTES = 32e6
"""Gradients that travel at a time: enough to use the link well, little enough to start early."""


class GradientMean:
    """Averages gradients over the processes, each as soon as it and those before it are there.

    The first pass shows which parameters have gradients, and in which order these come; from then on a bucket of
    them, in that order, is reduced while later ones are computed. They stay where autograd has put them. All of it can
    be captured in a CUDA graph after that pass.

    Args:
        parameters: of the model, the same in all processes.
        bucket_bytes: least size of a bucket, except the last.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], bucket_bytes: float = BUCKET_BYTES) -> None:
        self._parameters = list(parameters)
        self._bucket_bytes = bucket_bytes
        self._has_hooks = False
        self._is_active = False
        self._arrived: list[int] = []
        self._buckets: list[list[int]] = []
        self._bucket_of: dict[int, int] = {}
        self._missing: list[int] = []
        self._works: list[Any] = []

    @contextmanager
    def in_backward(self, is_last: bool = True) -> Iterator[int]:
        """A backward pass; gives the number of processes, by which to divide the loss: gradients are added up.

        Args:
            is_last: of those whose gradients are accumulated; others stay as this process computes them.

        Raises:
            RuntimeError: other parameters have gradients than in the first pass, or in other processes.
        """
        if not self._has_hooks:  # which parameters are trained is known once training begins
            for index, parameter in enumerate(self._parameters):
                if parameter.requires_grad:
                    parameter.register_post_accumulate_grad_hook(partial(self._on_gradient, index))
            self._has_hooks = True
        self._arrived.clear()
        self._works.clear()  # of a capture that broke off
        self._missing = [len(bucket) for bucket in self._buckets]
        self._is_active = is_last
        try:
            yield world_size()
        finally:
            self._is_active = False
        if is_last:
            self._finish()

    def _on_gradient(self, index: int, _: nn.Parameter) -> None:
        if not self._is_active:
            return
        self._arrived.append(index)
        if not self._buckets:
            return
        if index not in self._bucket_of:
            raise RuntimeError(f"a parameter {self._described(index)} has a gradient that had none in the first step")
        self._missing[self._bucket_of[index]] -= 1
        # In the same order everywhere, whatever the order in which gradients come.
        while len(self._works) < len(self._buckets) and self._missing[len(self._works)] == 0:
            self._reduce(self._buckets[len(self._works)])

    def _finish(self) -> None:
        if not self._buckets:
            self._make_buckets()
            for bucket in self._buckets:
                self._reduce(bucket)
        if len(self._works) < len(self._buckets):
            index = next(i for i in self._bucket_of if i not in self._arrived)
            raise RuntimeError(f"a parameter {self._described(index)} has no gradient, and had one in the first step")
        for work in self._works:
            work.wait()
        self._works.clear()

    def _make_buckets(self) -> None:
        orders = gather(self._arrived)
        if any(set(order) != set(orders[0]) for order in orders):
            raise RuntimeError("other parameters have gradients in this process than in the others")
        size = 0.0
        for index in orders[0]:
            gradient = self._gradient(index)
            last = self._gradient(self._buckets[-1][-1]) if self._buckets else None
            if last is None or last.dtype != gradient.dtype or size >= self._bucket_bytes:
                self._buckets.append([])
                size = 0
            self._buckets[-1].append(index)
            self._bucket_of[index] = len(self._buckets) - 1
            size += gradient.nbytes

    def _reduce(self, bucket: list[int]) -> None:
        with _coalescing_manager(async_ops=True) as work:  # one launch, and no copies to and fro
            for index in bucket:
                dist.all_reduce(self._gradient(index))
        self._works.append(work)

    def _gradient(self, index: int) -> Any:
        return self._parameters[index].grad

    def _described(self, index: int) -> str:
        return f"of shape {tuple(self._parameters[index].shape)}"
