"""Runners for policies on images and vectors by key."""

from diffusion_policy.env_runner.base_runner import BaseRunner


class BaseImageRunner(BaseRunner):
    """Evaluates a BaseImagePolicy."""
