"""A runner of the tests' environment, and policies for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import torch
from torch import Tensor
from walk_env import Walk

from diffusion_policy.env_runner.base_lowdim_runner import BaseLowdimRunner
from diffusion_policy.env_runner.base_runner import RolloutRunner
from diffusion_policy.env_runner.episode import Episode, train_test_episodes
from diffusion_policy.policy.base_policy import BasePolicy

MAX_STEPS = 6


class WalkRunner(RolloutRunner, BaseLowdimRunner):
    def __init__(self, output_dir: Path, episodes: list[Episode] | None = None, **kwargs: Any) -> None:
        env_kwargs = {key: kwargs.pop(key) for key in ("limit", "dict_obs", "broken_seed") if key in kwargs}

        def make_env() -> gymnasium.Env:
            return Walk(**env_kwargs)

        settings = {"name": "Walk", "max_steps": MAX_STEPS, "n_obs_steps": 2, "n_action_steps": 2, **kwargs}
        episodes = train_test_episodes(1, 1, 7, 4, 2, 100) if episodes is None else episodes
        super().__init__(output_dir, env_fn=make_env, episodes=episodes, **settings)

    def policy_obs(self, obs: Any) -> dict[str, Tensor]:
        state = obs["state"] if isinstance(obs, dict) else obs
        return {"obs": state[:, : self.n_obs_steps]}


class Policy:
    """Steps by `n_action_steps` random numbers, or what `act` says; remembers what it has seen."""

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, act: Callable[[dict[str, Tensor]], Tensor] | None = None, n_action_steps: int = 2) -> None:
        self.act = act
        self.n_action_steps = n_action_steps
        self.seen: list[dict[str, Tensor]] = []
        self.resets = 0

    def reset(self) -> None:
        self.resets += 1

    def predict_action(
        self, obs_dict: dict[str, Tensor], generator: list[torch.Generator] | None = None
    ) -> dict[str, Tensor]:
        self.seen.append(obs_dict)
        if self.act is not None:
            return {"action": self.act(obs_dict)}
        shape = (self.n_action_steps, 1)
        if generator is None:
            return {"action": torch.randn(len(obs_dict["obs"]), *shape)}
        return {"action": torch.stack([torch.randn(shape, generator=g) for g in generator])}


class StatelessPolicy(Policy):
    """Has nothing to forget, so that its episodes may take turns."""

    reset = BasePolicy.reset


def constant(*values: float) -> Callable[[dict[str, Tensor]], Tensor]:
    return lambda obs_dict: torch.tensor(values)[None, :, None].repeat(len(obs_dict["obs"]), 1, 1)


def processes_of(runner: WalkRunner) -> list[Any]:
    """Worker processes, in the order of the episodes."""
    return [process for envs in runner._envs for process in envs.processes]
