"""Random draws for a batch, whose rows may each have a generator of their own."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Generators = torch.Generator | Sequence[torch.Generator] | None
"""Source of randomness: the global generator (None), one for the batch, or one for each row of it."""


def draw(
    sample: Callable[..., Tensor],
    shape: Sequence[int],
    generator: Generators,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Draws a batch of `shape`; a row with a generator of its own does not depend on the other rows.

    Args:
        sample: `torch.randn` or `torch.rand`.
        shape: `(B, ...)`.
        generator: source of randomness, on any device.
        device: where the batch goes.
    """
    if generator is None:
        return sample(tuple(shape), device=device, dtype=dtype)
    if isinstance(generator, torch.Generator):
        batch = sample(tuple(shape), generator=generator, device=generator.device, dtype=dtype)
    else:
        if len(generator) != shape[0]:
            raise ValueError(f"{len(generator)} generators for a batch of {shape[0]}: give one for each row")
        rows = [sample(tuple(shape[1:]), generator=each, device=each.device, dtype=dtype) for each in generator]
        batch = torch.stack(rows)
    return batch.to(device, non_blocking=True)


def draw_indices(probabilities: Tensor, n: int, generator: Generators) -> Tensor:
    """Draws `n` indices, with replacement, from each of a batch of distributions.

    Args:
        probabilities: `(B, ..., K)`; each sums to 1.
        n: indices to draw from each.
        generator: source of randomness.

    Returns:
        `(B, ..., n)` int64.
    """
    *leading, n_classes = probabilities.shape
    if generator is None:  # draws as the original does, so that a seed gives the same indices
        flat = torch.multinomial(probabilities.reshape(-1, n_classes), n, replacement=True)
        return flat.reshape(*leading, n)
    # Inverse of the cumulative distribution: what rows of several generators draw becomes indices all at once.
    uniform = draw(torch.rand, (*leading, n), generator, probabilities.device, probabilities.dtype)
    cumulative = probabilities.cumsum(dim=-1)
    indices = torch.searchsorted(cumulative, uniform * cumulative[..., -1:], right=True)
    return indices.clamp(max=n_classes - 1)
