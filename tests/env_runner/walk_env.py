"""An environment of the tests, in a module of its own so that workers need not import torch."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Walk(gymnasium.Env):
    """A walk from x = seed: observes [t, x], rewards x, ends beyond `limit`."""

    action_space = spaces.Box(-9, 9, (1,), np.float32)

    def __init__(self, limit: float = 1e6, dict_obs: bool = False, broken_seed: int | None = None) -> None:
        box = spaces.Box(-1e6, 1e6, (2,), np.float64)
        self.observation_space = spaces.Dict({"state": box}) if dict_obs else box
        self.limit = limit
        self.dict_obs = dict_obs
        self.broken_seed = broken_seed
        self.t, self.x = 0, 0.0

    def _obs(self) -> Any:
        obs = np.array([self.t, self.x])
        return {"state": obs} if self.dict_obs else obs

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        if seed is not None and seed == self.broken_seed:
            raise ValueError("no such start")
        self.t, self.x = 0, float(seed or 0)
        return self._obs(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict]:
        self.t += 1
        self.x += float(action[0])
        return self._obs(), self.x, self.x > self.limit, False, {"x": self.x}

    def render(self, mode: str = "human", size: int = 16) -> np.ndarray:
        return np.zeros((size, size, 3), np.uint8)
