"""The kitchen from demonstrations to scores, through the training that users run."""

import json
import math
from pathlib import Path

import pytest
from training_log import read_log

from diffusion_policy.workspace.evaluation import evaluate


@pytest.mark.parametrize(
    ("config", "task", "data"),
    [
        ("train_diffusion_unet_lowdim_workspace", "kitchen_lowdim", ["task.dataset_dir={demos}"]),
        (
            "train_diffusion_transformer_lowdim_kitchen_workspace",
            "kitchen_lowdim_abs",
            ["task.dataset.dataset_dir={demos}/kitchen_demos_multitask", "task.env_runner.dataset_dir={demos}"],
        ),
    ],
)
def test_tasks_train_and_are_evaluated(make_workspace, kitchen_demos, tmp_path, config, task, data):
    overrides = [
        f"task={task}",
        *(override.format(demos=kitchen_demos) for override in data),
        "task.dataset.val_ratio=0.34",
        "task.env_runner.n_train=1",
        "task.env_runner.n_test=1",
        "task.env_runner.n_test_vis=1",
        "task.env_runner.render_hw=[48,64]",
        "training.rollout_every=2",
    ]
    workspace = make_workspace(overrides, config=config)
    workspace.run()
    log = read_log(tmp_path / "run")
    assert all(math.isfinite(record["train_loss"]) for record in log)
    logged = {key: value for key, value in log[-1].items() if key.startswith(("test/", "train/"))}
    assert {"test/mean_score", "test/p_1", "test/p_7", "test/p_kettle", "train/p_1"} <= logged.keys()
    assert list((tmp_path / "run" / "media").glob("*.mp4"))

    table = evaluate(str(tmp_path / "run" / "checkpoints" / "latest.ckpt"), str(tmp_path / "eval"), "cpu", {})
    evaluated = json.loads((tmp_path / "eval" / "eval_log.json").read_text())
    videos = {key for key in evaluated if "sim_video" in key}
    assert videos
    assert all(Path(evaluated[key]).is_file() for key in videos)
    assert {key: value for key, value in evaluated.items() if key not in videos} == logged
    assert "test/p_1" in table
