"""The one place where a checkpoint becomes a policy: for evaluation, the robot and the server."""

import copy
import os
from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffusion_policy.common.checkpoint_file import CheckpointError, read_checkpoint
from diffusion_policy.common.config import instantiate
from diffusion_policy.common.device import resolve_device


def load_policy(path: str | os.PathLike[str], device: str = "auto") -> tuple[Any, DictConfig]:
    """Loads the policy of a checkpoint: its moving average if it has one.

    Args:
        path: a checkpoint of a training run.
        device: "auto", "cpu", "cuda:0", ...

    Returns:
        The policy in evaluation mode on the device, and the config of the run that trained it.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointError: if it is damaged, or its weights do not fit its config.
        ValueError: if there is no such device.
    """
    target = resolve_device(device)
    payload = read_checkpoint(path)
    cfg = OmegaConf.create(payload["cfg"])
    policy = instantiate(_without_pretrained_weights(cfg.policy), "policy")
    name = "ema_model" if cfg.training.get("use_ema") else "model"
    try:
        policy.load_state_dict(payload["state_dicts"][name])
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"the weights {name!r} of {path} do not fit its config: {error}") from error
    return policy.to(target).eval(), cfg


def _without_pretrained_weights(cfg: DictConfig) -> DictConfig:
    """The policy's config with backbones that start at random: the checkpoint has their weights, a file may be gone."""
    if "obs_encoder" not in cfg or "weights" not in (cfg.obs_encoder.get("rgb_model") or {}):
        return cfg
    cfg = copy.deepcopy(cfg)
    cfg.obs_encoder.rgb_model.weights = None
    return cfg
