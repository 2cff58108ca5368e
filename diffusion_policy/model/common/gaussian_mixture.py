"""Mixtures of diagonal Gaussians, without torch.distributions' checks, each of which waits for the GPU."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion_policy.common.draws import Generators, draw, draw_indices


@dataclass
class GaussianMixture:
    """A batch of mixtures of K Gaussians in D dimensions.

    Attributes:
        means: `(B, ..., K, D)`.
        scales: standard deviations `(B, ..., K, D)`.
        logits: of the weights, `(B, ..., K)`.
    """

    means: Tensor
    scales: Tensor
    logits: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density `(B, ...)` at `x` `(B, ..., D)`."""
        deviations = (x.unsqueeze(-2) - self.means) / self.scales
        of_each = -(0.5 * deviations.square() + self.scales.log() + 0.5 * math.log(2 * math.pi)).sum(dim=-1)
        return torch.logsumexp(self.logits.log_softmax(dim=-1) + of_each, dim=-1)

    def sample(self, generator: Generators = None) -> Tensor:
        """Draws a point of each mixture, `(B, ..., D)`."""
        chosen = draw_indices(self.logits.softmax(dim=-1), 1, generator)
        noise = draw(torch.randn, self.means.shape, generator, self.means.device, self.means.dtype)
        points = self.means + self.scales * noise
        return points.gather(-2, chosen[..., None].expand(*chosen.shape, points.shape[-1])).squeeze(-2)
