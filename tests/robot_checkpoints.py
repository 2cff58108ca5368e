"""Checkpoints of small policies for the simulated robot, whose cameras are 0 and 1."""

from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from tiny_policies import image_config

from diffusion_policy.common.checkpoint_file import write_checkpoint
from diffusion_policy.model.common.normalizer import LinearNormalizer

SHAPE_META = {
    "obs": {
        "camera_0": {"shape": [3, 24, 32], "type": "rgb"},
        "camera_1": {"shape": [3, 24, 32], "type": "rgb"},
        "robot_eef_pose": {"shape": [2], "type": "low_dim"},
    },
    "action": {"shape": [2]},
}
LOW, HIGH = (0.40, 0.20), (0.48, 0.30)
"""x and y (m) between which actions are, of policies of random weights."""


def policy_config(**changes: Any) -> dict[str, Any]:
    """Of a diffusion policy that answers within milliseconds, two steps of observations with 7 actions."""
    config = {**image_config(n_obs_steps=2), "shape_meta": SHAPE_META}
    config["obs_encoder"] = {**config["obs_encoder"], "shape_meta": SHAPE_META}
    return {**config, **changes}


def write_robot_policy(path: Path, policy_cfg: dict[str, Any] | None = None, **cfg: Any) -> Path:
    """A checkpoint with random weights; `cfg` is what else its config has."""
    torch.manual_seed(0)
    policy_cfg = policy_cfg or policy_config()
    policy = instantiate(OmegaConf.create(policy_cfg))
    normalizer = LinearNormalizer()
    positions, images = torch.tensor([LOW, HIGH]), torch.rand(9, 3, 1, 1)
    normalizer.fit({"robot_eef_pose": positions, "action": positions, "camera_0": images, "camera_1": images})
    policy.set_normalizer(normalizer)
    payload = {"cfg": {"policy": policy_cfg, **cfg}, "state_dicts": {"model": policy.state_dict()}, "values": {}}
    write_checkpoint(path, payload)
    return path
