"""What the U-Net is made of, on sequences `(B, T, C)`: channels last, convolutions as matrix products.

The sequences of a policy are short (16 steps, then 8, then 4) and its channels many: a convolution over them is a
matrix product with each step's neighbourhood, and matrix products are what hardware is best at. Weights are those of
the modules, viewed; the modules' own `forward`, channels first, computes the same.
"""

from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_policy.model.diffusion.conv1d_components import Conv1dBlock

Weights = dict[Tensor, Tensor]
"""Of each parameter of the convolutions, what takes its place in products: a copy in another dtype or layout."""


class UnetOps(Protocol):
    """The operations of one pass through a U-Net."""

    def join(self, x: Tensor, skip: Tensor) -> Any:
        """The channels of `x` and `skip`, both `(B, T, C)`, as input of `block` or `conv`."""

    def conv(self, conv: nn.Conv1d, x: Any) -> Tensor:
        """Convolution of `(B, T, Cin)` to `(B, To, Cout)`."""

    def upsample(self, conv: nn.ConvTranspose1d, x: Tensor) -> Tensor:
        """The transposed convolution that doubles the steps: `(B, T, C)` to `(B, 2T, C)`."""

    def block(self, block: Conv1dBlock, x: Any, film: Tensor | None = None, residual: Tensor | None = None) -> Tensor:
        """Convolution, group norm, Mish; then FiLM and a residual added.

        Args:
            block: the module.
            x: `(B, T, Cin)`.
            film: `(B, 2 Cout)` scale and bias of each channel, or `(B, Cout)` bias alone.
            residual: `(B, T, Cout)`.
        """


class TorchOps:
    """In torch's own operations: on CPUs, under `torch.compile`, and wherever Triton is not.

    Args:
        weights: the convolutions' parameters in another dtype; themselves if None.
    """

    def __init__(self, weights: Weights | None = None) -> None:
        self._weights = weights

    def _of(self, parameter: Tensor | None) -> Any:
        return parameter if parameter is None or self._weights is None else self._weights[parameter]

    def join(self, x: Tensor, skip: Tensor) -> Tensor:
        return torch.cat((x, skip), dim=-1)

    def conv(self, conv: nn.Conv1d, x: Tensor) -> Tensor:
        return self._product(x, conv)

    def upsample(self, conv: nn.ConvTranspose1d, x: Tensor) -> Tensor:
        return self._interleave(x @ self._of(conv.weight).flatten(1), conv)

    def _interleave(self, products: Tensor, conv: nn.ConvTranspose1d) -> Tensor:
        """What `(B, T, 4C)` products with every tap add up to: they go to steps 2t - 1, 2t, 2t + 1 and 2t + 2."""
        before, even, odd, after = products.unflatten(-1, (-1, 4)).unbind(-1)
        even = even + F.pad(after[:, :-1], (0, 0, 1, 0))
        odd = odd + F.pad(before[:, 1:], (0, 0, 0, 1))
        return torch.stack((even, odd), dim=2).flatten(1, 2) + self._of(conv.bias).to(even.dtype)

    def block(
        self, block: Conv1dBlock, x: Tensor, film: Tensor | None = None, residual: Tensor | None = None
    ) -> Tensor:
        conv, norm, _ = cast(Any, block.block)
        product = self._product(x, conv)
        dtype = product.dtype
        if product.is_cuda:  # where, other than on a CPU, the norm's input must have the dtype of its weight
            product = product.to(norm.weight.dtype)
        # (B, C, 1, T) with the strides of channels-last images is how torch's group norm leaves such data where they
        # lie; Mish, whose gradient is slow where layouts meet, then has but this one.
        images = product.unsqueeze(2).permute(0, 3, 1, 2)
        normed = F.group_norm(images, norm.num_groups, norm.weight, norm.bias, norm.eps)
        out = F.mish(normed.permute(0, 2, 3, 1).squeeze(2))
        out = apply_film(out, film).to(dtype)
        return out if residual is None else out + residual

    def _product(self, x: Tensor, conv: nn.Conv1d) -> Tensor:
        if x.device.type == "cpu" and self._weights is None and not torch.is_autocast_enabled("cpu"):
            # In float32 a CPU gains from leaving out the padding, which oneDNN's convolution does.
            return F.conv1d(x.mT, conv.weight, conv.bias, conv.stride, conv.padding).mT
        columns = unfold(x, conv)
        weight = self._of(conv.weight).flatten(1)
        return F.linear(columns if self._weights is None else columns.to(weight.dtype), weight, self._of(conv.bias))


def unfold(x: Tensor, conv: nn.Conv1d, by_tap: bool = False) -> Tensor:
    """Each step's neighbourhood in the eyes of `conv`: `(B, T, C)` to `(B, To, C * taps)`.

    In the order of a flattened weight, or `by_tap` with the channels of a tap side by side, which is quicker to copy.
    """
    (taps,), (stride,), padding = conv.kernel_size, conv.stride, int(conv.padding[0])
    if taps == 1 and stride == 1:
        return x
    neighbours = F.pad(x, (0, 0, padding, padding)).unfold(1, taps, stride)
    return (neighbours.mT if by_tap else neighbours).flatten(2)


def apply_film(x: Tensor, film: Tensor | None) -> Tensor:
    """`scale * x + bias` of sequences `(B, T, C)`, or `x + bias` (Perez et al. 2018, equation 1)."""
    if film is None:
        return x
    if film.shape[-1] == x.shape[-1]:
        return x + film[:, None]
    scale, bias = film[:, None].chunk(2, dim=-1)
    return scale * x + bias


def cast_weights(unet: nn.Module, dtype: torch.dtype) -> Weights:
    """The parameters of all convolutions in `dtype`, copied together; themselves if that is theirs."""
    convs = [module for module in unet.modules() if isinstance(module, nn.Conv1d | nn.ConvTranspose1d)]
    parameters: list[Tensor] = [parameter for conv in convs for parameter in conv.parameters(recurse=False)]
    if all(parameter.dtype == dtype for parameter in parameters):
        return {parameter: parameter for parameter in parameters}
    copies = [torch.empty_like(parameter, dtype=dtype, requires_grad=False) for parameter in parameters]
    with torch.no_grad():
        torch._foreach_copy_(copies, parameters)
    return dict(zip(parameters, copies, strict=True))
