"""robomimic's tasks through the whole of training: dataset, policy, rollouts in robosuite, checkpoints, evaluation."""

import json
import math

import pytest
from training_log import read_log

from diffusion_policy.workspace.evaluation import evaluate

UNET = "train_diffusion_unet_lowdim_workspace"
IMAGE = "train_diffusion_unet_image_workspace"


@pytest.mark.parametrize("task", ["lift_lowdim", "lift_lowdim_abs", "lift_image_abs"])
def test_tasks_train_and_are_evaluated(make_workspace, lift_demos, lift_abs_demos, tmp_path, task):
    path = lift_abs_demos if task.endswith("abs") else lift_demos
    overrides = [
        f"task={task}",
        f"task.dataset_path={path}",
        "task.env_runner.n_train=1",
        "task.env_runner.n_test=1",
        "task.env_runner.max_steps=8",
        "task.env_runner.n_test_vis=1",
        "training.rollout_every=2",
        "training.checkpoint_every=2",
    ]
    workspace = make_workspace(overrides, config=IMAGE if "image" in task else UNET)
    workspace.run()
    log = read_log(tmp_path / "run")
    assert all(math.isfinite(record["train_loss"]) for record in log)
    assert workspace.policy.normalizer["action"].get_input_stats()["max"].shape == (10 if "abs" in task else 7,)
    expected = {"train/sim_max_reward_0", "train/mean_score", "test/sim_max_reward_100000", "test/mean_score"}
    assert expected <= log[-1].keys()
    assert list((tmp_path / "run" / "media").glob("*.mp4"))

    evaluate(str(tmp_path / "run" / "checkpoints" / "latest.ckpt"), str(tmp_path / "eval"), "cpu", {"n_test_vis": 0})
    scores = json.loads((tmp_path / "eval" / "eval_log.json").read_text())
    assert scores == {key: log[-1][key] for key in expected}
