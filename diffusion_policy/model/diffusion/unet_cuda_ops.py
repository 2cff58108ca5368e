"""The U-Net's operations on a GPU: cuBLAS for the matrix products, one Triton kernel for what lies between two."""

from typing import Any, cast

import torch
import triton
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from diffusion_policy.model.diffusion import unet_kernels as kernels
from diffusion_policy.model.diffusion.conv1d_components import Conv1dBlock
from diffusion_policy.model.diffusion.unet_ops import Weights


class CudaOps:
    """See `UnetOps`; with gradients.

    Args:
        dtype: of sequences and products; norms compute, and gradients of weights come, in float32.
        weights: the convolutions' parameters in this dtype.
    """

    def __init__(self, dtype: torch.dtype, weights: Weights) -> None:
        self._dtype = dtype
        self._weights = weights

    def join(self, x: Tensor, skip: Tensor) -> Tensor:
        return torch.cat((x, skip), dim=-1)

    def conv(self, conv: nn.Conv1d, x: Tensor) -> Tensor:
        return _Conv.apply(x.to(self._dtype), *self._parameters(conv), conv.stride[0], conv.padding[0])

    def upsample(self, conv: nn.ConvTranspose1d, x: Tensor) -> Tensor:
        return _Upsample.apply(x, *self._parameters(conv))

    def block(
        self, block: Conv1dBlock, x: Tensor, film: Tensor | None = None, residual: Tensor | None = None
    ) -> Tensor:
        conv, norm, _ = cast(Any, block.block)
        parameters = self._parameters(conv)
        x = x.to(self._dtype)
        return _Block.apply(x, *parameters, norm.weight, norm.bias, film, residual, norm.num_groups, norm.eps)

    def _parameters(self, conv: nn.Conv1d | nn.ConvTranspose1d) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weight and bias as gradients want them, then as products want them."""
        assert conv.bias is not None
        return conv.weight, conv.bias, self._weights[conv.weight], self._weights[conv.bias]


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x, weight, bias, weight_copy, bias_copy, stride, padding):  # type: ignore[no-untyped-def]
        taps = weight.shape[2]
        length = (x.shape[1] + 2 * padding - taps) // stride + 1
        columns = _unfold(x, taps, stride, padding, length)
        ctx.save_for_backward(columns, weight_copy)
        ctx.geometry = (x.shape, taps, stride, padding, length)
        out = torch.addmm(bias_copy, columns, weight_copy.flatten(1).t())
        return out.view(len(x), length, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad):  # type: ignore[no-untyped-def]
        columns, weight = ctx.saved_tensors
        grad = grad.contiguous().view(-1, len(weight))
        grad_x = _fold(grad @ weight.flatten(1), *ctx.geometry) if ctx.needs_input_grad[0] else None
        return grad_x, _weight_grad(grad, columns, weight), _column_sums(grad), None, None, None, None


class _Upsample(torch.autograd.Function):
    """A transposed convolution is the transpose of a convolution: `_Conv` with its directions exchanged."""

    TAPS, STRIDE, PADDING = 4, 2, 1

    @classmethod
    def forward(cls, ctx: Any, x, weight, bias, weight_copy, bias_copy):  # type: ignore[no-untyped-def]
        batch, length, channels = x.shape
        rows = x.reshape(-1, channels)
        ctx.save_for_backward(rows, weight_copy)
        shape = (batch, 2 * length, weight.shape[1])
        return _fold(rows @ weight_copy.flatten(1), shape, cls.TAPS, cls.STRIDE, cls.PADDING, length, bias_copy)

    @classmethod
    @once_differentiable
    def backward(cls, ctx: Any, grad):  # type: ignore[no-untyped-def]
        rows, weight = ctx.saved_tensors
        grad = grad.contiguous()
        columns = _unfold(grad, cls.TAPS, cls.STRIDE, cls.PADDING, grad.shape[1] // 2)
        grad_x = (columns @ weight.flatten(1).t()).view(len(grad), -1, rows.shape[1])
        grad_bias = _column_sums(grad.flatten(0, 1))
        return grad_x, _weight_grad(rows, columns, weight), grad_bias, None, None


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx: Any, x, weight, bias, weight_copy, bias_copy, gamma, beta, film, residual, groups, eps
    ):
        (batch, length, _), (channels, _, taps) = x.shape, weight.shape
        width = channels // groups
        columns = _unfold(x, taps, 1, taps // 2, length)
        y = torch.addmm(bias_copy, columns, weight_copy.flatten(1).t())
        out = y.new_empty(batch, length, channels)
        stats = y.new_empty(batch, groups, 2, dtype=torch.float32)
        kind = 0 if film is None else film.shape[1] // channels
        residual_rows = None if residual is None else residual.contiguous()
        kernels.norm_forward_kernel[(groups, batch)](
            y, gamma, beta, y if film is None else film, y if residual is None else residual_rows, out, stats,
            length, channels, width, 0 if film is None else film.stride(0),
            FILM=kind, RESIDUAL=residual is not None, EPS=eps, **_tile(length, width),
        )  # fmt: skip
        ctx.save_for_backward(columns, weight_copy, y, gamma, beta, film, stats)
        ctx.geometry = (x.shape, taps, 1, taps // 2, length)
        ctx.kind = kind
        ctx.has_residual = residual is not None
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad):  # type: ignore[no-untyped-def]
        columns, weight, y, gamma, beta, film, stats = ctx.saved_tensors
        grad = grad.contiguous()
        batch, length, channels = grad.shape
        groups = stats.shape[1]
        width = channels // groups
        grad_y = torch.empty_like(y)
        grad_film = None if film is None else film.new_empty(film.shape)
        sums = y.new_empty(batch, 3 * channels, dtype=torch.float32)
        kernels.norm_backward_kernel[(groups, batch)](
            grad, y, gamma, beta, y if film is None else film, stats, grad_y, y if film is None else grad_film, sums,
            length, channels, width, 0 if film is None else film.stride(0),
            FILM=ctx.kind, **_tile(length, width),
        )  # fmt: skip
        grad_gamma, grad_beta, grad_bias = _column_sums(sums).chunk(3)
        grad_x = _fold(grad_y @ weight.flatten(1), *ctx.geometry) if ctx.needs_input_grad[0] else None
        grad_weight = _weight_grad(grad_y, columns, weight)
        grad_residual = grad if ctx.has_residual else None
        return (
            *(grad_x, grad_weight, grad_bias, None, None, grad_gamma, grad_beta, grad_film, grad_residual, None, None),
        )


def _unfold(x: Tensor, taps: int, stride: int, padding: int, length: int) -> Tensor:
    batch, steps, channels = x.shape
    if x.stride(2) != 1:
        x = x.contiguous()
    if taps == 1 and stride == 1:
        return x.reshape(-1, channels)
    out = x.new_empty(batch * length, channels * taps)
    block = min(1024, triton.next_power_of_2(channels * taps))
    kernels.unfold_kernel[(len(out), triton.cdiv(channels * taps, block))](
        x, out, steps, length, channels, x.stride(0), x.stride(1),
        STRIDE=stride, PADDING=padding, TAPS=taps, BLOCK=block,
    )  # fmt: skip
    return out


def _fold(
    columns: Tensor, shape: Any, taps: int, stride: int, padding: int, length: int, bias: Tensor | None = None
) -> Tensor:
    batch, steps, channels = shape
    if taps == 1 and stride == 1:
        return columns.view(shape)
    out = columns.new_empty(shape)
    block = min(512, triton.next_power_of_2(channels))
    kernels.fold_kernel[(batch * steps, triton.cdiv(channels, block))](
        columns, columns if bias is None else bias, out, steps, length, channels,
        STRIDE=stride, PADDING=padding, TAPS=taps, BIAS=bias is not None, BLOCK=block,
    )  # fmt: skip
    return out


def _weight_grad(left: Tensor, right: Tensor, weight: Tensor) -> Tensor:
    """`left^T right` in float32, in the shape of `weight`."""
    if left.dtype == torch.float32:
        return (left.t() @ right).view(weight.shape)
    return torch.mm(left.t(), right, out_dtype=torch.float32).view(weight.shape)


def _column_sums(x: Tensor) -> Tensor:
    rows, columns = x.shape
    out = x.new_empty(columns, dtype=torch.float32)
    block = 32
    kernels.column_sums_kernel[(triton.cdiv(columns, block),)](x, out, rows, columns, ROWS=64, BLOCK=block)
    return out


def _tile(length: int, width: int) -> dict[str, int]:
    return {"BT": triton.next_power_of_2(length), "BC": triton.next_power_of_2(width), "num_warps": 4}
