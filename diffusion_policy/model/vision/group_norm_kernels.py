"""Group norm of images in channels-last layout, in Triton: torch's own copies them to channels-first and back."""

# mypy: ignore-errors
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable


def channels_last_group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Group norm of `(N, C, H, W)` in channels-last layout; the result has its layout and dtype."""
    return _GroupNorm.apply(x, groups, weight, bias, eps)


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x, groups, weight, bias, eps):
        out = torch.empty_like(x, memory_format=torch.channels_last)
        stats = x.new_empty(len(x), groups, 2, dtype=torch.float32)
        _forward_kernel[(groups, len(x))](x, weight, bias, out, stats, *_sizes(x, groups), EPS=eps, **_tile(x, groups))
        ctx.save_for_backward(x, weight, stats)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad):
        x, weight, stats = ctx.saved_tensors
        groups, channels = stats.shape[1], x.shape[1]
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_x = torch.empty_like(x, memory_format=torch.channels_last)
        sums = x.new_empty(len(x), 2 * channels, dtype=torch.float32)
        _backward_kernel[(groups, len(x))](grad, x, weight, stats, grad_x, sums, *_sizes(x, groups), **_tile(x, groups))
        grad_weight, grad_bias = sums.sum(0).chunk(2)
        return grad_x, None, grad_weight.to(weight.dtype), grad_bias.to(weight.dtype), None


def _sizes(x: Tensor, groups: int) -> tuple[int, int, int]:
    """Pixels, channels, channels of a group."""
    return x.shape[2] * x.shape[3], x.shape[1], x.shape[1] // groups


def _tile(x: Tensor, groups: int) -> dict[str, int]:
    pixels, _, width = _sizes(x, groups)
    columns = triton.next_power_of_2(width)
    return {"BP": min(triton.next_power_of_2(pixels), max(1, 4096 // columns)), "BC": columns, "num_warps": 4}


@triton.jit
def _channels_of(group, width, BC: tl.constexpr):
    """Channels `(BC,)` of a group, and which of them there are."""
    column = tl.arange(0, BC)
    return group * width + column, column < width


@triton.jit
def _tile_at(first, start, pixels, channels, c, inside, BP: tl.constexpr):
    """Entries `(BP, BC)` of some pixels of an image that begins at `start`, and which of them there are."""
    p = first + tl.arange(0, BP)
    return start + p[:, None] * channels + c[None, :], (p < pixels)[:, None] & inside[None, :]


@triton.jit
def _forward_kernel(
    x_ptr, weight_ptr, bias_ptr, out_ptr, stats_ptr, pixels, channels, width,
    EPS: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """One group of one image; it is read three times, the last two from cache."""
    group, image = tl.program_id(0), tl.program_id(1)
    start = image.to(tl.int64) * pixels * channels
    c, inside = _channels_of(group, width, BC)
    count = pixels * width
    total = tl.zeros((BP, BC), dtype=tl.float32)
    for first in range(0, pixels, BP):
        entry, mask = _tile_at(first, start, pixels, channels, c, inside, BP)
        total += tl.load(x_ptr + entry, mask=mask, other=0.0).to(tl.float32)
    mean = tl.sum(total) / count
    total = tl.zeros((BP, BC), dtype=tl.float32)
    for first in range(0, pixels, BP):
        entry, mask = _tile_at(first, start, pixels, channels, c, inside, BP)
        x = tl.load(x_ptr + entry, mask=mask, other=0.0).to(tl.float32)
        centred = tl.where(mask, x - mean, 0.0)
        total += centred * centred
    rstd = 1.0 / tl.sqrt(tl.sum(total) / count + EPS)
    weight = tl.load(weight_ptr + c, mask=inside, other=0.0).to(tl.float32)[None, :]
    bias = tl.load(bias_ptr + c, mask=inside, other=0.0).to(tl.float32)[None, :]
    for first in range(0, pixels, BP):
        entry, mask = _tile_at(first, start, pixels, channels, c, inside, BP)
        x = tl.load(x_ptr + entry, mask=mask, other=0.0).to(tl.float32)
        tl.store(out_ptr + entry, ((x - mean) * rstd * weight + bias).to(out_ptr.dtype.element_ty), mask=mask)
    stats = stats_ptr + (image * tl.num_programs(0) + group) * 2
    tl.store(stats, mean)
    tl.store(stats + 1, rstd)


@triton.jit
def _backward_kernel(
    grad_ptr, x_ptr, weight_ptr, stats_ptr, grad_x_ptr, sums_ptr, pixels, channels, width,
    BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Gradients of one group of one image, and the sums `(N, 2C)` over its pixels for those of weight and bias."""
    group, image = tl.program_id(0), tl.program_id(1)
    start = image.to(tl.int64) * pixels * channels
    c, inside = _channels_of(group, width, BC)
    count = pixels * width
    stats = stats_ptr + (image * tl.num_programs(0) + group) * 2
    mean, rstd = tl.load(stats), tl.load(stats + 1)
    weight = tl.load(weight_ptr + c, mask=inside, other=0.0).to(tl.float32)
    of_bias = tl.zeros((BP, BC), dtype=tl.float32)
    of_weight = tl.zeros((BP, BC), dtype=tl.float32)
    for first in range(0, pixels, BP):
        entry, mask = _tile_at(first, start, pixels, channels, c, inside, BP)
        x = tl.load(x_ptr + entry, mask=mask, other=0.0).to(tl.float32)
        grad = tl.load(grad_ptr + entry, mask=mask, other=0.0).to(tl.float32)
        of_bias += grad
        of_weight += grad * (x - mean) * rstd
    sum_bias, sum_weight = tl.sum(of_bias, axis=0), tl.sum(of_weight, axis=0)
    sums = sums_ptr + image * 2 * channels + c
    tl.store(sums, sum_weight, mask=inside)
    tl.store(sums + channels, sum_bias, mask=inside)
    offset = tl.sum(sum_bias * weight) / count
    slope = tl.sum(sum_weight * weight) / count
    for first in range(0, pixels, BP):
        entry, mask = _tile_at(first, start, pixels, channels, c, inside, BP)
        x = tl.load(x_ptr + entry, mask=mask, other=0.0).to(tl.float32)
        grad = tl.load(grad_ptr + entry, mask=mask, other=0.0).to(tl.float32)
        grad_x = rstd * (grad * weight[None, :] - offset - (x - mean) * rstd * slope)
        tl.store(grad_x_ptr + entry, grad_x.to(grad_x_ptr.dtype.element_ty), mask=mask)
