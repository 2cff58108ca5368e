"""Policies on images and vectors by key."""

from diffusion_policy.policy.base_policy import BasePolicy


class BaseImagePolicy(BasePolicy):
    """Observes one key for each camera, `(B, To, C, H, W)` in [0, 1], and for each vector, `(B, To, D)`."""
