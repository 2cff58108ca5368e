"""Rollouts of any gymnasium environment, described by the config alone."""

import difflib
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from torch import Tensor

from diffusion_policy.env_runner.base_runner import RolloutRunner
from diffusion_policy.env_runner.episode import Rollout, train_test_episodes
from diffusion_policy.gym_util.mujoco_gl import prefer_headless_gl
from diffusion_policy.gym_util.policy_observation import PolicyObservation

WHOLE = {"obs": None}


class GymRunner(RolloutRunner):
    """Rolls a policy out in `gymnasium.make(env_id)`.

    With a `success_key` an episode's score is 1 if it succeeded, else 0; without, it is its highest reward.

    Args:
        env_id: as for `gymnasium.make`; a package that registers it goes before it, `gymnasium_robotics:FetchReach-v4`.
        max_steps: environment steps that an episode may take, in place of the environment's own limit.
        env_kwargs: of the environment's constructor.
        obs_keys, success_key, action_bounds: see PolicyObservation.
        obs_dim, action_dim: entries of `obs` and of an action that the policy is built for, if they are to be checked.
        n_train: number of episodes with seeds from `train_start_seed`, of which `n_train_vis` are recorded.
        n_test: number of episodes with seeds from `test_start_seed`, of which `n_test_vis` are recorded.
        For the others see RolloutRunner.

    Raises:
        ModuleNotFoundError: the package is not installed.
        ValueError: it registers no such environment.
    """

    def __init__(
        self,
        output_dir: str | Path,
        env_id: str,
        max_steps: int,
        env_kwargs: Mapping[str, Any] | None = None,
        obs_keys: Mapping[str, str | Sequence[str] | None] | None = None,
        success_key: str | None = None,
        action_bounds: tuple[float, float] | None = None,
        obs_dim: int | None = None,
        action_dim: int | None = None,
        n_train: int = 0,
        n_train_vis: int = 0,
        train_start_seed: int = 0,
        n_test: int = 20,
        n_test_vis: int = 4,
        test_start_seed: int = 100_000,
        n_obs_steps: int = 2,
        n_action_steps: int = 8,
        n_latency_steps: int = 0,
        past_action: bool = False,
        fps: float = 10,
        crf: int = 22,
        steps_per_render: int = 1,
        n_envs: int | None = None,
        tqdm_interval_sec: float = 5.0,
        sampling_seed: int | None = 0,
        n_env_groups: int = 1,
    ) -> None:
        check_env_id(env_id)
        names = {
            key: value if value is None or isinstance(value, str) else list(value)
            for key, value in (obs_keys or WHOLE).items()
        }
        bounds = None if action_bounds is None else (action_bounds[0], action_bounds[1])
        dims = {key: dim for key, dim in (("obs", obs_dim), ("action", action_dim)) if dim is not None}
        records = n_train_vis > 0 or n_test_vis > 0
        kwargs = {**(env_kwargs or {}), **({"render_mode": "rgb_array"} if records else {})}

        def make_env() -> gymnasium.Env:
            prefer_headless_gl()
            env = gymnasium.make(env_id, max_episode_steps=max_steps, disable_env_checker=True, **kwargs)
            return PolicyObservation(env, names, success_key, bounds, dims)

        self.scores_success = success_key is not None
        super().__init__(
            output_dir,
            name=env_id,
            env_fn=make_env,
            episodes=train_test_episodes(n_train, n_train_vis, train_start_seed, n_test, n_test_vis, test_start_seed),
            max_steps=max_steps,
            n_obs_steps=n_obs_steps,
            n_action_steps=n_action_steps,
            n_latency_steps=n_latency_steps,
            past_action=past_action,
            fps=fps,
            crf=crf,
            steps_per_render=steps_per_render,
            n_envs=n_envs,
            tqdm_interval_sec=tqdm_interval_sec,
            sampling_seed=sampling_seed,
            n_env_groups=n_env_groups,
        )

    def policy_obs(self, obs: Any) -> dict[str, Tensor]:
        """What `obs_keys` names, `(B, To, ...)`."""
        return {key: value[:, : self.n_obs_steps] for key, value in obs.items()}

    def metrics(self, rollouts: list[Rollout]) -> dict[str, float]:
        """Adds `mean_return`, of the environment's own rewards, and, where that is known, `success_rate`."""
        last = [{key: values[-1] for key, values in rollout.infos.items()} for rollout in rollouts]
        metrics = {**super().metrics(rollouts), "mean_return": float(np.mean([info["env_return"] for info in last]))}
        if self.scores_success:
            metrics["success_rate"] = float(np.mean([info["success"] for info in last]))
        return metrics


def check_env_id(env_id: str) -> None:
    """Refuses an environment that `gymnasium.make` would not find, with the names most like it."""
    package, _, name = env_id.rpartition(":")
    if package:
        prefer_headless_gl()
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"env_id {env_id!r} needs the package {package!r}: {error}. Install it (gymnasium_robotics: "
                "pip install 'diffusion_policy[sim]')",
                name=error.name,
            ) from error
    if name in gymnasium.registry:
        return
    close = difflib.get_close_matches(name, gymnasium.registry, n=3)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise ValueError(
        f"no environment {name!r} is registered{f' by {package}' if package else ''}: {hint}A package that registers "
        "it goes before the name, as in gymnasium_robotics:FetchReach-v4"
    )
