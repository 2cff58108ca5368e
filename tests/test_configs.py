"""The configs against those of the original, each with every task that fits it."""

import json
import re
from collections import defaultdict
from pathlib import Path

import hydra.utils
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from diffusion_policy.common.config import register_resolvers
from diffusion_policy.common.shape_meta import ShapeMeta

CONFIG_DIR = Path(__file__).resolve().parents[1] / "diffusion_policy" / "config"
FRANKA, PEG_IN_HOLE = "train_diffusion_unet_franka_image_workspace", "franka_peg_in_hole_image"
OWN_TASKS = {"gym_lowdim", "sim_pusht_image", PEG_IN_HOLE}
CONFIGS = sorted({path.stem for path in CONFIG_DIR.glob("train_*.yaml")} - {FRANKA})
TASKS = sorted({path.stem for path in CONFIG_DIR.glob("task/*.yaml")} - OWN_TASKS)
IMAGE_TASKS = [task for task in TASKS if "lowdim" not in task]
TOP_LEVEL = ["name", "task_name", "horizon", "n_obs_steps", "n_action_steps", "obs_dim", "action_dim", "keypoint_dim"]
VIDEO = "train_diffusion_unet_video_workspace"
FITTING = [
    (name, task)
    for name in CONFIGS
    for task in (["pusht_image"] if name == VIDEO else TASKS)  # the original's video config takes no other
    if ("lowdim" in name) == ("lowdim" in task)
]

# What differs from the original on purpose.
GONE = object()
EVERYWHERE = {
    "training.device": "auto",
    "training.data_device": "auto",
    "training.step": "auto",
    "training.precision": "auto",
    "training.log_every": 50,
    "training.process_timeout_sec": 1800,
    "logging.mode": "auto",
    "checkpoint.on_save_error": "warn",
}
OF_DIFFUSION = {"training.grad_norm_clip": None, "training.noise_draws": 1}
# robomimic's learning rate is constant; ours can be scheduled, and gradients accumulated and clipped.
OF_ROBOMIMIC = {
    "training.lr_scheduler": "constant",
    "training.lr_warmup_steps": 0,
    "training.gradient_accumulate_every": 1,
    "training.grad_norm_clip": None,
    "training.sample_every": 5,
}
OF_METHOD = {
    "train_bet": {},
    "train_ibc": {"training.grad_norm_clip": None},
    "train_robomimic": OF_ROBOMIMIC,
    "train_diffusion": OF_DIFFUSION,
}
# The original's Push-T dataset loads all frames of a window and knows nothing of shapes; ours is told both.
PUSHT_IMAGE_DATASET = {"n_obs_steps": "dataset_obs_steps", "shape_meta": "shape_meta"}
# The original's never ran: it names classes that do not exist, lacks keys that its tasks need, and monitors a score
# that no runner has. Ours keeps its hyperparameters, in a training like the others.
VIDEO_DIFFERS = {
    "n_latency_steps": 0,
    "dataset_obs_steps": 4,
    "policy.rgb_net._target_": "diffusion_policy.model.vision.video_core.VideoCore",
    "policy.rgb_net.backbone._target_": "diffusion_policy.model.vision.video_core.VideoResNet",
    "policy.rgb_net.pool._target_": "torch.nn.AdaptiveAvgPool3d",
    "policy.rgb_net.pool.output_size": 1,
    "policy.rgb_net.pool.dim": GONE,
    "dataloader.persistent_workers": False,
    "val_dataloader.batch_size": 64,
    "val_dataloader.num_workers": 8,
    "val_dataloader.shuffle": False,
    "val_dataloader.pin_memory": True,
    "val_dataloader.persistent_workers": False,
    "training.debug": False,
    "training.resume": True,
    "training.use_ema": True,
    "training.rollout_every": 50,
    "training.checkpoint_every": 50,
    "training.val_every": 1,
    "training.sample_every": 5,
    "training.eval_every": GONE,
    "training.eval_first": GONE,
    "training.max_train_steps": None,
    "training.max_val_steps": None,
    "checkpoint.topk.monitor_key": "test_mean_score",
    "checkpoint.topk.format_str": "epoch={epoch:04d}-test_mean_score={test_mean_score:.3f}.ckpt",
    "checkpoint.save_last_ckpt": True,
    "multi_run.run_dir": None,  # not compared: it holds the time
    "multi_run.wandb_name_base": None,
    "task.dataset.pad_before": 3,
    "task.dataset.n_obs_steps": 4,
}


@pytest.fixture(scope="module", autouse=True)
def _hydra():
    register_resolvers()
    with initialize_config_dir(str(CONFIG_DIR), version_base=None):
        yield


@pytest.fixture(scope="module")
def facts(compat):
    return json.loads((compat / "configs.json").read_text())


def _resolved(cfg):
    return OmegaConf.to_container(cfg, resolve=True)


def _flat(node, prefix=""):
    if isinstance(node, dict):
        return {k: v for key, value in node.items() for k, v in _flat(value, f"{prefix}{key}.").items()}
    return {prefix[:-1]: node}


def _differing(expected, differences):
    return {key: value for key, value in {**_flat(expected), **differences}.items() if value is not GONE}


def _without_time(flat):
    return {k: None if k.startswith("multi_run.") or k == "logging.name" else v for k, v in flat.items()}


def _task_section(cfg, task):
    """The section `task`, without what ours adds on purpose."""
    added = PUSHT_IMAGE_DATASET if task == "pusht_image" else {}
    dataset = dict(cfg["task"]["dataset"])
    assert dataset.pop("in_memory", "auto") == "auto"
    for key, source in added.items():
        assert dataset.pop(key) == cfg[source]
    return {**cfg["task"], "dataset": dataset}


def _written(cfg, path, expected):
    """What is written at a path, before interpolation. Where the original repeats a value, ours refers to it."""
    node = cfg
    for key in path.split("."):
        node = node[int(key)] if isinstance(node, list) else node[key]
        reference = re.fullmatch(r"\$\{(task\.[\w.]+)\}", node) if isinstance(node, str) else None
        if reference and node != expected:
            node = _written(cfg, reference[1], expected)
    return node


def _targets(node, prefix=""):
    here = {prefix[:-1]: node["_target_"]} if "_target_" in node else {}
    below = (_targets(value, f"{prefix}{key}.") for key, value in node.items() if isinstance(value, dict))
    return {**here, **{path: target for targets in below for path, target in targets.items()}}


def test_every_config_and_task_of_the_original_exists(facts):
    assert set(facts["train"]) <= set(CONFIGS)
    assert set(facts["task_files"]) == set(TASKS)


@pytest.mark.parametrize("name", CONFIGS)
def test_resolved_config_equals_the_originals(facts, name):
    cfg = _resolved(compose(name))
    actual = _flat({**cfg, "task": _task_section(cfg, facts["train"][name]["default_task"])})
    (of_method,) = (differences for start, differences in OF_METHOD.items() if name.startswith(start))
    differences = {**EVERYWHERE, **of_method, **(VIDEO_DIFFERS if name == VIDEO else {})}
    expected = _differing(facts["train"][name]["resolved"], differences)
    assert _without_time(actual) == _without_time(expected)


@pytest.mark.parametrize(("name", "task"), FITTING)
def test_config_with_a_task_equals_the_originals(facts, name, task):
    expected = facts["train"][name]["combos"][task]
    raw = compose(name, overrides=[f"task={task}"])
    cfg = _resolved(raw)
    for key in TOP_LEVEL:
        assert cfg.get(key) == expected.get(key), key
    assert cfg["n_latency_steps"] == (expected["n_latency_steps"] or 0)
    assert cfg["_target_"] == expected["workspace_target"]
    assert cfg["policy"]["_target_"] == expected["policy_target"]
    targets = expected["targets"]
    if name == VIDEO:
        targets = {path: VIDEO_DIFFERS.get(f"{path}._target_", target) for path, target in targets.items()}
    assert _targets(cfg) == targets
    for key, value in expected["policy_scalars"].items():
        assert cfg["policy"][key] == value, key
    if "task_resolved" in expected:
        assert _task_section(cfg, task) == expected["task_resolved"]
        # Features are concatenated in this order.
        keys, expected_keys = (list(c.get("shape_meta", {}).get("obs", {})) for c in (cfg, expected["task_resolved"]))
        assert keys == expected_keys

    interpolations = facts["train"][name]["unresolved_interpolations"]
    of_task = {f"task.{path}": text for path, text in facts["task_files"][task]["unresolved_interpolations"].items()}
    written = OmegaConf.to_container(raw, resolve=False)
    for path, text in {**interpolations, **of_task}.items():
        assert _written(written, path, text) == text, path


@pytest.mark.parametrize("task", IMAGE_TASKS)
def test_video_config_takes_every_image_task(facts, task):
    """Held against the original's facts for a method with two observed steps."""
    hybrid = facts["train"]["train_diffusion_unet_hybrid_workspace"]
    expected = hybrid["combos"][task].get("task_resolved", hybrid["resolved"]["task"])
    video = _resolved(compose(VIDEO, overrides=[f"task={task}", "n_obs_steps=2"]))
    assert _task_section(video, task) == expected
    assert video["policy"]["shape_meta"] == expected["shape_meta"]
    assert video["dataset_obs_steps"] == 2


@pytest.mark.parametrize("name", CONFIGS)
def test_output_folders_are_named_as_the_originals(facts, name):
    expected = facts["train"][name]["hydra_section"]
    hydra_section = OmegaConf.to_container(compose(name, return_hydra_config=True).hydra, resolve=False)
    assert hydra_section["run"]["dir"] == expected["run"]["dir"]
    for key in ("dir", "subdir"):
        assert hydra_section["sweep"][key] == expected["sweep"][key]


def test_overrides_reach_what_depends_on_them():
    overrides = ["n_obs_steps=3", "n_latency_steps=2", "obs_as_global_cond=False"]
    cfg = compose("train_diffusion_unet_lowdim_workspace", overrides=overrides)
    assert cfg.policy.n_action_steps == 10
    assert cfg.task.dataset.pad_before == 4
    assert cfg.policy.model.input_dim == 22
    assert cfg.policy.model.global_cond_dim is None


@pytest.mark.parametrize("task", ["can_image", "pusht_image", "real_pusht_image"])
def test_overrides_reach_what_depends_on_them_with_images(task):
    overrides = [f"task={task}", "n_obs_steps=3", "+task.shape_meta.obs.extra={shape: [7], type: low_dim}"]
    cfg = compose("train_diffusion_unet_image_workspace", overrides=overrides)
    assert cfg.task.dataset.n_obs_steps == 3
    assert cfg.task.dataset.pad_before == 2
    for section in (cfg.policy, cfg.policy.obs_encoder, cfg.task.dataset, cfg):
        assert section.shape_meta.obs.extra.shape == [7]


def test_franka_sees_one_step_of_three_cameras():
    cfg = compose(FRANKA)
    assert (cfg.task_name, cfg.n_obs_steps, cfg.policy.n_obs_steps, cfg.task.dataset.pad_before) == (
        PEG_IN_HOLE,
        1,
        1,
        0,
    )
    meta = ShapeMeta.parse(OmegaConf.to_container(cfg.shape_meta, resolve=True))
    assert meta.obs == {**{f"camera_{i}": (3, 480, 640) for i in range(3)}, "robot_eef_pose": (7,)}
    assert meta.action_dim == 7
    assert cfg.policy.obs_encoder.resize_shape == [240, 320]
    assert cfg._target_.endswith("TrainDiffusionUnetImageWorkspace")
    assert cfg.policy.noise_scheduler._target_.endswith("DDIMScheduler")


@pytest.mark.parametrize("task", ["can_image", "can_lowdim_abs"])
def test_one_override_moves_a_robomimic_dataset(task):
    name = "train_diffusion_unet_hybrid_workspace" if "image" in task else "train_diffusion_unet_lowdim_workspace"
    cfg = compose(name, overrides=[f"task={task}", "task.dataset_type=mh"])
    assert "/mh/" in cfg.task.dataset.dataset_path
    assert cfg.task.env_runner.max_steps == 500
    cfg = compose(name, overrides=[f"task={task}", "task.dataset_path=mine.hdf5"])
    assert cfg.task.dataset.dataset_path == cfg.task.env_runner.dataset_path == "mine.hdf5"


@pytest.mark.parametrize("name", [name for name in CONFIGS if "diffusion" in name])
def test_every_diffusion_config_takes_another_scheduler(name):
    overrides = ["noise_scheduler@policy.noise_scheduler=dpmsolver", "policy.num_inference_steps=10"]
    cfg = compose(name, overrides=overrides)
    assert cfg.policy.noise_scheduler._target_.endswith("DPMSolverMultistepScheduler")
    assert cfg.policy.num_inference_steps == 10


@pytest.mark.parametrize("scheduler", ["ddpm", "ddim", "dpmsolver"])
def test_schedulers_stand_an_inexact_denoiser(scheduler):
    """Late diffusion steps hold 1/2000 of the signal: there an error of 1 % in the noise is 20 in the signal."""
    name = "train_diffusion_unet_hybrid_workspace"
    cfg = compose(name, overrides=[f"noise_scheduler@policy.noise_scheduler={scheduler}"])
    scheduler = hydra.utils.instantiate(cfg.policy.noise_scheduler)
    scheduler.set_timesteps(10)
    clean = torch.linspace(-0.9, 0.9, 32).reshape(1, 16, 2)
    sample = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    for step in scheduler.timesteps:
        alpha_bar = scheduler.alphas_cumprod[step]
        noise = (sample - alpha_bar.sqrt() * clean) / (1 - alpha_bar).sqrt()
        sample = scheduler.step(noise + 0.01, step, sample, generator=torch.Generator().manual_seed(0)).prev_sample
    assert (sample - clean).abs().max() < 0.1


def test_no_yaml_repeats_another():
    """No six lines in a row, comments apart, stand in two files: what is shared is inherited."""
    places = defaultdict(set)
    for path in sorted(CONFIG_DIR.rglob("*.yaml")):
        lines = [line.split(" #")[0].strip() for line in path.read_text().splitlines()]
        lines = [line for line in lines if line and not line.startswith("#")]
        for start in range(len(lines) - 5):
            places[tuple(lines[start : start + 6])].add(path.relative_to(CONFIG_DIR).as_posix())
    assert {lines: files for lines, files in places.items() if len(files) > 1} == {}


def test_config_at_the_top_is_a_link(repository):
    assert (repository / "config").is_symlink()
    assert (repository / "config").resolve() == repository / "diffusion_policy" / "config"


def test_recipe_is_the_full_training_but_for_what_it_says():
    changed = {"name", "task.dataset.max_train_episodes", "optimizer.lr", "training.num_epochs"}
    changed |= {f"training.{what}_every" for what in ("rollout", "checkpoint", "val", "sample")}
    recipe = _without_time(_flat(_resolved(compose("pusht_in_minutes"))))
    full = _without_time(_flat(_resolved(compose("train_diffusion_unet_lowdim_workspace"))))
    of_name = {key for key, value in recipe.items() if "pusht_in_minutes" in str(value)}
    assert {key for key in recipe if recipe[key] != full[key]} - of_name == changed - {"name"}
    assert recipe.keys() == full.keys()
