"""Evaluation of policies, and the one rollout loop that every simulated task shares."""

import secrets
import string
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from diffusion_policy.common.distributed import gather, is_first, rank, world_size
from diffusion_policy.common.video_recorder import VideoRecorder
from diffusion_policy.env_runner.env_group import EnvGroup, failures_named
from diffusion_policy.env_runner.episode import Episode, Rollout
from diffusion_policy.gym_util.async_vector_env import AsyncVectorEnv
from diffusion_policy.gym_util.multistep_wrapper import MultiStepWrapper
from diffusion_policy.gym_util.video_recording_wrapper import VideoRecordingWrapper
from diffusion_policy.policy.base_policy import BasePolicy

EnvFn = Callable[[], gymnasium.Env]


class BaseRunner(ABC):
    """Evaluates policies, on a simulator or otherwise."""

    def __init__(self, output_dir: str | Path) -> None:
        self.output_dir = output_dir

    @abstractmethod
    def run(self, policy: BasePolicy) -> dict[str, Any]:
        """Evaluates `policy`; returns what W&B is to log: scores by name, and videos."""

    def close(self) -> None:  # noqa: B027 - most runners hold nothing
        """Frees what the runner holds between runs."""


class RolloutRunner(BaseRunner):
    """Rolls a policy out in parallel environments.

    A task says how its environment is made (`env_fn`), which `episodes` there are, what the policy sees of an
    observation (`policy_obs`), how its action becomes the environment's (`env_action`) and what is logged
    (`metrics`).

    Results depend on the seeds, not on `n_envs` nor on the global random generators: each episode has a
    generator of its own. (Up to rounding, where a policy's kernels round differently at other batch sizes.) Processes
    that train together run a part of the episodes each, and all get the results of all.

    Args:
        output_dir: videos go to its folder `media`.
        name: what the progress bar calls the task.
        env_fn: makes an environment, in a worker process; nest it in a function (see AsyncVectorEnv).
        episodes: what to run.
        max_steps: environment steps that an episode may take.
        n_obs_steps: observations that the policy sees, To.
        n_action_steps: actions executed for one prediction.
        n_latency_steps: actions that come too late: the policy sees the oldest `n_obs_steps` observations,
            and the first `n_latency_steps` actions of its prediction are dropped.
        past_action: show the policy the actions before, as `past_action` `(B, To - 1, Da)`.
        fps, crf, steps_per_render, render_kwargs: see VideoRecorder and VideoRecordingWrapper.
        n_envs: worker processes, and episodes that run at a time, of all training processes together (default: all).
        n_env_groups: in how many groups they take turns: while the policy predicts for one, the others step. A GPU
            predicts for half of the episodes in nearly the same time, so two groups pay where the simulators take
            longer than the policy, and never where the policy needs the simulators' cores. A policy that remembers
            the episode (it overrides `reset`) always has one group.
        tqdm_interval_sec: least time between updates of the progress bar (s).
        sampling_seed: seeds the policy's randomness; None lets it draw from the global generator.
        dummy_env_fn: see AsyncVectorEnv.
    """

    env_timeout_sec: float = 600.0
    """Time that making an environment, a reset or a chunk of actions may take (s)."""

    def __init__(
        self,
        output_dir: str | Path,
        *,
        name: str,
        env_fn: EnvFn,
        episodes: Sequence[Episode],
        max_steps: int,
        n_obs_steps: int,
        n_action_steps: int,
        n_latency_steps: int = 0,
        past_action: bool = False,
        fps: float = 10,
        crf: int = 22,
        steps_per_render: int = 1,
        render_kwargs: dict[str, Any] | None = None,
        n_envs: int | None = None,
        n_env_groups: int = 1,
        tqdm_interval_sec: float = 5.0,
        sampling_seed: int | None = 0,
        dummy_env_fn: EnvFn | None = None,
    ) -> None:
        super().__init__(output_dir)
        if not episodes:
            raise ValueError("There are no episodes to run: n_train + n_test must be at least 1.")
        _check_at_least(1, n_obs_steps=n_obs_steps, n_action_steps=n_action_steps, max_steps=max_steps)
        _check_at_least(0, n_latency_steps=n_latency_steps)
        _check_at_least(1, n_envs=len(episodes) if n_envs is None else n_envs, n_env_groups=n_env_groups)
        self.name = name
        self.episodes = list(episodes)
        self.n_envs = min(n_envs or len(episodes), len(episodes))
        self.n_env_groups = n_env_groups
        self.max_steps = max_steps
        self.n_obs_steps = n_obs_steps
        self.n_latency_steps = n_latency_steps
        self.past_action = past_action
        self.tqdm_interval_sec = tqdm_interval_sec
        self.sampling_seed = sampling_seed
        recorder = {"fps": fps, "crf": crf}
        recording = {"steps_per_render": steps_per_render, **(render_kwargs or {})}
        multistep = {
            "n_obs_steps": n_obs_steps + n_latency_steps,
            "n_action_steps": n_action_steps,
            "max_episode_steps": max_steps,
        }
        self._env_fn = _wrapped(env_fn, recorder, recording, multistep)
        self._dummy_env_fn = dummy_env_fn and _wrapped(dummy_env_fn, recorder, recording, multistep)
        self._envs: list[AsyncVectorEnv] = []  # one for each group

    @abstractmethod
    def policy_obs(self, obs: Any) -> dict[str, Tensor]:
        """The policy's observations `(B, To, ...)` from the environment's, on the policy's device.

        `obs` is a tensor `(B, To + n_latency_steps, ...)` or a dict of them, as the observation space is.
        """

    def env_action(self, action: np.ndarray) -> np.ndarray:
        """The environment's actions from the policy's `(B, Ta, Da)`."""
        return action

    def metrics(self, rollouts: list[Rollout]) -> dict[str, float]:
        """What is logged of rollouts with one prefix, after that: each one's best reward, and their mean."""
        scores = {f"sim_max_reward_{rollout.episode.seed}": float(rollout.rewards.max()) for rollout in rollouts}
        return {**scores, "mean_score": float(np.mean(list(scores.values())))}

    def run(self, policy: BasePolicy) -> dict[str, Any]:
        """Runs all episodes and returns what is logged of them."""
        return self._log_data(self.rollouts(policy))

    def rollouts(self, policy: BasePolicy) -> list[Rollout]:
        """Runs all episodes. A RuntimeError names the seed of the episode that could not be run."""
        episodes = _split(self.episodes, world_size())[rank()]
        return [rollout for part in gather(self._run(policy, episodes)) for rollout in part]

    def _run(self, policy: BasePolicy, episodes: list[Episode]) -> list[Rollout]:
        n_envs = max(1, min(self.n_envs // world_size(), len(episodes)))
        chunks = [episodes[i : i + n_envs] for i in range(0, len(episodes), n_envs)]
        rollouts: list[Rollout] = []
        try:
            if chunks:
                self._start_envs(chunks[0], self._groups_for(policy, n_envs))
            for i, episodes in enumerate(chunks):
                rollouts += self._run_chunk(policy, episodes, f"Eval {self.name} {i + 1}/{len(chunks)}")
        except BaseException:
            self.close(timeout=1)  # the environments are somewhere within an episode
            raise
        return rollouts

    def close(self, timeout: float | None = None) -> None:
        """Ends the worker processes, which otherwise wait for the next run; by force after `timeout` seconds."""
        vector_envs, self._envs = self._envs, []
        for envs in vector_envs:
            envs.close(timeout=timeout)

    def _groups_for(self, policy: BasePolicy, n_envs: int) -> int:
        # Memory has a row for each episode: the policy must see all of them in each of its calls.
        remembers = type(policy).reset is not BasePolicy.reset
        return 1 if remembers else min(self.n_env_groups, n_envs)

    def _start_envs(self, first_episodes: list[Episode], n_env_groups: int) -> None:
        """Starts a worker for each of the episodes that run first, in groups, unless they run already."""
        if len(self._envs) == n_env_groups:
            return
        self.close()
        for episodes in _split(first_episodes, n_env_groups):
            with failures_named(episodes):
                env_fns = [self._env_fn] * len(episodes)
                self._envs.append(AsyncVectorEnv(env_fns, self._dummy_env_fn, timeout=self.env_timeout_sec))

    @torch.no_grad()
    def _run_chunk(self, policy: BasePolicy, episodes: list[Episode], title: str) -> list[Rollout]:
        shares = zip(self._envs, _split(episodes, len(self._envs)), strict=True)
        groups = [self._group(envs, share) for envs, share in shares if share]
        self._play(policy, groups, title)
        return [rollout for group in groups for rollout in group.rollouts()]

    def _group(self, envs: AsyncVectorEnv, episodes: list[Episode]) -> EnvGroup:
        seed = self.sampling_seed
        generators = None if seed is None else [episode.generator(seed) for episode in episodes]
        return EnvGroup(envs, episodes, self._video_paths(episodes), generators)

    def _video_paths(self, episodes: list[Episode]) -> list[str | None]:
        media = Path(self.output_dir) / "media"
        media.mkdir(parents=True, exist_ok=True)
        return [str(media / f"{_random_id()}.mp4") if episode.record else None for episode in episodes]

    def _play(self, policy: BasePolicy, groups: list[EnvGroup], title: str) -> None:
        """Steps until all episodes are over: while the policy predicts for one group, the others' environments step."""
        policy.reset()
        for group in groups:
            group.start()
        running = groups
        n_steps, interval = self.max_steps * len(groups), self.tqdm_interval_sec
        with tqdm(total=n_steps, desc=title, leave=False, mininterval=interval, disable=not is_first()) as bar:
            while running:
                for group in running:
                    obs = group.wait()
                    if not group.are_over:
                        group.step(self._next_action(policy, group, obs))
                running = [group for group in running if not group.are_over]
                rewards = np.concatenate([group.rewards for group in groups])
                if len(rewards):
                    bar.set_postfix(reward=f"{rewards.mean():.3f}", refresh=False)
                bar.update(sum(group.n_steps for group in groups) - bar.n)

    def _next_action(self, policy: BasePolicy, group: EnvGroup, obs: Any) -> np.ndarray:
        """What the policy does next in the group's episodes, as the environments' actions `(B, Ta, Da)`."""
        obs_dict = self.policy_obs(_to_device(obs, len(group.episodes), policy))
        if self.past_action and self.n_obs_steps > 1 and group.past_action is not None:
            obs_dict["past_action"] = group.past_action[:, -(self.n_obs_steps - 1) :]
        prediction = policy.predict_action(obs_dict, generator=group.generators)
        group.past_action = prediction["action"][:, self.n_latency_steps :]
        action = self._checked(group.past_action, group.episodes)
        if action.shape[-1] != group.action_dim:
            raise ValueError(
                f"The policy's action has {action.shape[-1]} entries, the environment's {group.action_dim}."
            )
        return action

    def _checked(self, action: Tensor, episodes: Sequence[Episode]) -> np.ndarray:
        """The policy's action `(B, Ta, Da)` as the environments' `(B, Ta, Da)`."""
        array = action.to("cpu", torch.float32).numpy()
        if array.ndim != 3 or array.shape[0] != len(episodes) or array.shape[1] == 0:
            raise ValueError(
                f"The policy's action is {array.shape} after {self.n_latency_steps} latency steps, expected "
                f"({len(episodes)}, Ta, Da) with at least one action."
            )
        finite = np.isfinite(array).all(axis=(1, 2))
        if not finite.all():
            where = ", ".join(str(episodes[i]) for i in np.flatnonzero(~finite).tolist())
            raise RuntimeError(f"The policy's action is not finite (NaN or infinite) in {where}.")
        return self.env_action(array)

    def _log_data(self, rollouts: list[Rollout]) -> dict[str, Any]:
        log: dict[str, Any] = {}
        for prefix in dict.fromkeys(rollout.episode.prefix for rollout in rollouts):
            group = [rollout for rollout in rollouts if rollout.episode.prefix == prefix]
            log.update({prefix + key: value for key, value in self.metrics(group).items()})
        for rollout in rollouts:
            if rollout.video_path is not None and Path(rollout.video_path).exists():  # perhaps on another machine
                log[f"{rollout.episode.prefix}sim_video_{rollout.episode.seed}"] = _video(rollout.video_path)
        return log


def _wrapped(env_fn: EnvFn, recorder: dict[str, Any], recording: dict[str, Any], multistep: dict[str, Any]) -> EnvFn:
    def make_env() -> gymnasium.Env:
        # one thread, as many episodes are recorded at a time
        video_recorder = VideoRecorder.create_h264(**recorder, thread_count=1)
        return MultiStepWrapper(VideoRecordingWrapper(env_fn(), video_recorder, **recording), **multistep)

    return make_env


def _split(episodes: list[Episode], n_parts: int) -> list[list[Episode]]:
    """Parts of sizes that differ by one at most, the larger ones first, in the order given."""
    return [[episodes[i] for i in part.tolist()] for part in np.array_split(np.arange(len(episodes)), n_parts)]


def _to_device(obs: Any, n_rows: int, policy: BasePolicy) -> Any:
    """The first rows of an observation array, or of a dict of them, as tensors for the policy."""
    if isinstance(obs, dict):
        return {key: _to_device(value, n_rows, policy) for key, value in obs.items()}
    tensor = torch.from_numpy(obs[:n_rows])
    return tensor.to(policy.dtype if tensor.is_floating_point() else tensor.dtype).to(policy.device)


def _video(path: str) -> Any:
    import wandb  # slow to import, needed for videos only

    return wandb.Video(path, format="mp4")


def _random_id() -> str:
    """Name for a video: 8 lowercase letters and digits, drawn from the system's randomness."""
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))


def _check_at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if value < least:
            raise ValueError(f"{name} is {value}, expected at least {least}.")
