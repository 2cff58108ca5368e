"""Rollouts of robomimic's tasks from states."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
from torch import Tensor

from diffusion_policy.env.robomimic.robomimic_lowdim_wrapper import RobomimicLowdimWrapper, create_env
from diffusion_policy.env_runner.base_lowdim_runner import BaseLowdimRunner
from diffusion_policy.env_runner.robomimic_runner import RobomimicRunner, read_env_meta

__all__ = ["RobomimicLowdimRunner", "create_env"]


class RobomimicLowdimRunner(RobomimicRunner, BaseLowdimRunner):
    """Rolls out policies that observe states; see RobomimicRunner.

    Args:
        dataset_path: demonstrations (HDF5), which say what the environment is and where the first episodes begin.
        obs_keys: what is observed, one after another.
        n_train: number of episodes that begin as demonstrations from `train_start_idx` on; `n_train_vis` are recorded.
        n_test: number of episodes with seeds from `test_start_seed`, of which `n_test_vis` are recorded.
        render_hw: height and width of the videos (px).
        render_camera_name: camera of the videos.
        abs_action: the policy's actions are poses, see AbsoluteActions.
        For the others see RolloutRunner.
    """

    def __init__(
        self,
        output_dir: str | Path,
        dataset_path: str | Path,
        obs_keys: Sequence[str],
        n_train: int = 10,
        n_train_vis: int = 3,
        train_start_idx: int = 0,
        n_test: int = 22,
        n_test_vis: int = 6,
        test_start_seed: int = 10000,
        max_steps: int = 400,
        n_obs_steps: int = 2,
        n_action_steps: int = 8,
        n_latency_steps: int = 0,
        render_hw: tuple[int, int] = (256, 256),
        render_camera_name: str = "agentview",
        fps: int = 10,
        crf: int = 22,
        past_action: bool = False,
        abs_action: bool = False,
        tqdm_interval_sec: float = 5.0,
        n_envs: int | None = None,
        sampling_seed: int | None = 0,
        n_env_groups: int = 1,
    ) -> None:
        env_meta = read_env_meta(dataset_path)
        obs_keys = list(obs_keys)  # plain ones, as they go to other processes
        render_hw = int(render_hw[0]), int(render_hw[1])

        def make_env() -> gymnasium.Env:
            env = create_env(env_meta, obs_keys, abs_action)
            return RobomimicLowdimWrapper(env, obs_keys, render_hw=render_hw, render_camera_name=render_camera_name)

        super().__init__(
            output_dir,
            name=f"{env_meta['env_name']}Lowdim",
            env_fn=make_env,
            dataset_path=dataset_path,
            abs_action=abs_action,
            n_train=n_train,
            n_train_vis=n_train_vis,
            train_start_idx=train_start_idx,
            n_test=n_test,
            n_test_vis=n_test_vis,
            test_start_seed=test_start_seed,
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
        """`obs` `(B, To, Do)`."""
        return {"obs": obs[:, : self.n_obs_steps]}
