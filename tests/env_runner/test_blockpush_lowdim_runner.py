import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runner_log import scores, video_sizes
from torch import Tensor

pytest.importorskip("pybullet", reason="block pushing needs pybullet (pip install 'diffusion_policy[sim]')")

from diffusion_policy.env.block_pushing.block_pushing_multimodal import BlockPushMultimodal
from diffusion_policy.env.block_pushing.oracles.multimodal_push_oracle import MultimodalOrientedPushOracle
from diffusion_policy.env_runner.blockpush_lowdim_runner import BlockPushLowdimRunner

Obs = dict[str, Tensor]
COLUMNS = {
    "block_translation": slice(0, 2),
    "block2_translation": slice(3, 5),
    "effector_target_translation": slice(8, 10),
    "target_translation": slice(10, 12),
    "target2_translation": slice(13, 15),
}


class Oracle:
    """The demonstrator as a policy, one for each episode, one action at a time."""

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, env: Any) -> None:
        self.env = env

    def reset(self) -> None:
        self.oracles: list[MultimodalOrientedPushOracle] = []

    def predict_action(self, obs_dict: Obs, generator: list[torch.Generator] | None = None) -> Obs:
        rows = obs_dict["obs"][:, -1].numpy()
        self.oracles = self.oracles or [MultimodalOrientedPushOracle(self.env, seed=i) for i in range(len(rows))]
        seen = [{key: row[columns] for key, columns in COLUMNS.items()} for row in rows]
        actions = [oracle.action(obs) for oracle, obs in zip(self.oracles, seen, strict=True)]
        return {"action": torch.from_numpy(np.stack(actions))[:, None]}


class Shaking:
    """Goes over the table with noise of its own in each episode, and remembers what it has seen."""

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def reset(self) -> None:
        pass

    def predict_action(self, obs_dict: Obs, generator: list[torch.Generator] | None = None) -> Obs:
        assert generator is not None
        self.seen.append(obs_dict["obs"])
        noise = torch.stack([torch.randn(8, 2, generator=g) for g in generator])
        return {"action": torch.tensor((0.005, 0.012)) + 0.015 * noise}


@pytest.fixture
def make_runner(tmp_path: Path, closed_at_end: Callable[[Any], Any]) -> Callable[..., BlockPushLowdimRunner]:
    small = {"n_train": 1, "n_train_vis": 1, "n_test": 3, "n_test_vis": 0, "max_steps": 24, "n_obs_steps": 2}
    return lambda **kwargs: closed_at_end(BlockPushLowdimRunner(tmp_path, **{**small, **kwargs}))


@pytest.mark.parametrize("abs_action", [False, True])
def test_oracle_scores_both_blocks(make_runner: Callable[..., BlockPushLowdimRunner], abs_action: bool) -> None:
    env = BlockPushMultimodal(abs_action=abs_action)
    runner = make_runner(n_train=0, n_test=2, max_steps=200, test_start_seed=100000, abs_action=abs_action, n_envs=2)
    log = runner.run(Oracle(env))
    env.close()
    assert log["test/sim_max_reward_100000"] == log["test/sim_max_reward_100001"] == 1.0
    assert log["test/mean_score"] == log["test/p1"] == log["test/p2"] == 1.0
    assert log["test/REACH_0"] == log["test/REACH_1"] == 1.0
    events = [log[f"test/TARGET_{block}_{target}"] for block in (0, 1) for target in (0, 1)]
    assert sum(events) == 2.0
    assert events[0] == events[3]
    assert events[1] == events[2]


def test_scores_depend_on_seeds_alone_and_videos_are_written(
    make_runner: Callable[..., BlockPushLowdimRunner],
) -> None:
    log = make_runner(n_envs=4).run(Shaking())
    assert log.keys() >= {"train/sim_max_reward_0", "test/sim_max_reward_10002", "train/p1", "test/p2"}
    one_by_one = make_runner(n_envs=1, n_train_vis=0)
    assert scores(one_by_one.run(Shaking())) == scores(log)
    assert scores(one_by_one.run(Shaking())) == scores(log)
    assert log["test/REACH_0"] + log["test/REACH_1"] > 0
    assert video_sizes(log) == {"train/sim_video_0": (320, 240, 12)}  # every other of 24 steps


def test_effector_target_may_be_hidden(make_runner: Callable[..., BlockPushLowdimRunner]) -> None:
    shown, hidden = Shaking(), Shaking()
    make_runner(n_test=1, n_train=0, n_train_vis=0, max_steps=16).run(shown)
    make_runner(n_test=1, n_train=0, n_train_vis=0, max_steps=16, obs_eef_target=False).run(hidden)
    for with_target, without in zip(shown.seen, hidden.seen, strict=True):
        assert with_target.shape == (1, 2, 16)
        assert (with_target[..., 8:10] != 0).all()
        expected = with_target.clone()
        expected[..., 8:10] = 0
        assert torch.equal(without, expected)


def test_absent_pybullet_is_named_with_its_extra(repository: Path) -> None:
    code = (
        "import sys; sys.modules['pybullet'] = None; import hydra.utils as h;"
        "h.instantiate({'_target_': 'diffusion_policy.env_runner.blockpush_lowdim_runner.BlockPushLowdimRunner'},"
        " output_dir='.')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "pip install 'diffusion_policy[sim]'" in done.stderr
    assert "Python 3.12" in done.stderr
