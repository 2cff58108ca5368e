"""Environments one after the other in this process: for debugging what AsyncVectorEnv runs in parallel."""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
from gymnasium.vector import AutoresetMode

from diffusion_policy.gym_util.per_env import Info, add_info, per_env_calls, per_env_seeds


class SyncVectorEnv(gymnasium.vector.SyncVectorEnv):
    """Steps environments in turn, without auto-reset; otherwise like AsyncVectorEnv.

    Args:
        env_fns: make the environments.
        observation_space: space of one environment, which all must have (default: the first one's).
        action_space: likewise.
        copy: return copies of the observation buffer, not the buffer.
    """

    def __init__(
        self,
        env_fns: Sequence[Callable[[], gymnasium.Env]],
        observation_space: gymnasium.Space | None = None,
        action_space: gymnasium.Space | None = None,
        copy: bool = True,
    ) -> None:
        if not env_fns:
            raise ValueError("env_fns is empty: give one function for each environment.")
        super().__init__(env_fns, copy=copy, autoreset_mode=AutoresetMode.DISABLED)
        expected = {"single_observation_space": observation_space, "single_action_space": action_space}
        for name, space in expected.items():
            if space is not None and space != getattr(self, name):
                self.close()
                raise RuntimeError(f"The environments' {name} is {getattr(self, name)}, expected {space}.")

    def seed(self, seeds: int | Sequence[int | None] | None = None) -> None:
        """Calls `seed` of every environment: with `seeds[i]`, or with `seeds + i`."""
        self.call_each("seed", [(seed,) for seed in per_env_seeds(self.num_envs, seeds)])

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, Info]:
        """Steps every environment, also those that are done: MultiStepWrapper ignores the actions then."""
        self._autoreset_envs[:] = False  # gymnasium insists on a reset otherwise
        return super().step(actions)

    def call_each(
        self,
        name: str,
        args_list: Sequence[Sequence[Any]] | None = None,
        kwargs_list: Sequence[dict[str, Any]] | None = None,
    ) -> tuple[Any, ...]:
        """Calls method `name` (or reads the attribute) of each environment with arguments of its own."""
        results = []
        calls = per_env_calls(self.num_envs, args_list, kwargs_list)
        for env, (args, kwargs) in zip(self.envs, calls, strict=True):
            attribute = env.get_wrapper_attr(name)
            results.append(attribute(*args, **kwargs) if callable(attribute) else attribute)
        return tuple(results)

    def render(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Calls `render` of every environment."""
        return self.call("render", *args, **kwargs)

    def _add_info(self, vector_infos: Info, env_info: Info, env_num: int) -> Info:
        return add_info(vector_infos, env_info, env_num, self.num_envs)
