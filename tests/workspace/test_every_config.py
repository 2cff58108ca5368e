"""Every config trains, is resumed and evaluated, on Push-T: those for robots and other simulators as well."""

import json
import math
from pathlib import Path

import pytest
from training_log import read_log

from diffusion_policy.workspace.evaluation import evaluate

CONFIG_DIR = Path(__file__).resolve().parents[2] / "diffusion_policy" / "config"
CONFIGS = sorted(path.stem for path in CONFIG_DIR.glob("train_*.yaml"))
WHOLE_WINDOWS = "dataset_obs_steps=${horizon}"
CONDITIONS = [
    ("train_diffusion_unet_lowdim_workspace", ["obs_as_global_cond=false", "obs_as_local_cond=true"]),
    ("train_diffusion_unet_lowdim_workspace", ["obs_as_global_cond=false"]),
    ("train_diffusion_transformer_lowdim_pusht_workspace", ["obs_as_cond=false"]),
    ("train_diffusion_unet_image_workspace", ["obs_as_global_cond=false", WHOLE_WINDOWS]),
    ("train_diffusion_unet_hybrid_workspace", ["obs_as_global_cond=false", WHOLE_WINDOWS]),
    ("train_diffusion_transformer_hybrid_workspace", ["obs_as_cond=false", WHOLE_WINDOWS]),
    ("train_diffusion_unet_video_workspace", ["lowdim_as_global_cond=false", WHOLE_WINDOWS]),
]


def _name(value):
    return value if isinstance(value, str) else ",".join(value) or "unchanged"


@pytest.mark.parametrize(("config", "condition"), [*((config, []) for config in CONFIGS), *CONDITIONS], ids=_name)
def test_every_config_trains_resumes_and_evaluates(make_workspace, few_demonstrations, tmp_path, config, condition):
    overrides = [f"task.dataset.zarr_path={few_demonstrations}", "training.checkpoint_every=1", *condition]
    run = tmp_path / "run"
    for n_epochs in (1, 2):
        workspace = make_workspace([*overrides, f"training.num_epochs={n_epochs}"], config=config)
        workspace.run()
        assert (workspace.epoch, len(list((run / "checkpoints").glob("epoch=*")))) == (n_epochs, n_epochs)

    log = read_log(run)
    n_steps = workspace.cfg.training.max_train_steps
    assert [record["epoch"] for record in log] == [0] * n_steps + [1] * n_steps
    assert [record["global_step"] for record in log] == list(range(2 * n_steps))
    for record in (log[n_steps - 1], log[-1]):
        assert math.isfinite(record["val_loss"])
    assert all(math.isfinite(record["train_loss"]) for record in log)

    evaluate(str(run / "checkpoints" / "latest.ckpt"), str(tmp_path / "eval"), "cpu", {})
    scores = {key: value for key, value in log[-1].items() if key.startswith("test/")}
    assert scores.keys() >= {"test/mean_score", "test/sim_max_reward_100000", "test/sim_max_reward_100001"}
    assert json.loads((tmp_path / "eval" / "eval_log.json").read_text()) == scores


@pytest.mark.parametrize("config", ["train_diffusion_unet_image_workspace", "train_diffusion_unet_lowdim_workspace"])
@pytest.mark.parametrize(
    ("scheduler", "prediction_type"), [("dpmsolver", "epsilon"), ("ddpm", "sample"), ("ddpm", "v_prediction")]
)
def test_other_schedulers_and_predictions(
    make_workspace, few_demonstrations, tmp_path, config, scheduler, prediction_type
):
    overrides = [
        f"task.dataset.zarr_path={few_demonstrations}",
        f"noise_scheduler@policy.noise_scheduler={scheduler}",
        f"policy.noise_scheduler.prediction_type={prediction_type}",
        "policy.num_inference_steps=4",
        "training.num_epochs=1",
    ]
    workspace = make_workspace(overrides, config=config)
    workspace.run()
    assert workspace.policy.num_inference_steps == 4
    scheduler_config = workspace.policy.noise_scheduler.config
    assert scheduler_config.prediction_type == prediction_type
    assert ("solver_order" in scheduler_config) == (scheduler == "dpmsolver")
    log = read_log(tmp_path / "run")
    assert len(log) == workspace.cfg.training.max_train_steps
    losses = [record["train_loss"] for record in log]
    assert all(math.isfinite(value) for value in (*losses, log[-1]["val_loss"], log[-1]["train_action_mse_error"]))
    assert 0 <= log[-1]["test/mean_score"] <= 1
