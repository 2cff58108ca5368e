import pytest
from omegaconf import OmegaConf

from diffusion_policy.common.config import ConfigError, check_keys, instantiate

EMA = "diffusion_policy.model.diffusion.ema_model.EMAModel"


def test_builds_with_given_and_further_arguments():
    linear = instantiate(OmegaConf.create({"_target_": "torch.nn.Linear", "in_features": 2}), "net", out_features=3)
    assert linear.weight.shape == (3, 2)


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"_target_": EMA, "powr": 1}, r"unknown key 'powr' in ema \(.*EMAModel\): did you mean 'power'\?"),
        ({"_target_": EMA + "l"}, r"ema\._target_=.*EMAModell cannot be imported"),
        ({"power": 1}, "ema has no _target_"),
    ],
)
def test_wrong_configs_are_explained(cfg, message):
    with pytest.raises(ConfigError, match=message):
        instantiate(OmegaConf.create(cfg), "ema")


def test_nested_targets_are_checked_too():
    cfg = {"_target_": EMA, "model": {"_target_": "torch.nn.Linear", "in_feature": 2}}
    with pytest.raises(ConfigError, match=r"unknown key 'in_feature' in policy\.model"):
        instantiate(OmegaConf.create(cfg), "policy")


def test_check_keys_accepts_what_is_known():
    check_keys(["a"], ["a", "b"], "training")
    with pytest.raises(ConfigError, match="unknown key 'z' in training: It takes a, b"):
        check_keys(["z"], ["a", "b"], "training")
