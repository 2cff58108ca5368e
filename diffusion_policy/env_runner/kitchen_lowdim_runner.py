"""Rollouts of the kitchen from states."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from torch import Tensor

from diffusion_policy.env.kitchen.kitchen_lowdim_wrapper import KitchenLowdimWrapper
from diffusion_policy.env.kitchen.v0 import KitchenAllV0
from diffusion_policy.env_runner.base_lowdim_runner import BaseLowdimRunner
from diffusion_policy.env_runner.base_runner import RolloutRunner
from diffusion_policy.env_runner.episode import Rollout, train_test_episodes
from diffusion_policy.gym_util.multistep_wrapper import MultiStepWrapper

CONTROL_HZ = 12.5


class KitchenLowdimRunner(RolloutRunner, BaseLowdimRunner):
    """Rolls out policies that observe joints and objects, and counts the tasks they do.

    Args:
        dataset_dir: folder with `all_init_qpos.npy` `(E, 30)` and `all_init_qvel.npy` `(E, 29)`, the states in which
            demonstrations begin. Training episode i starts in row i, while there are any; all others start in the same
            state, and their seed is that of the noise.
        n_train: number of episodes with seeds from `train_start_seed`, of which `n_train_vis` are recorded.
        n_test: number of episodes with seeds from `test_start_seed`, of which `n_test_vis` are recorded.
        render_hw: height and width of the videos (px).
        fps: frames a second of the videos; at more than 12.5, every step is shown, below that every so many.
        abs_action: actions are joint positions, see KitchenBase.
        robot_noise_ratio: of the noise on observations.
        For the others see RolloutRunner.
    """

    def __init__(
        self,
        output_dir: str | Path,
        dataset_dir: str,
        n_train: int = 10,
        n_train_vis: int = 3,
        train_start_seed: int = 0,
        n_test: int = 22,
        n_test_vis: int = 6,
        test_start_seed: int = 10000,
        max_steps: int = 280,
        n_obs_steps: int = 2,
        n_action_steps: int = 8,
        render_hw: Sequence[int] = (240, 360),
        fps: float = 12.5,
        crf: int = 22,
        past_action: bool = False,
        tqdm_interval_sec: float = 5.0,
        abs_action: bool = False,
        robot_noise_ratio: float = 0.1,
        n_envs: int | None = None,
        sampling_seed: int | None = 0,
        n_env_groups: int = 1,
    ) -> None:
        height, width = render_hw

        def make_env() -> gymnasium.Env:
            env = KitchenAllV0(use_abs_action=abs_action, robot_noise_ratio=robot_noise_ratio)
            return KitchenLowdimWrapper(env, render_hw=(height, width))

        episodes = train_test_episodes(n_train, n_train_vis, train_start_seed, n_test, n_test_vis, test_start_seed)
        starts: list[tuple[np.ndarray | None, np.ndarray | None]] = [(None, None)] * len(episodes)
        if n_train > 0:
            known = _initial_states(Path(dataset_dir))[:n_train]
            starts[: len(known)] = known
        super().__init__(
            output_dir,
            name="KitchenLowdim",
            env_fn=make_env,
            episodes=[
                replace(episode, init=_start_at(*state)) for episode, state in zip(episodes, starts, strict=True)
            ],
            max_steps=max_steps,
            n_obs_steps=n_obs_steps,
            n_action_steps=n_action_steps,
            past_action=past_action,
            fps=fps,
            crf=crf,
            steps_per_render=int(max(CONTROL_HZ // fps, 1)),
            n_envs=n_envs,
            tqdm_interval_sec=tqdm_interval_sec,
            sampling_seed=sampling_seed,
            n_env_groups=n_env_groups,
        )

    def policy_obs(self, obs: Any) -> dict[str, Tensor]:
        """`obs` `(B, To, 60)`."""
        return {"obs": obs}

    def metrics(self, rollouts: list[Rollout]) -> dict[str, float]:
        """`mean_score`, the share of the seven tasks done; `p_n`, the share of episodes with at least n of them done;
        `p_<task>`, the share of episodes with that one done.
        """
        tasks = KitchenAllV0.ALL_TASKS
        n_done = np.array([rollout.rewards.sum() for rollout in rollouts])
        done = np.array([rollout.infos["completed"][-1] for rollout in rollouts])
        at_least = {f"p_{n}": float((n_done >= n).mean()) for n in range(1, len(tasks) + 1)}
        each = {f"p_{task.replace(' ', '_')}": float(done[:, i].mean()) for i, task in enumerate(tasks)}
        return {"mean_score": float((n_done / len(tasks)).mean()), **at_least, **each}


def _start_at(qpos: np.ndarray | None, qvel: np.ndarray | None) -> Callable[[MultiStepWrapper], None]:
    def init(env: MultiStepWrapper) -> None:
        kitchen: Any = env.unwrapped
        kitchen.init_qpos, kitchen.init_qvel = qpos, qvel

    return init


def _initial_states(folder: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    paths = [folder / name for name in ("all_init_qpos.npy", "all_init_qvel.npy")]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} has no {', '.join(missing)}, in which training episodes start: set task.env_runner.dataset_dir, "
            "or task.env_runner.n_train=0"
        )
    qpos, qvel = (np.load(path) for path in paths)
    for path, states, dim in zip(paths, (qpos, qvel), (30, 29), strict=True):
        if states.shape != (len(qpos), dim):
            raise ValueError(f"{path} has shape {states.shape}, expected ({len(qpos)}, {dim})")
    return list(zip(qpos, qvel, strict=True))
