"""Where the original keeps what stands in `env.robomimic.absolute_action_converter`."""

from diffusion_policy.env.robomimic.absolute_action_converter import RobomimicAbsoluteActionConverter

__all__ = ["RobomimicAbsoluteActionConverter"]
