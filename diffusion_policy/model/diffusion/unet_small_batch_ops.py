"""The U-Net's operations for a robot: a batch so small that all time goes into reading the weights.

One Triton kernel does a whole block. Its programs share out the weights of a layer, each reading its part once; the
last to finish with a group of channels adds up the parts and applies norm, Mish, FiLM and residual.
"""

# mypy: ignore-errors
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from diffusion_policy.model.diffusion.conv1d_components import Conv1dBlock
from diffusion_policy.model.diffusion.unet_kernels import mish
from diffusion_policy.model.diffusion.unet_ops import Weights

MAX_BATCH = 4
MAX_STEPS = 32
MAX_GROUP = 256
PROGRAMS = 128
"""Programs that a layer is shared out to: about as many as a large GPU has multiprocessors."""


def takes(unet: nn.Module, batch_size: int, horizon: int) -> bool:
    """Whether the kernel's tiles are large enough for the steps and the groups of channels."""
    widths = [norm.num_channels // norm.num_groups for norm in unet.modules() if isinstance(norm, nn.GroupNorm)]
    return batch_size <= MAX_BATCH and horizon <= MAX_STEPS and max(widths) <= MAX_GROUP


class SmallBatchOps:
    """See `UnetOps`; without gradients.

    Args:
        weights: those of `tap_by_tap_weights`.
    """

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        some = next(iter(weights.values()))
        self._dtype = some.dtype
        # Only layers of fewer groups than programs are split into parts, so there is at most one for each program.
        self._partial = some.new_empty(PROGRAMS * MAX_STEPS * MAX_GROUP, dtype=torch.float32)
        self._arrivals = some.new_zeros(PROGRAMS, dtype=torch.int32)

    def join(self, x: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        return x, skip

    def conv(self, conv: nn.Conv1d, x: Tensor) -> Tensor:
        return self._layer(x, conv, conv.stride[0], int(conv.padding[0]))

    def upsample(self, conv: nn.ConvTranspose1d, x: Tensor) -> Tensor:
        return self._layer(x, conv, 1, 1).unflatten(-1, (2, -1)).flatten(1, 2)

    def block(self, block: Conv1dBlock, x: Any, film: Tensor | None = None, residual: Tensor | None = None) -> Tensor:
        conv, norm, _ = block.block
        return self._layer(x, conv, 1, conv.padding[0], norm, film, residual)

    def _layer(
        self,
        x: Any,
        conv: nn.Conv1d | nn.ConvTranspose1d,
        stride: int,
        padding: int,
        norm: nn.GroupNorm | None = None,
        film: Tensor | None = None,
        residual: Any = None,
    ) -> Tensor:
        weight, bias = self._weights[conv.weight], self._weights[conv.bias]
        x, skip = (each.contiguous() for each in (x if isinstance(x, tuple) else (x, x)))
        if isinstance(residual, tuple):
            residual = torch.cat(residual, dim=-1)
        batch, steps, first = x.shape
        out_channels, taps, in_channels = weight.shape
        length = (steps + 2 * padding - taps) // stride + 1
        out = torch.empty(batch, length, out_channels, dtype=self._dtype, device=x.device)
        width = min(32, out_channels) if norm is None else out_channels // norm.num_groups
        columns = triton.cdiv(out_channels, width)
        tile = _tile(width, length, first, self._dtype, x.device)
        chunks_per_tap = triton.cdiv(first, tile["BK"]) + triton.cdiv(in_channels - first, tile["BK"])
        chunks = chunks_per_tap * taps
        share = triton.cdiv(chunks, max(1, min(chunks, PROGRAMS // (columns * batch))))
        splits = triton.cdiv(chunks, share)
        kind = 0 if film is None else film.shape[1] // out_channels
        _layer_kernel[(columns, splits, batch)](
            x, skip, weight, bias, bias if norm is None else norm.weight, bias if norm is None else norm.bias,
            bias if film is None else film, x if residual is None else residual, out, self._partial, self._arrivals,
            steps, length, first, in_channels, out_channels, width, 0 if film is None else film.stride(0), share,
            STRIDE=stride, PADDING=padding, TAPS=taps, CHUNKS=chunks, FIRST_CHUNKS=triton.cdiv(first, tile["BK"]),
            CHUNKS_PER_TAP=chunks_per_tap, SPLITS=splits, NORM=norm is not None, FILM=kind,
            RESIDUAL=residual is not None, EPS=0.0 if norm is None else norm.eps, PRECISION=_precision(), **tile,
        )  # fmt: skip
        return out


def tap_by_tap_weights(unet: nn.Module, dtype: torch.dtype) -> Weights:
    """The convolutions' parameters in `dtype`, weights `(Cout, taps, Cin)`."""
    weights: Weights = {}
    for module in unet.modules():
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
            weight, bias = _tap_by_tap(module)
            weights[module.weight] = weight.to(dtype).contiguous()
            weights[module.bias] = bias.to(dtype, copy=True)
    return weights


def _tap_by_tap(conv: nn.Conv1d | nn.ConvTranspose1d) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution, or of the one over three steps that stands for `upsample`.

    The latter has 2 Cout channels, those of the even steps of the longer sequence and then those of the odd ones:
    even steps see a step and the one before it, odd ones a step and the one after.
    """
    if isinstance(conv, nn.Conv1d):
        return conv.weight.permute(0, 2, 1), conv.bias
    before, even, odd, after = conv.weight.permute(2, 1, 0)
    nothing = torch.zeros_like(even)
    weight = torch.cat((torch.stack((after, even, nothing), dim=1), torch.stack((nothing, odd, before), dim=1)))
    return weight, conv.bias.repeat(2)


def _precision() -> str:
    """How float32 is multiplied: three TF32 products keep its precision, one is what `allow_tf32` asks for."""
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3"


@cache
def _tile(width: int, length: int, channels: int, dtype: torch.dtype, device: torch.device) -> dict[str, int]:
    """Shape of the tiles and depth of the pipeline that fit into a multiprocessor's shared memory."""
    shared = 101376
    if device.type == "cuda":
        shared = torch.cuda.get_device_properties(device).shared_memory_per_block_optin
    bm, bn = (max(16, triton.next_power_of_2(size)) for size in (length, width))
    bk = min(256 // dtype.itemsize, max(16, triton.next_power_of_2(channels)))
    while bk > 16 and 2 * (bm + bn) * bk * dtype.itemsize > shared:
        bk //= 2
    # A loop of n stages keeps n - 1 tiles in flight.
    stages = min(4 if dtype.itemsize == 2 else 3, 1 + shared // ((bm + bn) * bk * dtype.itemsize))
    return {"BM": bm, "BN": bn, "BK": bk, "num_stages": stages, "num_warps": 8}


@triton.jit
def _layer_kernel(
    x_ptr, skip_ptr, weight_ptr, bias_ptr, gamma_ptr, beta_ptr, film_ptr, residual_ptr, out_ptr, partial_ptr,
    arrivals_ptr, T_in, T_out, C_first, C_in, C_out, width, film_stride, share,
    STRIDE: tl.constexpr, PADDING: tl.constexpr, TAPS: tl.constexpr, CHUNKS: tl.constexpr,
    FIRST_CHUNKS: tl.constexpr, CHUNKS_PER_TAP: tl.constexpr, SPLITS: tl.constexpr, NORM: tl.constexpr,
    FILM: tl.constexpr, RESIDUAL: tl.constexpr, EPS: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """One layer. Programs: groups of `width` output channels, shares of the input's chunks, sequences.

    The input's channels are those of `x`, then those of `skip`; a chunk is BK of them, at one tap.
    """
    group, split, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    t = tl.arange(0, BM)
    column = tl.arange(0, BN)
    n = group * width + column
    live = (column < width) & (n < C_out)
    k = tl.arange(0, BK)
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for i in range(share):
        chunk = split * share + i
        tap = chunk // CHUNKS_PER_TAP
        place = chunk % CHUNKS_PER_TAP
        from_skip = place >= FIRST_CHUNKS
        c = tl.where(from_skip, place - FIRST_CHUNKS, place) * BK + k
        channels = tl.where(from_skip, C_in - C_first, C_first)
        wanted = (c < channels) & (chunk < CHUNKS)
        step = t * STRIDE + tap - PADDING
        source = tl.where(from_skip, skip_ptr, x_ptr) + b * T_in * channels
        seen = (step >= 0) & (step < T_in) & (t < T_out)
        x = tl.load(source + step[:, None] * channels + c[None, :], mask=seen[:, None] & wanted[None, :], other=0.0)
        rows = tl.where(from_skip, C_first, 0) + c
        entry = n[None, :] * (TAPS * C_in) + tap * C_in + rows[:, None]
        weight = tl.load(weight_ptr + entry, mask=live[None, :] & wanted[:, None], other=0.0)
        total = tl.dot(x.to(weight.dtype), weight, total, input_precision=PRECISION)
    mask = (t < T_out)[:, None] & live[None, :]
    if SPLITS > 1:
        partial = partial_ptr + b * SPLITS * T_out * C_out + t[:, None] * C_out + n[None, :]
        tl.store(partial + split * T_out * C_out, total, mask=mask)
        tl.debug_barrier()
        arrivals = arrivals_ptr + b * tl.num_programs(0) + group
        is_last = tl.atomic_add(arrivals, 1, sem="acq_rel") == SPLITS - 1
        if is_last:
            tl.debug_barrier()
            total = tl.zeros((BM, BN), dtype=tl.float32)
            for i in range(SPLITS):  # always in this order, so that sums are reproducible
                total += tl.load(partial + i * T_out * C_out, mask=mask, other=0.0, cache_modifier=".cg")
            tl.store(arrivals, 0)
            _finish(
                total, t, n, mask, live, b, bias_ptr, gamma_ptr, beta_ptr, film_ptr, residual_ptr, out_ptr, T_out,
                C_out, width, film_stride, NORM, FILM, RESIDUAL, EPS,
            )  # fmt: skip
    else:
        _finish(
            total, t, n, mask, live, b, bias_ptr, gamma_ptr, beta_ptr, film_ptr, residual_ptr, out_ptr, T_out,
            C_out, width, film_stride, NORM, FILM, RESIDUAL, EPS,
        )  # fmt: skip


@triton.jit
def _finish(
    total, t, n, mask, live, b, bias_ptr, gamma_ptr, beta_ptr, film_ptr, residual_ptr, out_ptr, T_out, C_out, width,
    film_stride, NORM: tl.constexpr, FILM: tl.constexpr, RESIDUAL: tl.constexpr, EPS: tl.constexpr,
):  # fmt: skip
    """Bias, group norm, Mish, FiLM and residual of one group of channels, whose products are complete."""
    y = total + tl.load(bias_ptr + n, mask=live, other=0.0).to(tl.float32)[None, :]
    if NORM:
        mean = tl.sum(tl.where(mask, y, 0.0)) / (T_out * width)
        centred = tl.where(mask, y - mean, 0.0)
        rstd = 1.0 / tl.sqrt(tl.sum(centred * centred) / (T_out * width) + EPS)
        gamma = tl.load(gamma_ptr + n, mask=live, other=0.0)[None, :]
        y = mish(centred * rstd * gamma + tl.load(beta_ptr + n, mask=live, other=0.0)[None, :])
    film = film_ptr + b * film_stride + n
    if FILM == 2:
        y *= tl.load(film, mask=live, other=0.0).to(tl.float32)[None, :]
        film += C_out
    if FILM > 0:
        y += tl.load(film, mask=live, other=0.0).to(tl.float32)[None, :]
    entry = b * T_out * C_out + t[:, None] * C_out + n[None, :]
    if RESIDUAL:
        y += tl.load(residual_ptr + entry, mask=mask, other=0.0).to(tl.float32)
    tl.store(out_ptr + entry, y.to(out_ptr.dtype.element_ty), mask=mask)
