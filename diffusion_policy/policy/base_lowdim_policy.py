"""Policies on vectors: states, keypoints, joint angles."""

from diffusion_policy.policy.base_policy import BasePolicy


class BaseLowdimPolicy(BasePolicy):
    """Observes `obs` `(B, To, Do)`."""
