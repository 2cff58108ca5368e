import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from diffusion_policy.gym_util.multistep_wrapper import MultiStepWrapper
from diffusion_policy.gym_util.sync_vector_env import SyncVectorEnv


class Line(gymnasium.Env):
    """A point on a line; done after `length` steps."""

    observation_space = spaces.Box(-99, 99, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, length: int = 99) -> None:
        self.length = length
        self.seed_value: int | None = None
        self.steps = 0
        self.x = 0.0

    def seed(self, seed: int | None = None) -> None:
        self.seed_value = seed

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        self.x = float(seed or 0)
        self.steps = 0
        return np.array([self.x], np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.x += float(action[0])
        self.steps += 1
        return np.array([self.x], np.float32), self.x, self.steps >= self.length, False, {"x": self.x}

    def render(self, scale: float = 1.0) -> float:
        return self.x * scale

    def shifted(self, by: float) -> float:
        return self.x + by


def test_steps_calls_and_attributes() -> None:
    envs = SyncVectorEnv([Line] * 2)
    assert envs.reset(seed=[1, 2])[0].ravel().tolist() == [1, 2]
    obs, rewards, *_, infos = envs.step(np.array([[0.5], [1.0]]))
    assert obs.ravel().tolist() == rewards.tolist() == infos["x"].tolist() == [1.5, 3.0]
    assert envs.call("shifted", 1) == (2.5, 4.0)
    assert envs.call_each("shifted", [(1,), (2,)]) == (2.5, 5.0)
    assert envs.call_each("shifted", kwargs_list=[{"by": 0}, {"by": 1}]) == (1.5, 4.0)
    assert envs.render(scale=2.0) == (3.0, 6.0)
    envs.set_attr("x", [7.0, 8.0])
    assert envs.call_each("x") == (7.0, 8.0)
    envs.seed(3)
    assert envs.call("seed_value") == (3, 4)
    with pytest.raises(ValueError, match="2 environments"):
        envs.call_each("shifted", [(1,)])
    envs.close()


def test_steps_after_the_end_are_ignored_and_nothing_resets() -> None:
    envs = SyncVectorEnv([lambda n=n: MultiStepWrapper(Line(n), 3, 2) for n in (1, 99)])
    envs.reset()
    for _ in range(2):
        obs, _, terminated, _, infos = envs.step(np.ones((2, 2, 1), np.float32))
    assert terminated.tolist() == [True, False]
    assert obs[..., 0].tolist() == [[0, 0, 1], [2, 3, 4]]
    assert [x.tolist() for x in infos["x"]] == [[1], [2, 3, 4]]


def test_spaces_must_agree() -> None:
    with pytest.raises(RuntimeError, match="single_action_space"):
        SyncVectorEnv([Line], action_space=spaces.Discrete(2))
    with pytest.raises(ValueError, match="env_fns is empty"):
        SyncVectorEnv([])
