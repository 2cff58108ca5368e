from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
from pusht_policies import ImagePusher, KeypointsPusher
from runner_log import codecs, scores, video_sizes

from diffusion_policy.env_runner.base_image_runner import BaseImageRunner
from diffusion_policy.env_runner.base_lowdim_runner import BaseLowdimRunner
from diffusion_policy.env_runner.episode import Episode, Rollout
from diffusion_policy.env_runner.pusht_image_runner import PushTImageRunner
from diffusion_policy.env_runner.pusht_keypoints_runner import PushTKeypointsRunner
from diffusion_policy.env_runner.pusht_runner import PushTRunner
from diffusion_policy.policy.base_policy import BasePolicy

BOTH = pytest.mark.parametrize(
    ("runner_class", "policy_class"), [(PushTKeypointsRunner, KeypointsPusher), (PushTImageRunner, ImagePusher)]
)


def test_kinds_of_runners() -> None:
    assert issubclass(PushTKeypointsRunner, BaseLowdimRunner)
    assert issubclass(PushTImageRunner, BaseImageRunner)


@BOTH
def test_log_and_videos(make_pusht: Callable[..., Any], tmp_path: Path, runner_class: Any, policy_class: Any) -> None:
    log = make_pusht(runner_class).run(policy_class())
    assert set(scores(log)) == {
        "train/sim_max_reward_0",
        "train/mean_score",
        "train/success_rate",
        *(f"test/sim_max_reward_{seed}" for seed in (10000, 10001, 10002)),
        "test/mean_score",
        "test/success_rate",
    }
    assert all(0 <= score <= 1 for score in scores(log).values())
    assert len({log[f"test/sim_max_reward_{seed}"] for seed in (10000, 10001, 10002)}) > 1
    assert video_sizes(log) == {"train/sim_video_0": (96, 96, 20), "test/sim_video_10000": (96, 96, 20)}
    assert codecs(log) == {("h264", "High", "yuv420p")}
    assert {Path(value._path).parent for key, value in log.items() if "sim_video" in key} == {tmp_path / "media"}


@BOTH
def test_scores_do_not_depend_on_the_number_of_workers(
    make_pusht: Callable[..., Any], runner_class: Any, policy_class: Any
) -> None:
    expected = scores(make_pusht(runner_class).run(policy_class()))
    assert scores(make_pusht(runner_class, n_envs=1).run(policy_class())) == expected
    assert scores(make_pusht(runner_class, n_envs=3).run(policy_class())) == expected


@BOTH
def test_rollouts_do_not_depend_on_the_number_of_groups(
    make_pusht: Callable[..., Any], runner_class: Any, policy_class: Any
) -> None:
    class Stateless(policy_class):
        reset = BasePolicy.reset

    runner = make_pusht(runner_class, n_test=4)
    expected = runner.rollouts(Stateless())
    for n_envs, batches in ((5, [3, 2]), (3, [2, 1])):
        runner = make_pusht(runner_class, n_test=4, n_envs=n_envs)
        runner.n_env_groups = 2
        policy = Stateless()
        rollouts = runner.rollouts(policy)
        assert [len(seen["obs" if "obs" in seen else "image"]) for seen in policy.seen[:2]] == batches
        assert [rollout.episode for rollout in rollouts] == runner.episodes
        for rollout, same in zip(rollouts, expected, strict=True):
            assert rollout.rewards.tolist() == same.rewards.tolist()
            assert rollout.terminated == same.terminated
            assert str(rollout.infos) == str(same.infos)
            assert (rollout.video_path is None) == (same.video_path is None)


@BOTH
def test_workers_do_not_load_torch(make_pusht: Callable[..., Any], runner_class: Any, policy_class: Any) -> None:
    runner = make_pusht(runner_class, n_envs=2, max_steps=1)
    runner.run(policy_class())

    def loads_torch(env: Any) -> bool:
        import sys

        return "torch" in sys.modules

    [envs] = runner._envs
    assert envs.call("run_dill_function", cloudpickle.dumps(loads_torch)) == (False, False)


def test_success_rate_counts_episodes_that_reached_the_goal(tmp_path: Path) -> None:
    rollouts = [
        Rollout(Episode("test/", 1), np.array([0.2, 1.0]), terminated=True, infos={}, video_path=None),
        Rollout(Episode("test/", 2), np.array([0.9, 0.5]), terminated=False, infos={}, video_path=None),
    ]
    for runner in (PushTKeypointsRunner(tmp_path), PushTImageRunner(tmp_path)):
        assert isinstance(runner, PushTRunner)
        assert runner.metrics(rollouts) == {
            "sim_max_reward_1": 1.0,
            "sim_max_reward_2": 0.9,
            "mean_score": 0.95,
            "success_rate": 0.5,
        }
