"""A policy of one's own, for `--trust`: it fails where it is told to."""

import torch

from diffusion_policy.policy.diffusion_unet_image_policy import DiffusionUnetImagePolicy

NAN, ERROR, GPU = 10.0, 20.0, 30.0
"""First number of the position at which actions are not a number, the policy raises, the GPU fails."""


class FailingPolicy(DiffusionUnetImagePolicy):
    """As its base, at other positions."""

    def predict_action(self, obs_dict, generator=None):
        positions = obs_dict["robot_eef_pose"][..., 0]
        if (positions == GPU).any():
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCompile with ...")
        if (positions == ERROR).any():
            raise RuntimeError("a secret of the server")
        result = super().predict_action(obs_dict, generator)
        return {"action": result["action"] * (torch.nan if (positions == NAN).any() else 1)}
