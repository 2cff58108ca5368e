"""The one place where a checkpoint becomes a policy: for evaluation, the robot and the server."""

import os
from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffusion_policy.common.checkpoint_file import CheckpointError, read_checkpoint
from diffusion_policy.common.config import instantiate
from diffusion_policy.common.device import resolve_device

BACKBONES = "diffusion_policy.model.vision.model_getter"


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

    def replaced(node: Any) -> Any:
        if isinstance(node, list):
            return [replaced(value) for value in node]
        if not isinstance(node, dict):
            return node
        node = {key: replaced(value) for key, value in node.items()}
        if node.get("_target_") in (f"{BACKBONES}.get_resnet", f"{BACKBONES}.get_r3m"):
            node |= {"_target_": f"{BACKBONES}.get_resnet", "weights": None}
        return node

    return OmegaConf.create(replaced(OmegaConf.to_container(cfg)))
