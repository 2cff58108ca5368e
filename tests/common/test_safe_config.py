import json

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from diffusion_policy.common.config import ConfigError, register_resolvers
from diffusion_policy.common.safe_config import UnsafeConfigError, resolved_config


def test_interpolations_mean_what_they_mean_to_omegaconf(monkeypatch):
    cfg = {
        "n": 2,
        "flag": True,
        "kind": "mh",
        "task": {"obs_dim": 20, "shape": {"obs": [3, "${n}"]}, "sibling": "${.obs_dim}", "up": "${..n}"},
        "steps": "${eval:'${n}-1+${task.obs_dim}'}",
        "cond": "${eval: ${task.obs_dim}*${n} if ${flag} else None}",
        "max": '${eval:\'500 if "${kind}" == "mh" else 400\'}',
        "name": "run_${kind}_${n}",
        "shape": "${task.shape}",
        "through": "${shape.obs[1]}",
        "nested": "${task.${which}}",
        "which": "obs_dim",
        "list": ["${n}", {"a": "${kind}"}],
    }
    register_resolvers()
    expected = OmegaConf.to_container(OmegaConf.create(cfg), resolve=True)
    assert resolved_config(cfg) == expected


@pytest.mark.parametrize("config", ["train_diffusion_unet_lowdim_workspace", "train_diffusion_unet_hybrid_workspace"])
def test_unresolved_configs_of_runs_resolve_alike(repository, config):
    register_resolvers()
    with initialize_config_dir(str(repository / "diffusion_policy" / "config"), version_base=None):
        cfg = compose(config)
    plain = OmegaConf.to_container(cfg, resolve=False)
    for section in ("multi_run", "logging"):  # they hold the time
        plain.pop(section)
    text = json.dumps(plain)
    assert "${eval:" in text
    assert resolved_config(plain) == OmegaConf.to_container(OmegaConf.create(plain), resolve=True)


def test_now_is_the_present_time():
    assert resolved_config({"day": "runs/${now:%Y}"})["day"].startswith("runs/2")


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"a": "${eval:__import__('os').getcwd()}"}, "a of the config: .* is not arithmetic"),
        ({"a": {"b": ["${eval:'9**9**9'}"]}}, r"a\.b\.0 of the config"),
        ({"a": "${oc.env:HOME}"}, r"resolver 'oc\.env'"),
        ({"a": "${oc.decode:x}"}, "resolver"),
        ({"a": "${hydra:runtime.cwd}"}, "resolver"),
        ({"a": "$", "b": "${a}{oc.env:HOME}"}, "from pieces"),
        ({"a": "${eval:\"'$'\"}", "b": "${a}{oc.env:HOME}"}, "from pieces"),
    ],
)
def test_more_than_data_is_refused(cfg, message):
    with pytest.raises(UnsafeConfigError, match=message):
        resolved_config(cfg)


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"a": "${b}", "b": "${a}"}, "refers to itself"),
        ({"a": {"b": "${a}"}}, "refers to itself|more values"),
        ({"a": "${nothing.there}"}, r"\$\{nothing\.there\}, which is not there"),
        ({"a": "${....b}"}, "above the top"),
        ({"a": "${b"}, "without end"),
        ({"a": "${" * 400 + "}" * 400}, "without end|not there"),
        ({"a": "x" * 10_001 + "${b}"}, "longer than"),
        ({"a0": "x" * 99, **{f"a{i + 1}": f"${{a{i}}}${{a{i}}}" for i in range(30)}}, "more than 10000 characters"),
        ({"a0": ["x"] * 9, **{f"a{i + 1}": [f"${{a{i}}}"] * 9 for i in range(30)}}, "more values than any config"),
    ],
)
def test_endless_and_broken_interpolations_are_explained(cfg, message):
    with pytest.raises(ConfigError, match=message):
        resolved_config(cfg)
