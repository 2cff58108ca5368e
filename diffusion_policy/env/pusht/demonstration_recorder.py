"""Recording of Push-T episodes in the layout of the published demonstrations."""

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffusion_policy.env.pusht.pusht_keypoints_env import PushTKeypointsEnv


def recorded_keypoints_env(**kwargs: Any) -> gymnasium.Env:
    """A `PushTKeypointsEnv` whose episodes are recorded."""
    return DemonstrationRecorder(PushTKeypointsEnv(**kwargs))


class DemonstrationRecorder(gymnasium.Wrapper):
    """Gives, in the info of the step that ends an episode, the whole of it as `demonstration`.

    That is a dict of `state` `(N, 5)`, `keypoint` `(N, 9, 2)`, `action` `(N, 2)` and `n_contacts` `(N, 1)`, all
    float32: what was seen before each action, the action, and how many contacts it made.
    """

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self._steps: list[dict[str, NDArray]] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._steps = []
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        before = self._observe(action)
        obs, reward, terminated, truncated, info = self.env.step(action)
        before["n_contacts"] = np.array([info["n_contacts"]], dtype=np.float32)
        self._steps.append(before)
        if terminated:
            info["demonstration"] = {key: np.stack([step[key] for step in self._steps]) for key in before}
        return obs, reward, terminated, truncated, info

    def _observe(self, action: ArrayLike) -> dict[str, NDArray]:
        env: Any = self.env.unwrapped
        state = [*env.agent.position, *env.block.position, env.block.angle % (2 * np.pi)]
        keypoints = env.kp_manager.get_keypoints_global({"block": env.block}, is_obj=True)["block"]
        values = {"state": state, "keypoint": keypoints, "action": action}
        return {key: np.asarray(value, dtype=np.float32) for key, value in values.items()}
