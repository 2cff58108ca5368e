"""Rollouts of block pushing."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from torch import Tensor

from diffusion_policy.env.block_pushing.block_pushing_multimodal import BlockPushMultimodal
from diffusion_policy.env_runner.base_lowdim_runner import BaseLowdimRunner
from diffusion_policy.env_runner.base_runner import RolloutRunner
from diffusion_policy.env_runner.episode import Rollout, train_test_episodes

ENV_FPS = 10
EEF_TARGET = slice(8, 10)


class BlockPushLowdimRunner(RolloutRunner, BaseLowdimRunner):
    """Rolls out policies that observe poses, `obs` (16); scores how many blocks came to targets of their own.

    Logged are, besides each episode's score and their mean, the shares of episodes with one block on a target (`p1`)
    and with both (`p2`), and of each event that the environment tells of (`REACH_0`, ..., `TARGET_1_1`).

    Args:
        n_train: number of episodes with seeds from `train_start_seed`, of which `n_train_vis` are recorded.
        n_test: number of episodes with seeds from `test_start_seed`, of which `n_test_vis` are recorded.
        abs_action: the policy says where the effector goes, not how far.
        obs_eef_target: without, the effector's target reads 0 in observations.
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
        test_start_seed: int = 10000,
        max_steps: int = 200,
        n_obs_steps: int = 8,
        n_action_steps: int = 8,
        fps: int = 5,
        crf: int = 22,
        past_action: bool = False,
        abs_action: bool = False,
        obs_eef_target: bool = True,
        tqdm_interval_sec: float = 5.0,
        n_envs: int | None = None,
        sampling_seed: int | None = 0,
        n_env_groups: int = 1,
    ) -> None:
        def make_env() -> gymnasium.Env:
            return gymnasium.wrappers.FlattenObservation(BlockPushMultimodal(abs_action=abs_action))

        super().__init__(
            output_dir,
            name="BlockPushLowdim",
            env_fn=make_env,
            episodes=train_test_episodes(n_train, n_train_vis, train_start_seed, n_test, n_test_vis, test_start_seed),
            max_steps=max_steps,
            n_obs_steps=n_obs_steps,
            n_action_steps=n_action_steps,
            past_action=past_action,
            fps=fps,
            crf=crf,
            steps_per_render=max(ENV_FPS // fps, 1),
            n_envs=n_envs,
            tqdm_interval_sec=tqdm_interval_sec,
            sampling_seed=sampling_seed,
            n_env_groups=n_env_groups,
        )
        self.obs_eef_target = obs_eef_target

    def policy_obs(self, obs: Any) -> dict[str, Tensor]:
        """`obs` `(B, To, 16)`."""
        if not self.obs_eef_target:
            obs = obs.clone()
            obs[..., EEF_TARGET] = 0
        return {"obs": obs}

    def metrics(self, rollouts: list[Rollout]) -> dict[str, float]:
        """Scores: 0.49 with one block on a target, 1 with both; each reward counts once, however often it was given."""
        scores = {f"sim_max_reward_{r.episode.seed}": float(np.unique(r.rewards).sum()) for r in rollouts}
        return {
            **scores,
            "mean_score": _share(scores.values()),
            "p1": _share(score > 0.4 for score in scores.values()),
            "p2": _share(score > 0.9 for score in scores.values()),
            **{event: _share(r.infos[event][-1] > 0 for r in rollouts) for event in rollouts[0].infos},
        }


def _share(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
