"""What a training's config may say, of itself and of its policy."""

import copy
import inspect
import logging
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.utils.data import DataLoader

from diffusion_policy.common.config import ConfigError, check_keys

logger = logging.getLogger(__name__)

# Ours and those of all the original's configs: a method may leave some unread.
TRAINING_KEYS = (
    *("device", "data_device", "step", "precision", "seed", "debug", "resume", "log_every", "tqdm_interval_sec"),
    *("lr_scheduler", "lr_warmup_steps", "num_epochs", "gradient_accumulate_every", "grad_norm_clip"),
    *("noise_draws", "process_timeout_sec"),
    *("use_ema", "freeze_encoder", "enable_normalizer", "max_train_steps", "max_val_steps", "sample_max_batch"),
    *("rollout_every", "checkpoint_every", "val_every", "sample_every", "eval_every", "eval_first"),
)
CHECKPOINT_KEYS = ("topk", "save_last_ckpt", "save_last_snapshot", "on_save_error")
ON_SAVE_ERROR = ("warn", "raise")
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
DEBUG_TRAINING = {"num_epochs": 2, "max_train_steps": 3, "max_val_steps": 3} | {
    f"{what}_every": 1 for what in ("rollout", "checkpoint", "val", "sample")
}


def with_debug(cfg: DictConfig) -> DictConfig:
    """A copy of the config, cut down to a run of seconds if `training.debug` is set."""
    cfg = copy.deepcopy(cfg)
    if cfg.training.get("debug"):
        OmegaConf.update(cfg, "training", DEBUG_TRAINING, merge=True, force_add=True)
    return cfg


def check_config(cfg: DictConfig) -> None:
    """Refuses, before anything is built, keys that nothing reads and counts that make no sense.

    Raises:
        ConfigError: naming the key, what was given and what was expected.
    """
    sections = {"training": TRAINING_KEYS, "checkpoint": CHECKPOINT_KEYS}
    sections |= dict.fromkeys(("dataloader", "val_dataloader"), tuple(inspect.signature(DataLoader).parameters))
    for section, known in sections.items():
        check_keys(map(str, cfg.get(section, ())), known, section)
    for key, value in cfg.training.items():
        if (key == "num_epochs" or str(key).endswith("_every")) and value < 1:
            raise ConfigError(f"training.{key!s} must be at least 1, got {value}")
    on_save_error = cfg.checkpoint.get("on_save_error", "warn")
    if on_save_error not in ON_SAVE_ERROR:
        raise ConfigError(f"checkpoint.on_save_error must be warn or raise, got {on_save_error!r}")
    max_norm = cfg.training.get("grad_norm_clip")
    if max_norm is not None and max_norm <= 0:
        raise ConfigError(f"training.grad_norm_clip must be above 0, or null for no clipping, got {max_norm}")


def check_encoder(model: Any, training: DictConfig) -> None:
    """Warns of batch norm that is averaged while it learns, and refuses to freeze what is not there.

    Raises:
        ConfigError: `training.freeze_encoder` is set, and the policy has no `obs_encoder`.
    """
    frozen = bool(training.get("freeze_encoder"))
    if frozen and not hasattr(model, "obs_encoder"):
        raise ConfigError(f"training.freeze_encoder: {type(model).__name__} has no obs_encoder")
    norms = [name for name, module in model.named_modules() if isinstance(module, BATCH_NORMS)]
    norms = [name for name in norms if not (frozen and name.startswith("obs_encoder."))]
    if norms and training.get("use_ema"):
        logger.warning(
            "Batch norm (%s%s) together with training.use_ema is known to hurt: the moving average keeps the "
            "running statistics that it starts with. Use group norm (use_group_norm or obs_encoder_group_norm).",
            norms[0],
            f" and {len(norms) - 1} more" if norms[1:] else "",
        )


def set_noise_draws(model: Any, draws: int) -> None:
    """Has the loss look at so many noises for each sample.

    Raises:
        ConfigError: that is no number of draws, or the policy draws no noise.
    """
    if draws < 1 or (draws > 1 and not hasattr(model, "noise_draws")):
        of_policy = "at least 1" if draws < 1 else f"1: {type(model).__name__} draws no noise"
        raise ConfigError(f"training.noise_draws must be {of_policy}, got {draws}")
    if hasattr(model, "noise_draws"):
        model.noise_draws = draws
