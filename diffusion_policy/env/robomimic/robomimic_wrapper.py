"""What the gymnasium environments around RobosuiteEnv share, whatever is observed."""

from abc import abstractmethod
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from diffusion_policy.env.robomimic.robosuite_env import RobosuiteEnv


class RobomimicWrapper(gymnasium.Env):
    """An episode begins in `init_state` where that is set, else as the seed says; rewards are robosuite's, sparse.

    Args:
        env: what is wrapped.
        init_state: recorded state `(S,)`, see `RobosuiteEnv.reset_to`; may be set at any time before a reset.
    """

    def __init__(self, env: RobosuiteEnv, init_state: NDArray[np.float64] | None = None) -> None:
        self.env = env
        self.init_state = init_state
        self.action_space = gymnasium.spaces.Box(-np.inf, np.inf, (env.action_dim,), np.float64)
        self._seed: int | None = None

    @abstractmethod
    def get_observation(self, raw_obs: dict[str, NDArray[Any]] | None = None) -> Any:
        """What is observed, of `RobosuiteEnv.get_observation` (None: that of now)."""

    def seed(self, seed: int | None = None) -> None:
        """Seeds the next reset."""
        self._seed = seed

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode, the same for the same seed or `init_state`, whatever was before."""
        seed, self._seed = self._seed if seed is None else seed, None
        if self.init_state is not None:
            return self.get_observation(self.env.reset_to(self.init_state)), {}
        return self.get_observation(self.env.reset(seed)), {}

    def step(self, action: NDArray[Any]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Executes an action `(Da,)`; the episode ends once the task is accomplished, when the reward is highest.

        Raises:
            ValueError: the action is not finite, which MuJoCo would not survive.
        """
        if not np.isfinite(action).all():
            raise ValueError(f"the action is not finite: {action}")
        raw_obs, reward, _, info = self.env.step(action)
        return self.get_observation(raw_obs), reward, self.env.is_success(), False, info

    def close(self) -> None:
        self.env.close()
