"""A simulator other than Push-T, by the commands that users type: demonstrations, training, evaluation."""

import json
import math
import subprocess
import sys
from pathlib import Path

import gymnasium
import gymnasium_robotics
import numpy as np
import pytest

from diffusion_policy.common.replay_buffer import ReplayBuffer

pytestmark = pytest.mark.slow

SMALL = [
    "training.device=cpu",
    "training.num_epochs=2",
    "training.max_train_steps=4",
    "training.max_val_steps=1",
    "training.lr_warmup_steps=2",
    "training.rollout_every=2",
    "policy.num_inference_steps=2",
    "dataloader.batch_size=8",
    "dataloader.num_workers=0",
    "val_dataloader.num_workers=0",
    "task.dataset.val_ratio=0.34",
    "task.env_runner.n_test=1",
    "task.env_runner.n_test_vis=1",
    "task.env_runner.max_steps=16",
    "checkpoint.topk.k=0",
    "logging.mode=disabled",
]
UNET = ["policy.model.down_dims=[8,16]", "policy.model.diffusion_step_embed_dim=8"]


def _run(repository, script, *arguments):
    command = [sys.executable, script, *map(str, arguments)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _train_and_evaluate(repository, folder, config, *overrides):
    """What the last rollout of the training logged; evaluation gives the same."""
    run = folder / "run"
    _run(repository, "train.py", f"--config-name={config}", *SMALL, *overrides, f"hydra.run.dir={run}")
    records = [json.loads(line) for line in (run / "logs.json.txt").read_text().splitlines()]
    assert all(math.isfinite(record["train_loss"]) for record in records)
    logged = {key: value for key, value in records[-1].items() if key.startswith(("test/", "train/"))}
    assert list((run / "media").glob("*.mp4"))
    checkpoint = run / "checkpoints" / "latest.ckpt"
    printed = _run(repository, "eval.py", "-c", checkpoint, "-o", folder / "eval", "-d", "cpu")
    evaluated = json.loads((folder / "eval" / "eval_log.json").read_text())
    videos = {key for key in evaluated if "sim_video" in key}
    assert videos
    assert all(Path(evaluated[key]).is_file() for key in videos)
    assert {key: value for key, value in evaluated.items() if key not in videos} == logged
    return logged, printed


def _write_reaching_demonstrations(path, n_episodes=3):
    gymnasium.register_envs(gymnasium_robotics)
    env = gymnasium.make("FetchReach-v4")
    buffer = ReplayBuffer.create_empty_numpy()
    for seed in range(n_episodes):
        obs, _ = env.reset(seed=seed)
        steps = []
        for _ in range(12):
            action = np.append(np.clip(8 * (obs["desired_goal"] - obs["achieved_goal"]), -1, 1), 0)
            steps.append({"observation": obs["observation"], "desired_goal": obs["desired_goal"], "action": action})
            obs, *_ = env.step(action)
        buffer.add_episode({key: np.stack([step[key] for step in steps]).astype(np.float32) for key in steps[0]})
    env.close()
    buffer.save_to_path(path)


def test_an_environment_of_ones_own(repository, tmp_path):
    """With a config and a zarr alone."""
    _write_reaching_demonstrations(tmp_path / "reach.zarr")
    logged, printed = _train_and_evaluate(
        repository,
        tmp_path,
        "train_diffusion_unet_lowdim_workspace",
        "task=gym_lowdim",
        f"task.dataset.zarr_path={tmp_path / 'reach.zarr'}",
        "task.env_runner.n_train=0",
        "+task.env_runner.env_kwargs.width=64",
        "+task.env_runner.env_kwargs.height=48",
        "task.env_runner.steps_per_render=8",
        *UNET,
    )
    assert {"test/mean_score", "test/success_rate", "test/mean_return", "test/sim_max_reward_100000"} <= logged.keys()
    assert "mean max reward" in printed
