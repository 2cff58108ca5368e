"""The configs against those of the original."""

import json

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from diffusion_policy.common.config import register_resolvers

OURS = {"training.device": "auto", "logging.mode": "auto"}  # the defaults that differ on purpose
CONFIGS = [
    "train_diffusion_unet_lowdim_workspace",
    "train_diffusion_unet_ddim_lowdim_workspace",
    "train_diffusion_transformer_lowdim_pusht_workspace",
]


def _compose(repository, name, overrides=()):
    register_resolvers()
    with initialize_config_dir(str(repository / "diffusion_policy" / "config"), version_base=None):
        return compose(name, overrides=list(overrides))


def _flat(node, prefix=""):
    if isinstance(node, dict):
        return {k: v for key, value in node.items() for k, v in _flat(value, f"{prefix}{key}.").items()}
    return {prefix[:-1]: node}


def _depends_on_time(key):
    return key.startswith("multi_run.") or key == "logging.name"


@pytest.mark.parametrize("name", CONFIGS)
def test_resolved_config_equals_the_originals(repository, compat, name):
    expected = _flat(json.loads((compat / "configs.json").read_text())["train"][name]["resolved"])
    cfg = _compose(repository, name)
    actual = _flat(OmegaConf.to_container(cfg, resolve=True))
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        if not _depends_on_time(key):
            assert actual[key] == OURS.get(key, value), key


@pytest.mark.parametrize("name", CONFIGS)
def test_interpolations_equal_the_originals(repository, compat, name):
    facts = json.loads((compat / "configs.json").read_text())
    interpolations = facts["train"][name]["unresolved_interpolations"]
    task = facts["task_files"]["pusht_lowdim"]["unresolved_interpolations"]
    cfg = OmegaConf.to_container(_compose(repository, name), resolve=False)
    for path, text in {**interpolations, **{f"task.{key}": value for key, value in task.items()}}.items():
        node = cfg
        for key in path.split("."):
            node = node[int(key)] if isinstance(node, list) else node[key]
        assert node == text, path


@pytest.mark.parametrize("name", CONFIGS)
def test_output_folders_are_named_as_the_originals(repository, compat, name):
    expected = json.loads((compat / "configs.json").read_text())["train"][name]["hydra_section"]
    with initialize_config_dir(str(repository / "diffusion_policy" / "config"), version_base=None):
        cfg = compose(name, return_hydra_config=True)
    hydra = OmegaConf.to_container(cfg.hydra, resolve=False)
    assert hydra["run"]["dir"] == expected["run"]["dir"]
    for key in ("dir", "subdir"):
        assert hydra["sweep"][key] == expected["sweep"][key]


def test_overrides_reach_what_depends_on_them(repository):
    cfg = _compose(repository, CONFIGS[0], ["n_obs_steps=3", "n_latency_steps=2", "obs_as_global_cond=False"])
    assert cfg.policy.n_action_steps == 10
    assert cfg.task.dataset.pad_before == 4
    assert cfg.policy.model.input_dim == 22
    assert cfg.policy.model.global_cond_dim is None


def test_config_at_the_top_is_a_link(repository):
    assert (repository / "config").is_symlink()
    assert (repository / "config").resolve() == repository / "diffusion_policy" / "config"
