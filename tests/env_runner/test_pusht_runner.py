from pathlib import Path

import numpy as np

from diffusion_policy.env_runner.episode import Episode, Rollout
from diffusion_policy.env_runner.pusht_image_runner import PushTImageRunner
from diffusion_policy.env_runner.pusht_keypoints_runner import PushTKeypointsRunner
from diffusion_policy.env_runner.pusht_runner import PushTRunner


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
