"""A bound on what a config from elsewhere may make a constructor allocate."""

import math
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from diffusion_policy.common.safe_config import UnsafeConfigError

_SPARE_BYTES = 256 << 20
_SPARE_TENSORS = 10_000
_ALLOCATIONS = {
    torch.ops.aten.empty.memory_format,
    torch.ops.aten.empty_strided.default,
    torch.ops.aten.zeros.default,
    torch.ops.aten.ones.default,
    torch.ops.aten.full.default,
    torch.ops.aten.rand.default,
    torch.ops.aten.randn.default,
}
"""What makes tensors of a given shape, their first argument."""


class SizeLimit(TorchDispatchMode):
    """Inside the block, new tensors may be so many and take so many bytes altogether, and no more.

    Raises:
        UnsafeConfigError: before the tensor that would be too much.
    """

    def __init__(self, n_bytes: int, n_tensors: int) -> None:
        super().__init__()
        self.n_bytes = n_bytes
        self.n_tensors = n_tensors

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Self:
        """Room for building a module with these weights, with something to spare for what it only begins with."""
        tensors = [value for value in state.values() if isinstance(value, Tensor)]
        return cls(4 * sum(tensor.nbytes for tensor in tensors) + _SPARE_BYTES, 10 * len(tensors) + _SPARE_TENSORS)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _ALLOCATIONS:
            dtype = kwargs.get("dtype") or torch.get_default_dtype()
            self.n_bytes -= math.prod(args[0]) * dtype.itemsize
            self.n_tensors -= 1
            if self.n_bytes < 0 or self.n_tensors < 0:
                raise UnsafeConfigError("the policy of the config is many times larger than the weights beside it")
        return func(*args, **kwargs)
