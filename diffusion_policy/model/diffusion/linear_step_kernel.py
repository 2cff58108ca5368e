"""The step of a linear scheduler as one Triton kernel; see `LinearStep`."""

# mypy: ignore-errors
import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 256


def apply_on_gpu(step, sample: Tensor, model_output: Tensor, noise: Tensor | None) -> Tensor:
    """`step.apply` of contiguous tensors `(B, T, D)` of one dtype."""
    out = torch.empty_like(sample)
    _step_kernel[(triton.cdiv(out.numel(), BLOCK),)](
        sample, model_output, sample if noise is None else noise, out, out.numel(), step.x0_x, step.x0_out,
        step.prev_x0, step.prev_x, step.prev_out, step.sigma, 0.0 if step.clip is None else step.clip,
        CLIP=step.clip is not None, NOISE=noise is not None, BLOCK=BLOCK,
    )  # fmt: skip
    return out


# Coefficients are numbers of the step, not of the program: without this, a kernel would be compiled for 1.0 or 0.0.
@triton.jit(do_not_specialize=["x0_x", "x0_out", "prev_x0", "prev_x", "prev_out", "sigma", "clip"])
def _step_kernel(
    sample_ptr, output_ptr, noise_ptr, out_ptr, n, x0_x, x0_out, prev_x0, prev_x, prev_out, sigma, clip,
    CLIP: tl.constexpr, NOISE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    entry = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = entry < n
    sample = tl.load(sample_ptr + entry, mask=inside)
    output = tl.load(output_ptr + entry, mask=inside)
    clean = x0_x * sample + x0_out * output
    if CLIP:
        clean = tl.minimum(tl.maximum(clean, -clip), clip)
    previous = prev_x0 * clean + prev_x * sample + prev_out * output
    if NOISE:
        previous += sigma * tl.load(noise_ptr + entry, mask=inside)
    tl.store(out_ptr + entry, previous, mask=inside)
