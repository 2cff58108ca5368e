"""Names, shapes and order of weights of every composed config against the original's, whose checkpoints must load."""

import json
from functools import cache
from pathlib import Path

import hydra
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from diffusion_policy.common.config import register_resolvers
from diffusion_policy.model.common.normalize_util import get_image_range_normalizer
from diffusion_policy.model.common.normalizer import LinearNormalizer

CONFIG_DIR = Path(__file__).resolve().parents[2] / "diffusion_policy" / "config"
CONFIGS = sorted(path.stem for path in CONFIG_DIR.glob("train_*.yaml"))
NO_FACTS = {"train_diffusion_unet_video_workspace", "train_diffusion_unet_franka_image_workspace"}
"""The original's cannot be built, or is not among its published ones."""


@pytest.fixture(scope="module", autouse=True)
def _hydra():
    register_resolvers()
    with initialize_config_dir(str(CONFIG_DIR), version_base=None):
        yield


@cache
def _compose(config, task):
    overrides = [f"task={task}"]
    if "pretrained" in config:
        overrides.append("policy.obs_encoder.rgb_model.weights=null")  # they cannot be downloaded in a test
    cfg = compose(config, overrides=overrides)
    OmegaConf.resolve(cfg)
    return cfg


def _policy(cfg):
    """The policy, without memory for its weights."""
    with torch.device("meta"):
        return hydra.utils.instantiate(cfg.policy)


def _normalizer(cfg):
    normalizer = LinearNormalizer()
    if "obs_dim" in cfg:
        shapes = {"action": [cfg.action_dim], "obs": [cfg.obs_dim]}
    else:
        shapes = {"action": cfg.shape_meta.action.shape}
        for key, attributes in cfg.shape_meta.obs.items():
            if attributes.get("type") == "rgb":
                normalizer[key] = get_image_range_normalizer()
            else:
                shapes[key] = attributes.shape
    normalizer.fit({key: torch.rand(4, *shape) for key, shape in shapes.items()})
    return normalizer


@pytest.mark.parametrize("config", [config for config in CONFIGS if config not in NO_FACTS])
def test_names_and_shapes_are_those_of_the_originals_checkpoints(compat, config):
    files = sorted((compat / "state_dicts").glob(f"{config}__*.json"))
    assert files
    for file in files:
        cfg = _compose(config, file.stem.split("__")[1])
        policy = _policy(cfg)
        policy.set_normalizer(_normalizer(cfg))
        if hasattr(policy, "fit_action_ae"):
            policy.fit_action_ae(torch.rand(cfg.policy.action_ae.num_bins, cfg.action_dim))
        actual = {
            key: [*value.shape, str(value.dtype).removeprefix("torch.")] for key, value in policy.state_dict().items()
        }
        expected = json.loads(file.read_text())
        assert actual == expected, file.stem
        fields = [key for key in expected if not key.startswith("normalizer.")]
        assert [key for key in actual if key in set(fields)] == fields, file.stem


@pytest.mark.parametrize("config", [name for name in CONFIGS if name not in NO_FACTS and "robomimic" not in name])
def test_optimizers_list_parameters_as_the_originals_checkpoints(compat, config):
    facts = json.loads((compat / "state_dicts" / "_optimizer_param_order.json").read_text())["configs"]
    (name,) = [name for name in facts if name.startswith(f"{config}__")]
    cfg = _compose(config, name.split("__")[1])
    policy = _policy(cfg)
    names = {id(parameter): name for name, parameter in policy.named_parameters()}
    if "_target_" in cfg.optimizer:
        optimizer = hydra.utils.instantiate(cfg.optimizer, params=policy.parameters())
    else:
        optimizer = policy.get_optimizer(**cfg.optimizer)
    assert type(optimizer).__name__ == facts[name]["class"]
    assert len(optimizer.param_groups) == len(facts[name]["groups"])
    for group, expected in zip(optimizer.param_groups, facts[name]["groups"], strict=True):
        assert [names[id(parameter)] for parameter in group["params"]] == expected["param_names_in_order"]
        for key in ("lr", "weight_decay", "eps"):
            assert group[key] == expected[key]
        assert list(group["betas"]) == expected["betas"]
