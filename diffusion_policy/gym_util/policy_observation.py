"""Any gymnasium environment as a policy sees it: chosen observations by name, and success as reward."""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

from diffusion_policy.gym_util.mujoco_gl import rendering_explained


class PolicyObservation(gymnasium.Wrapper):
    """Names observations as the policy does, clips actions, and turns success, where there is any, into the reward.

    Args:
        env: with observations in a Box or a Dict of them, and actions in a Box.
        obs_keys: for each of the policy's names, the environment's, or a list of them whose vectors are put side by
            side; None for a whole Box. Images `(H, W, 3)` uint8 become `(3, H, W)` float32 in [0, 1].
        success_key: the info that is true, or positive, at success. The reward is then 1 from the first success on,
            before that 0, and the episode ends there. None: the reward is the environment's.
        action_bounds: what actions are clipped to; None: the bounds of the environment's action space.
        dims: entries that each of the policy's names, and "action", must have.

    Raises:
        ValueError: a key that does not exist, or other dimensions.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        obs_keys: Mapping[str, str | Sequence[str] | None],
        success_key: str | None = None,
        action_bounds: tuple[float, float] | None = None,
        dims: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(env)
        if not isinstance(env.action_space, Box):
            raise ValueError(f"{_name(env)} has actions in {env.action_space}; policies have vectors of numbers (Box)")
        self.obs_keys = {name: [keys] if isinstance(keys, str) else keys for name, keys in obs_keys.items()}
        self.success_key = success_key
        bounds: tuple[Any, Any] = action_bounds or (env.action_space.low, env.action_space.high)
        self.low, self.high = bounds
        self.succeeded = False
        self.env_return = 0.0
        spaces = {name: self._space(keys) for name, keys in self.obs_keys.items()}
        self.observation_space = self._policy_space = Dict(dict(spaces.items()))
        given = {**{name: space.shape[-1] for name, space in spaces.items()}, "action": env.action_space.shape[-1]}
        for name, dim in (dims or {}).items():
            if given.get(name) != dim:
                raise ValueError(
                    f"{_name(env)}: {name!r} has {given.get(name)} entries, but the config's task.{name}_dim is {dim}; "
                    f"obs_keys are {dict(obs_keys)}"
                )

    def reset(self, **kwargs: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Starts an episode."""
        obs, info = self.env.reset(**kwargs)
        self.succeeded, self.env_return = False, 0.0
        return self._named(obs), info

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Infos are `success`, so far in the episode, and `env_return`, the sum of the environment's rewards."""
        obs, reward, terminated, truncated, info = self.env.step(np.clip(action, self.low, self.high))
        self.env_return += float(reward)
        if self.success_key is not None:
            if self.success_key not in info:
                raise ValueError(
                    f"{_name(self.env)} has no info {self.success_key!r} after a step; it has {sorted(info)}. Set "
                    "task.env_runner.success_key to one of them, or to null to score by reward"
                )
            self.succeeded |= bool(np.asarray(info[self.success_key]) > 0)
            reward, terminated = float(self.succeeded), terminated or self.succeeded
        infos = {"success": self.succeeded, "env_return": self.env_return}
        return self._named(obs), float(reward), terminated, truncated, infos

    def render(self) -> Any:
        """The environment's image."""
        with rendering_explained():
            return self.env.render()

    def _space(self, keys: Sequence[str] | None) -> Box:
        boxes = [self._box(key) for key in keys] if keys is not None else [self._box(None)]
        if len(boxes) == 1 and _is_image(boxes[0]):
            height, width, channels = boxes[0].shape
            return Box(0, 1, (channels, height, width), np.float32)
        return Box(-np.inf, np.inf, (sum(int(np.prod(box.shape)) for box in boxes),), np.float32)

    def _box(self, key: str | None) -> Box:
        space = self.env.observation_space
        if key is not None:
            known = sorted(space) if isinstance(space, Dict) else None
            if not isinstance(space, Dict) or key not in space.spaces:
                has = f"it has {known}" if known else "its observation has no names, so leave obs_keys null"
                raise ValueError(f"{_name(self.env)} has no observation {key!r}: {has}")
            space = space[key]
        if not isinstance(space, Box):
            raise ValueError(f"{_name(self.env)}: observation {key!r} is {space}, expected a Box: name a part of it")
        return space

    def _named(self, obs: Any) -> dict[str, np.ndarray]:
        return {
            name: _as_policy_sees([obs] if keys is None else [obs[key] for key in keys], self._policy_space[name])
            for name, keys in self.obs_keys.items()
        }


def _is_image(box: Box) -> bool:
    return box.dtype == np.uint8 and len(box.shape) == 3 and box.shape[2] in (1, 3)


def _as_policy_sees(parts: list[Any], space: gymnasium.Space) -> np.ndarray:
    assert space.shape is not None
    if len(space.shape) == 3:
        return np.moveaxis(np.asarray(parts[0], np.float32) / 255, -1, 0)
    return np.concatenate([np.asarray(part, np.float32).ravel() for part in parts])


def _name(env: gymnasium.Env) -> str:
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__
