"""Sinusoidal embedding of the diffusion step."""

import math

import torch
from torch import Tensor, nn


class SinusoidalPosEmb(nn.Module):
    """Embeds scalars as sines, then cosines, at `dim / 2` geometrically spaced frequencies.

    Vaswani et al. 2017, section 3.5; frequencies run from 1 to 1/10000.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim < 4 or dim % 2:
            raise ValueError(f"SinusoidalPosEmb needs an even dim >= 4, got {dim}")
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(B,)` to `(B, dim)`."""
        half = self.dim // 2
        frequencies = torch.exp(torch.arange(half, device=x.device) * -(math.log(10000) / (half - 1)))
        angles = x[:, None] * frequencies[None, :]
        return torch.cat((angles.sin(), angles.cos()), dim=-1)
