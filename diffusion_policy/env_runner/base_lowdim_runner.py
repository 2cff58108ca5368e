"""Runners for policies on vectors."""

from diffusion_policy.env_runner.base_runner import BaseRunner


class BaseLowdimRunner(BaseRunner):
    """Evaluates a BaseLowdimPolicy."""
