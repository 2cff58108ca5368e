"""An environment whose step executes a chunk of actions and whose observation is a short history."""

import pickle
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector.utils import batch_space

AGGREGATES: dict[str, Callable[[Any], Any]] = {"max": np.max, "min": np.min, "mean": np.mean, "sum": np.sum}


def stack_repeated(x: np.ndarray, n: int) -> np.ndarray:
    """`n` copies of `x` as one array `(n, *x.shape)`."""
    return np.repeat(np.expand_dims(x, axis=0), n, axis=0)


def repeated_space(space: gymnasium.Space, n: int) -> gymnasium.Space:
    """Space of `n` elements of `space`, stacked along a new first axis."""
    return batch_space(space, n)


repeated_box = repeated_space


def take_last_n(x: Sequence[Any], n: int) -> np.ndarray:
    """The last `n` (or fewer) entries as an array."""
    return np.array(list(x)[-n:])


def dict_take_last_n(x: Mapping[str, Sequence[Any]], n: int) -> dict[str, np.ndarray]:
    """`take_last_n` of every value."""
    return {key: take_last_n(value, n) for key, value in x.items()}


def aggregate(data: Sequence[float], method: str = "max") -> Any:
    """One number for a sequence: its 'max', 'min', 'mean' or 'sum'."""
    if method not in AGGREGATES:
        raise ValueError(f"Unknown aggregation {method!r}, expected one of {sorted(AGGREGATES)}.")
    return AGGREGATES[method](data)


def stack_last_n_obs(all_obs: Sequence[np.ndarray], n_steps: int) -> np.ndarray:
    """The last `n_steps` observations as `(n_steps, *shape)`; the oldest stands in for missing ones."""
    last = list(all_obs)[-n_steps:]
    return np.stack([last[0]] * (n_steps - len(last)) + last)


class MultiStepWrapper(gymnasium.Wrapper):
    """Takes `n_action_steps` actions at once and returns the last `n_obs_steps` observations.

    The reward of a step aggregates all rewards since the reset. Once the environment is done, further actions
    are ignored and the last observation stays. Infos are histories of the last `n_obs_steps` values.

    Args:
        env: environment with a Box or Dict observation space and a Box action space.
        n_obs_steps: length of the observation history.
        n_action_steps: number of actions in a chunk; `step` takes chunks of other lengths too.
        max_episode_steps: truncate the episode after so many actions (None: never).
        reward_agg_method: 'max', 'min', 'mean' or 'sum'.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        n_obs_steps: int,
        n_action_steps: int,
        max_episode_steps: int | None = None,
        reward_agg_method: str = "max",
    ) -> None:
        super().__init__(env)
        if n_obs_steps < 1 or n_action_steps < 1:
            raise ValueError(f"{n_obs_steps=} and {n_action_steps=} must be at least 1.")
        if reward_agg_method not in AGGREGATES:
            raise ValueError(f"{reward_agg_method=}, expected one of {sorted(AGGREGATES)}.")
        self.observation_space = repeated_space(env.observation_space, n_obs_steps)
        self.action_space = repeated_space(env.action_space, n_action_steps)
        self.n_obs_steps = n_obs_steps
        self.n_action_steps = n_action_steps
        self.max_episode_steps = max_episode_steps
        self.reward_agg_method = reward_agg_method
        self._start([])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode; returns the observation history `(n_obs_steps, ...)` and the env's info."""
        obs, info = self.env.reset(seed=seed, options=options)
        self._start([obs])
        return self._get_obs(self.n_obs_steps), info

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, np.ndarray]]:
        """Executes actions `(n, Da)` until the environment is done."""
        for single_action in action:
            if self.terminated or self.truncated:
                break
            obs, reward, terminated, truncated, info = self.env.step(single_action)
            self.obs.append(obs)
            self.reward.append(reward)
            self.terminated |= bool(terminated)
            self.truncated |= bool(truncated) or len(self.reward) == self.max_episode_steps
            for key, value in info.items():
                self.info[key].append(value)
        return (
            self._get_obs(self.n_obs_steps),
            aggregate(self.reward, self.reward_agg_method),
            self.terminated,
            self.truncated,
            dict_take_last_n(self.info, self.n_obs_steps),
        )

    def get_rewards(self) -> list[Any]:
        """Rewards of all actions since the reset."""
        return self.reward

    def get_infos(self) -> dict[str, list[Any]]:
        """The last `n_obs_steps + 1` values of every info."""
        return {key: list(values) for key, values in self.info.items()}

    def get_attr(self, name: str) -> Any:
        """Attribute of this wrapper or of what it wraps."""
        return self.get_wrapper_attr(name)

    def run_dill_function(self, dill_fn: bytes) -> Any:
        """Calls a function, pickled by cloudpickle or dill, with this wrapper as its argument."""
        return pickle.loads(dill_fn)(self)

    def _start(self, observations: list[Any]) -> None:
        length = self.n_obs_steps + 1
        self.obs: deque[Any] = deque(observations, maxlen=length)
        self.info: defaultdict[str, deque[Any]] = defaultdict(lambda: deque(maxlen=length))
        self.reward: list[Any] = []
        self.terminated = self.truncated = False

    def _get_obs(self, n_steps: int) -> Any:
        if isinstance(self.env.observation_space, gymnasium.spaces.Dict):
            keys = self.env.observation_space.keys()
            return {key: stack_last_n_obs([obs[key] for obs in self.obs], n_steps) for key in keys}
        return stack_last_n_obs(self.obs, n_steps)
