import json
import pickle
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from diffusion_policy.gym_util.multistep_wrapper import (
    MultiStepWrapper,
    aggregate,
    dict_take_last_n,
    repeated_space,
    stack_last_n_obs,
    stack_repeated,
    take_last_n,
)


class Counter(gymnasium.Env):
    """Observes its step count t, rewards the action's value, is done at t >= done_at."""

    def __init__(self, done_at: int = 99, dict_obs: bool = False) -> None:
        box = spaces.Box(-100, 100, (1,), np.float64)
        self.observation_space = spaces.Dict({"a": box}) if dict_obs else box
        self.action_space = spaces.Box(-1, 1, (1,), np.float64)
        self.done_at = done_at
        self.dict_obs = dict_obs
        self.t = 0

    def _obs(self) -> Any:
        obs = np.array([self.t], dtype=np.float64)
        return {"a": obs} if self.dict_obs else obs

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        self.t = 0
        return self._obs(), {"seed": seed, "options": options}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict]:
        self.t += 1
        return self._obs(), float(action[0]), self.t >= self.done_at, False, {"k": self.t}


def test_traces_of_the_original(compat: Path) -> None:
    traces = json.loads((compat / "numerics" / "misc.json").read_text())["MultiStepWrapper"]["cases"]
    assert len(traces) >= 7
    for case in traces:
        wrapper = MultiStepWrapper(
            Counter(case["done_at"], case["dict_obs"]),
            case["n_obs_steps"],
            case["n_action_steps"],
            case["max_episode_steps"],
            case["agg"],
        )
        start, *steps = case["log"]
        space = wrapper.observation_space["a"] if case["dict_obs"] else wrapper.observation_space
        assert space == spaces.Box(-100, 100, (case["n_obs_steps"], 1), np.float64)
        assert start["observation_space"].strip("()").endswith(f"{space.shape}, {space.dtype}")
        assert wrapper.action_space == spaces.Box(-1, 1, (case["n_action_steps"], 1), np.float64)
        obs, _ = wrapper.reset()
        assert np.ravel(obs["a"] if case["dict_obs"] else obs).tolist() == start["reset_obs"]
        for step in steps:
            obs, reward, terminated, truncated, info = wrapper.step(np.array(step["action"])[:, None])
            assert wrapper.observation_space.contains(obs)
            assert np.ravel(obs["a"] if case["dict_obs"] else obs).tolist() == step["obs"]
            assert reward == step["reward"]
            assert (terminated or truncated) is step["done"]
            assert info["k"].tolist() == step["info_k"]
            assert wrapper.get_rewards() == step["rewards_list"]
            assert wrapper.get_attr("t") == step["inner_t"]
        assert wrapper.get_infos() == case["get_infos"]


def test_reaching_max_episode_steps_truncates() -> None:
    wrapper = MultiStepWrapper(Counter(), n_obs_steps=2, n_action_steps=2, max_episode_steps=3)
    wrapper.reset()
    assert wrapper.step(np.zeros((2, 1)))[2:4] == (False, False)
    assert wrapper.step(np.zeros((2, 1)))[2:4] == (False, True)


def test_termination_is_not_truncation() -> None:
    wrapper = MultiStepWrapper(Counter(done_at=1), n_obs_steps=2, n_action_steps=2, max_episode_steps=3)
    wrapper.reset()
    assert wrapper.step(np.zeros((2, 1)))[2:4] == (True, False)


def test_reset_starts_over_and_passes_seed_and_options() -> None:
    wrapper = MultiStepWrapper(Counter(), n_obs_steps=2, n_action_steps=2, max_episode_steps=2)
    wrapper.reset()
    wrapper.step(np.ones((2, 1)))
    obs, info = wrapper.reset(seed=5, options={"x": 1})
    assert obs.tolist() == [[0], [0]]
    assert info == {"seed": 5, "options": {"x": 1}}
    assert wrapper.get_rewards() == []
    assert wrapper.step(np.zeros((1, 1)))[2:4] == (False, False)


@pytest.mark.parametrize("pickler", ["cloudpickle", "dill"])
def test_run_dill_function_runs_in_the_wrapper(pickler: str) -> None:
    dumps = pytest.importorskip(pickler).dumps
    done_at = 1

    def set_up(env: MultiStepWrapper) -> str:
        env.unwrapped.done_at = done_at
        return "ready"

    wrapper = MultiStepWrapper(Counter(), n_obs_steps=1, n_action_steps=1)
    assert wrapper.run_dill_function(dumps(set_up)) == "ready"
    wrapper.reset()
    assert wrapper.step(np.zeros((1, 1)))[2]


@pytest.mark.parametrize(
    "arguments",
    [{"n_obs_steps": 0}, {"n_action_steps": 0}, {"reward_agg_method": "median"}],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        MultiStepWrapper(Counter(), **{"n_obs_steps": 1, "n_action_steps": 1, **arguments})


def test_helpers() -> None:
    assert take_last_n([1, 2, 3], 2).tolist() == [2, 3]
    assert dict_take_last_n({"a": [1]}, 2)["a"].tolist() == [1]
    assert stack_repeated(np.arange(2), 2).tolist() == [[0, 1], [0, 1]]
    assert stack_last_n_obs([np.array([7]), np.array([8])], 3).tolist() == [[7], [7], [8]]
    assert [aggregate([1, 3], method) for method in ("max", "min", "mean", "sum")] == [3, 1, 2, 4]
    with pytest.raises(ValueError, match="median"):
        aggregate([1], "median")
    space = spaces.Dict({"a": spaces.Box(0, 1, (3,))})
    assert repeated_space(space, 2)["a"].shape == (2, 3)
    assert pickle.loads(pickle.dumps(repeated_space(space, 2))) == repeated_space(space, 2)
