"""Rollouts of Push-T from keypoints of the block."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
from torch import Tensor

from diffusion_policy.env.pusht.pusht_keypoints_env import PushTKeypointsEnv
from diffusion_policy.env_runner.base_lowdim_runner import BaseLowdimRunner
from diffusion_policy.env_runner.episode import train_test_episodes
from diffusion_policy.env_runner.pusht_runner import PushTRunner


class PushTKeypointsRunner(PushTRunner, BaseLowdimRunner):
    """Rolls out policies that observe keypoints of the block and the agent's position; scores as PushTRunner.

    Args:
        keypoint_visible_rate: probability that a keypoint is visible, which `obs_mask` shows.
        n_train: number of episodes with seeds from `train_start_seed`, of which `n_train_vis` are recorded.
        n_test: number of episodes with seeds from `test_start_seed`, of which `n_test_vis` are recorded.
        legacy_test: reset as the demonstrations' environment did, block position before angle.
        agent_keypoints: observe keypoints of the agent, too.
        For the others see RolloutRunner.
    """

    env_class: Callable[..., gymnasium.Env] = PushTKeypointsEnv

    def __init__(
        self,
        output_dir: str | Path,
        keypoint_visible_rate: float = 1.0,
        n_train: int = 10,
        n_train_vis: int = 3,
        train_start_seed: int = 0,
        n_test: int = 22,
        n_test_vis: int = 6,
        legacy_test: bool = False,
        test_start_seed: int = 10000,
        max_steps: int = 200,
        n_obs_steps: int = 8,
        n_action_steps: int = 8,
        n_latency_steps: int = 0,
        fps: int = 10,
        crf: int = 22,
        agent_keypoints: bool = False,
        past_action: bool = False,
        tqdm_interval_sec: float = 5.0,
        n_envs: int | None = None,
        sampling_seed: int | None = 0,
        n_env_groups: int = 1,
    ) -> None:
        env_class = self.env_class
        keypoint_manager_params = PushTKeypointsEnv.genenerate_keypoint_manager_params()

        def make_env() -> gymnasium.Env:
            return env_class(
                legacy=legacy_test,
                keypoint_visible_rate=keypoint_visible_rate,
                agent_keypoints=agent_keypoints,
                **keypoint_manager_params,
            )

        super().__init__(
            output_dir,
            name="PushtKeypoints",
            env_fn=make_env,
            episodes=train_test_episodes(n_train, n_train_vis, train_start_seed, n_test, n_test_vis, test_start_seed),
            max_steps=max_steps,
            n_obs_steps=n_obs_steps,
            n_action_steps=n_action_steps,
            n_latency_steps=n_latency_steps,
            past_action=past_action,
            fps=fps,
            crf=crf,
            n_envs=n_envs,
            tqdm_interval_sec=tqdm_interval_sec,
            sampling_seed=sampling_seed,
            n_env_groups=n_env_groups,
        )

    def policy_obs(self, obs: Any) -> dict[str, Tensor]:
        """`obs` `(B, To, Do)` and `obs_mask`, true where it is visible: the observation's two halves."""
        values, mask = obs[:, : self.n_obs_steps].chunk(2, dim=-1)
        return {"obs": values, "obs_mask": mask > 0.5}
