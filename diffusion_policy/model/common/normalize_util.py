"""Normalizers that are known beforehand, not fitted."""

import torch

from diffusion_policy.model.common.normalizer import SingleFieldLinearNormalizer


def get_image_range_normalizer() -> SingleFieldLinearNormalizer:
    """Maps images in [0, 1] to [-1, 1]; its statistics are those of evenly distributed values."""
    stats = {"min": 0.0, "max": 1.0, "mean": 0.5, "std": 12**-0.5}
    return SingleFieldLinearNormalizer.create_manual(
        scale=torch.tensor([2.0]),
        offset=torch.tensor([-1.0]),
        input_stats_dict={key: torch.tensor([value]) for key, value in stats.items()},
    )
