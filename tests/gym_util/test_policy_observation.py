"""Any environment as a policy sees it."""

import re

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete

from diffusion_policy.gym_util.policy_observation import PolicyObservation


class Line(gymnasium.Env):
    """Adds actions up; success is a sum of 2 at least."""

    observation_space = Dict(
        {
            "where": Box(-9, 9, (2, 2), np.float64),
            "goal": Box(-9, 9, (1,), np.float64),
            "camera": Box(0, 255, (4, 6, 3), np.uint8),
        }
    )
    action_space = Box(-1, 1, (1,), np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = 0.0
        return self._obs(), {}

    def step(self, action):
        self.x += float(action[0])
        return self._obs(), -1.0, False, False, {"reached": self.x == 2}

    def _obs(self):
        where = self.x + np.arange(4.0).reshape(2, 2)
        return {"where": where, "goal": np.array([2.0]), "camera": np.full((4, 6, 3), 51, np.uint8)}


def test_observations_are_named_and_put_side_by_side():
    env = PolicyObservation(Line(), {"obs": ["goal", "where"], "image": "camera"})
    obs, _ = env.reset(seed=0)
    np.testing.assert_array_equal(obs["obs"], np.array([2, 0, 1, 2, 3], np.float32))
    assert obs["image"].shape == env.observation_space["image"].shape == (3, 4, 6)
    assert np.unique(obs["image"]).tolist() == [np.float32(0.2)]
    assert all(value.dtype == np.float32 for value in obs.values())


def test_success_is_the_reward_and_the_end():
    env = PolicyObservation(Line(), {"obs": "where"}, success_key="reached")
    for _ in range(2):
        env.reset(seed=0)
        assert env.step(np.array([5.0]))[1:4] == (0.0, False, False)  # clipped to 1
        _, reward, terminated, _, info = env.step(np.array([1.0]))
        assert (reward, terminated) == (1.0, True)
        assert info == {"success": True, "env_return": -2.0}
        assert env.step(np.array([1.0]))[1] == 1.0  # it stays a success


def test_without_success_key_the_reward_is_the_environments():
    env = PolicyObservation(Line(), {"obs": "where"}, action_bounds=(-0.5, 0.5))
    env.reset(seed=0)
    obs, reward, terminated, _, info = env.step(np.array([3.0]))
    assert (reward, terminated, obs["obs"][0]) == (-1.0, False, 0.5)
    assert info == {"success": False, "env_return": -1.0}


def test_absent_success_key_lists_what_there_is():
    env = PolicyObservation(Line(), {"obs": "where"}, success_key="is_success")
    env.reset(seed=0)
    with pytest.raises(ValueError, match=re.escape("no info 'is_success' after a step; it has ['reached']")):
        env.step(np.array([1.0]))


@pytest.mark.parametrize(
    ("obs_keys", "dims", "message"),
    [
        ({"obs": "were"}, {}, "no observation 'were': it has ['camera', 'goal', 'where']"),
        ({"obs": None}, {}, "observation None is Dict"),
        ({"obs": "where"}, {"obs": 5}, "'obs' has 4 entries, but the config's task.obs_dim is 5"),
        ({"obs": "where"}, {"action": 2}, "'action' has 1 entries, but the config's task.action_dim is 2"),
    ],
)
def test_what_does_not_fit_is_refused(obs_keys, dims, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        PolicyObservation(Line(), obs_keys, dims=dims)


def test_discrete_actions_are_refused():
    env = Line()
    env.action_space = Discrete(3)
    with pytest.raises(ValueError, match="Discrete"):
        PolicyObservation(env, {"obs": "where"})
