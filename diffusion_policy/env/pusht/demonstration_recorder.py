"""Recording of Push-T episodes in the layout of the published demonstrations."""

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from diffusion_policy.env.pusht.pusht_keypoints_env import PushTKeypointsEnv

Arrays = dict[str, NDArray[np.float32]]


def recorded_keypoints_env(**kwargs: Any) -> gymnasium.Env:
    """A `PushTKeypointsEnv` whose episodes are recorded."""
    return DemonstrationRecorder(PushTKeypointsEnv(**kwargs))


def recorded_observation(obs: NDArray[np.float64], info: dict[str, Any]) -> Arrays:
    """`state` (5,) and the block's `keypoint` (9, 2), as published, of what a `PushTKeypointsEnv` returned."""
    x, y, angle = info["block_pose"]
    positions, _mask = np.split(obs, 2)
    return {
        "state": np.array([*info["pos_agent"], x, y, angle % (2 * np.pi)], dtype=np.float32),
        "keypoint": positions.reshape(-1, 2)[:-1].astype(np.float32),
    }


def recorded_action(action: Any, info: dict[str, Any]) -> Arrays:
    """`action` (2,) and the `n_contacts` (1,) that it made, as published."""
    return {
        "action": np.asarray(action, dtype=np.float32),
        "n_contacts": np.array([info["n_contacts"]], dtype=np.float32),
    }


def stack_steps(steps: list[Arrays]) -> Arrays:
    """An episode: arrays `(N, ...)` by key."""
    return {key: np.stack([step[key] for step in steps]) for key in steps[0]}


class DemonstrationRecorder(gymnasium.Wrapper):
    """Gives, in the info of the step that ends an episode, the whole of it as `demonstration`.

    That is a dict of `state` `(N, 5)`, `keypoint` `(N, 9, 2)`, `action` `(N, 2)` and `n_contacts` `(N, 1)`: what was
    seen before each action, the action, and how many contacts it made.
    """

    def __init__(self, env: PushTKeypointsEnv) -> None:
        super().__init__(env)
        self._steps: list[Arrays] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._steps = []
        obs, info = self.env.reset(seed=seed, options=options)
        self._seen = recorded_observation(obs, info)
        return obs, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._steps.append(self._seen | recorded_action(action, info))
        self._seen = recorded_observation(obs, info)
        if terminated:
            info["demonstration"] = stack_steps(self._steps)
        return obs, reward, terminated, truncated, info
