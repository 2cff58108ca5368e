"""Episodes whose environments step together, while the policy may compute for other ones."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import cloudpickle
import numpy as np
import torch
from torch import Tensor

from diffusion_policy.env_runner.episode import Episode, Rollout
from diffusion_policy.gym_util.async_vector_env import AsyncVectorEnv, EnvWorkerError


class EnvGroup:
    """Runs episodes, B of them, in a vector env: `start`, then `wait` and `step` in turns until they `are_over`.

    A failure is a RuntimeError that names the episode. Environments beyond the first B stay done and ignore actions.

    Args:
        envs: environments in `MultiStepWrapper(VideoRecordingWrapper(...))`, at least B.
        episodes: what to run.
        video_paths: where each episode is recorded; None: it is not.
        generators: the policy's randomness in each episode; None: the global generator.

    Attributes:
        past_action: what the policy did last, `(B, Ta, Da)`; None before it did.
        n_steps: actions that each episode was given.
        rewards: latest of each episode, `(B,)`; empty before the first step.
    """

    def __init__(
        self,
        envs: AsyncVectorEnv,
        episodes: Sequence[Episode],
        video_paths: Sequence[str | None],
        generators: Sequence[torch.Generator] | None,
    ) -> None:
        self.envs = envs
        self.episodes = episodes
        self.video_paths = video_paths
        self.generators = generators
        self.past_action: Tensor | None = None
        self.n_steps = 0
        self.rewards = np.zeros(0)
        self.are_over = False
        self._terminated = np.zeros(envs.num_envs, dtype=bool)
        self._n_sent = 0

    @property
    def action_dim(self) -> int:
        """Entries of one action of the environment, Da."""
        shape = self.envs.single_action_space.shape
        assert shape is not None
        return shape[-1]

    def start(self) -> None:
        """Prepares the environments and lets them reset; `wait` returns what they observe."""
        n_idle = self.envs.num_envs - len(self.episodes)
        idle = [None] * n_idle
        with failures_named(self.episodes):
            # absolute, as a worker's working folder need not be this process's
            self.envs.set_attr("file_path", [path and os.path.abspath(path) for path in self.video_paths] + idle)
            inits = [episode.init for episode in self.episodes] + idle
            if any(inits):
                pickles = [cloudpickle.dumps(init or (lambda env: None)) for init in inits]
                self.envs.call_each("run_dill_function", [(pickle,) for pickle in pickles])
            mask = np.arange(self.envs.num_envs) < len(self.episodes)
            seeds = [episode.seed for episode in self.episodes] + idle
            self.envs.reset_async(seed=seeds, options={"reset_mask": mask})

    def step(self, action: np.ndarray) -> None:
        """Lets the environments execute `action` `(B, Ta, Da)`; `wait` returns what they observe then."""
        n_idle = self.envs.num_envs - len(self.episodes)
        self._n_sent = action.shape[1]
        with failures_named(self.episodes):
            self.envs.step_async(np.pad(action, ((0, n_idle), (0, 0), (0, 0))))

    def wait(self) -> Any:
        """Observations after the reset or step under way, `(num_envs, To, ...)` or a dict of them."""
        with failures_named(self.episodes):
            if self._n_sent == 0:
                return self.envs.reset_wait()[0]
            obs, rewards, self._terminated, truncated, _ = self.envs.step_wait()
        self.n_steps += self._n_sent
        self.rewards = rewards[: len(self.episodes)]
        self.are_over = bool((self._terminated | truncated)[: len(self.episodes)].all())
        return obs

    def rollouts(self) -> list[Rollout]:
        """What came of the episodes; completes their videos."""
        with failures_named(self.episodes):
            recorded = self.envs.render()
            rewards = self.envs.call("get_rewards")
            infos = self.envs.call("get_infos")
        return [
            Rollout(
                episode,
                np.array(rewards[i]),
                bool(self._terminated[i]),
                infos[i],
                recorded[i] and self.video_paths[i],
            )
            for i, episode in enumerate(self.episodes)
        ]


@contextlib.contextmanager
def failures_named(episodes: Sequence[Episode]) -> Iterator[None]:
    """Says which of the episodes, one for each environment, an environment failed in."""
    try:
        yield
    except EnvWorkerError as error:
        where = episodes[error.index] if error.index < len(episodes) else "an idle environment"
        raise RuntimeError(f"Evaluation failed in the {where}. {error}") from error
