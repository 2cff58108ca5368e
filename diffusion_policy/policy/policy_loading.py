"""The one place where a checkpoint becomes a policy: for evaluation, the robot and the server."""

import logging
import os
from collections.abc import Mapping
from typing import Any

from diffusers import SchedulerMixin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn
from torch.optim import Optimizer

from diffusion_policy.common.checkpoint_file import CheckpointError, read_checkpoint
from diffusion_policy.common.config import ConfigError, instantiate
from diffusion_policy.common.device import resolve_device
from diffusion_policy.common.safe_config import UnsafeConfigError, resolved_config
from diffusion_policy.common.safe_targets import (
    Part,
    check_names,
    check_part,
    check_sizes,
    without_pretrained_weights,
)
from diffusion_policy.policy.size_limit import SizeLimit

log = logging.getLogger(__name__)

POLICY = Part(
    "policy",
    # Backbones are all of robomimic: its VisualCore evaluates the names of classes that it is given as Python.
    (
        "diffusion_policy.policy",
        "diffusion_policy.model",
        "torch.nn",
        "diffusers.schedulers",
        "torchvision",
        "robomimic.models.base_nets",
    ),
    (nn.Module, SchedulerMixin),
)
OPTIMIZER = Part("optimizer", ("torch.optim",), (Optimizer,))


def load_policy(
    path: str | os.PathLike[str], device: str = "auto", trust: bool = False, weights: str | None = None
) -> tuple[Any, DictConfig]:
    """Loads the policy of a checkpoint, of this framework or the original: its moving average if it has one.

    A checkpoint may be a stranger's: its config can have policies, networks and noise schedules of known packages
    built, and nothing else run.

    Args:
        path: a checkpoint of a training run.
        device: "auto", "cpu", "cuda:0", ...
        trust: build and evaluate whatever the config names, and run what the file brings; for your own extensions.
        weights: name of other weights of the checkpoint, such as `model` for those that are not averaged.

    Returns:
        The policy in evaluation mode on the device, and the resolved config of the run that trained it.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointError: if it is damaged, asks for more than it may, or its weights do not fit its config.
        ValueError: if there is no such device.
    """
    target = resolve_device(device)
    payload = read_checkpoint(path, trust=trust)
    try:
        cfg = read_config(payload, trust)
        policy = _build(cfg["policy"], _weights(payload, weights or evaluated_weights(payload)), trust)
        config = OmegaConf.create(cfg)
    except UnsafeConfigError as error:
        raise CheckpointError(
            f"{path} was refused: {error}. If the config is yours or of somebody you trust, --trust (trust=True in "
            "Python) lets it build and run what it names"
        ) from error
    except (ConfigError, CheckpointError, OmegaConfBaseException) as error:
        raise CheckpointError(f"{path} cannot be loaded: {error}") from error
    return policy.to(target).eval(), config


def read_config(payload: Mapping[str, Any], trust: bool = False) -> dict[str, Any]:
    """The config of a checkpoint's payload, resolved, with nothing in it that a stranger's may not name.

    What is built of its policy and optimizer is known to be one.

    Raises:
        UnsafeConfigError: it asks for more than a checkpoint may; `trust` lifts this, with a warning.
        CheckpointError: there is none.
    """
    cfg = payload.get("cfg")
    if not isinstance(cfg, dict) or not isinstance(payload.get("state_dicts"), dict):
        raise CheckpointError("it has no config and weights of a policy")
    if trust:
        log.warning("--trust: the config of this checkpoint may build and run whatever it names")
        cfg = resolved_config(cfg, eval)
    else:
        cfg = resolved_config(cfg)
        check_names(cfg)
    if not isinstance(cfg.get("policy"), dict):
        raise CheckpointError("its config has no policy")
    if not trust:
        check_part(cfg["policy"], POLICY, "policy")
        check_part(cfg.get("optimizer"), OPTIMIZER, "optimizer")
    return cfg


def evaluated_weights(payload: Mapping[str, Any]) -> str:
    """Name of the weights that are evaluated: the moving average if the run kept one, else the policy's own.

    Raises:
        CheckpointError: there are none.
    """
    training = payload["cfg"].get("training")
    if isinstance(training, dict) and training.get("use_ema"):
        return "ema_model"
    return "policy" if "policy" in payload["state_dicts"] else "model"  # BET's workspace calls its own `policy`


def _weights(payload: Mapping[str, Any], name: str) -> dict[str, Any]:
    state_dicts = payload["state_dicts"]
    if not isinstance(state_dicts.get(name), dict):
        raise CheckpointError(f"it has no weights {name!r}; it has {', '.join(map(repr, state_dicts)) or 'none'}")
    return state_dicts[name]


def _build(cfg: dict[str, Any], state: dict[str, Any], trust: bool) -> Any:
    """The policy of a config with the weights of `state`."""
    cfg = without_pretrained_weights(cfg)
    if trust:
        policy = instantiate(OmegaConf.create(cfg), "policy")
    else:
        check_sizes(cfg, "policy")
        try:
            with SizeLimit.of_state(state):
                policy = instantiate(OmegaConf.create(cfg), "policy")
        except ConfigError:
            raise
        except Exception as error:  # whatever a constructor makes of arguments that do not go together
            raise CheckpointError(f"its config builds no policy: {type(error).__name__}: {error}") from error
    try:
        policy.load_state_dict(state)
    except Exception as error:
        raise CheckpointError(f"the weights do not fit its config: {error}") from error
    return policy
