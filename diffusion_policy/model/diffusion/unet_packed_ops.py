"""The U-Net's operations on a CPU without gradients: weights packed once, by oneDNN, the way its products read them."""

from typing import Any

import torch
from torch import Tensor, nn

from diffusion_policy.model.diffusion.unet_ops import TorchOps, Weights, unfold

MIN_PARAMETERS = 10_000_000
ROWS = 16
"""Rows of a product that weights are packed for, those of one trajectory; others are right, too."""


class PackedOps(TorchOps):
    """See `UnetOps`; `weights` are those of `packed_weights`."""

    def upsample(self, conv: nn.ConvTranspose1d, x: Tensor) -> Tensor:
        return self._interleave(_linear(x, self._of(conv.weight), None), conv)

    def _product(self, x: Tensor, conv: nn.Conv1d) -> Tensor:
        columns = unfold(x, conv, by_tap=True)
        return _linear(columns, self._of(conv.weight), self._of(conv.bias))


def packing_pays(unet: nn.Module) -> bool:
    """Whether weights are too many for the CPU's cache; else packing costs more operations than it saves reading."""
    return sum(parameter.numel() for parameter in unet.parameters()) >= MIN_PARAMETERS


def packing_is_possible(dtype: torch.dtype) -> bool:
    """Whether this build of torch and this CPU pack weights of a dtype."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def packed_weights(unet: nn.Module, dtype: torch.dtype) -> Weights:
    """The convolutions' parameters in `dtype`, weights as packed matrices."""
    weights: Weights = {}
    for module in unet.modules():
        if isinstance(module, nn.Conv1d):
            matrix = module.weight.permute(0, 2, 1).flatten(1)
        elif isinstance(module, nn.ConvTranspose1d):
            matrix = module.weight.flatten(1).t()
        else:
            continue
        assert module.bias is not None
        weights[module.weight] = torch.ops.mkldnn._reorder_linear_weight(matrix.to(dtype).contiguous(), ROWS)
        weights[module.bias] = module.bias.to(dtype)
    return weights


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Any:
    # What torch.compile makes of a linear layer whose weight does not change.
    return torch.ops.mkldnn._linear_pointwise(x.to(weight.dtype), weight, bias, "none", [], "")
