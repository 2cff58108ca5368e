"""Rollouts of robomimic's tasks from images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from diffusion_policy.env.robomimic.robomimic_image_wrapper import RobomimicImageWrapper, create_env
from diffusion_policy.env_runner.base_image_runner import BaseImageRunner
from diffusion_policy.env_runner.robomimic_runner import RobomimicRunner, read_env_meta

__all__ = ["RobomimicImageRunner", "create_env"]


class RobomimicImageRunner(RobomimicRunner, BaseImageRunner):
    """Rolls out policies that observe images; see RobomimicRunner.

    Args:
        dataset_path: demonstrations (HDF5), which say what the environment is and where the first episodes begin.
        shape_meta: what is observed, see ShapeMeta.
        n_train: number of episodes that begin as demonstrations from `train_start_idx` on; `n_train_vis` are recorded.
        n_test: number of episodes with seeds from `test_start_seed`, of which `n_test_vis` are recorded.
        render_obs_key: the camera that videos show.
        abs_action: the policy's actions are poses, see AbsoluteActions.
        For the others see RolloutRunner.
    """

    def __init__(
        self,
        output_dir: str | Path,
        dataset_path: str | Path,
        shape_meta: Mapping[str, Any],
        n_train: int = 10,
        n_train_vis: int = 3,
        train_start_idx: int = 0,
        n_test: int = 22,
        n_test_vis: int = 6,
        test_start_seed: int = 10000,
        max_steps: int = 400,
        n_obs_steps: int = 2,
        n_action_steps: int = 8,
        render_obs_key: str = "agentview_image",
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
        if isinstance(shape_meta, DictConfig):  # a plain one, as it goes to other processes
            shape_meta = OmegaConf.to_container(shape_meta, resolve=True)  # type: ignore[assignment]

        def env_fn(enable_render: bool) -> gymnasium.Env:
            env = create_env(env_meta, shape_meta, enable_render, abs_action)
            return RobomimicImageWrapper(env, shape_meta, render_obs_key=render_obs_key)

        super().__init__(
            output_dir,
            name=f"{env_meta['env_name']}Image",
            env_fn=lambda: env_fn(enable_render=True),
            dummy_env_fn=lambda: env_fn(enable_render=False),
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
            past_action=past_action,
            fps=fps,
            crf=crf,
            n_envs=n_envs,
            tqdm_interval_sec=tqdm_interval_sec,
            sampling_seed=sampling_seed,
            n_env_groups=n_env_groups,
        )

    def policy_obs(self, obs: Any) -> dict[str, Tensor]:
        """By key of `shape_meta`: images `(B, To, 3, H, W)` in [0, 1], other observations `(B, To, D)`."""
        return {key: value[:, : self.n_obs_steps] for key, value in obs.items()}
