"""Rollouts of Push-T from images."""

from pathlib import Path
from typing import Any

import gymnasium
from torch import Tensor

from diffusion_policy.env.pusht.pusht_image_env import PushTImageEnv
from diffusion_policy.env_runner.base_image_runner import BaseImageRunner
from diffusion_policy.env_runner.episode import train_test_episodes
from diffusion_policy.env_runner.pusht_runner import PushTRunner


class PushTImageRunner(PushTRunner, BaseImageRunner):
    """Rolls out policies that observe images and the agent's position; scores as PushTRunner.

    Args:
        n_train: number of episodes with seeds from `train_start_seed`, of which `n_train_vis` are recorded.
        n_test: number of episodes with seeds from `test_start_seed`, of which `n_test_vis` are recorded.
        legacy_test: reset as the demonstrations' environment did, block position before angle.
        fps: frames a second of the videos; at more than 10, every step is shown, below that every so many.
        render_size: side of the images (px).
        For the others see RolloutRunner.
    """

    def __init__(
        self,
        output_dir: str | Path,
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
        fps: int = 10,
        crf: int = 22,
        render_size: int = 96,
        past_action: bool = False,
        tqdm_interval_sec: float = 5.0,
        n_envs: int | None = None,
        sampling_seed: int | None = 0,
        n_env_groups: int = 1,
    ) -> None:
        def make_env() -> gymnasium.Env:
            return PushTImageEnv(legacy=legacy_test, render_size=render_size)

        super().__init__(
            output_dir,
            name="PushtImage",
            env_fn=make_env,
            episodes=train_test_episodes(n_train, n_train_vis, train_start_seed, n_test, n_test_vis, test_start_seed),
            max_steps=max_steps,
            n_obs_steps=n_obs_steps,
            n_action_steps=n_action_steps,
            past_action=past_action,
            fps=fps,
            crf=crf,
            steps_per_render=max(10 // fps, 1),
            n_envs=n_envs,
            tqdm_interval_sec=tqdm_interval_sec,
            sampling_seed=sampling_seed,
            n_env_groups=n_env_groups,
        )

    def policy_obs(self, obs: Any) -> dict[str, Tensor]:
        """`image` `(B, To, 3, H, W)` in [0, 1] and `agent_pos` `(B, To, 2)` in px."""
        return {"image": obs["image"], "agent_pos": obs["agent_pos"]}
