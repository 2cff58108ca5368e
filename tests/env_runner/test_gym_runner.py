"""Rollouts of environments that nothing here was written for, such as gymnasium-robotics' Fetch."""

import pytest
import torch
from runner_log import scores, video_sizes

from diffusion_policy.env_runner.gym_runner import GymRunner

FETCH = {"env_id": "gymnasium_robotics:FetchReach-v4", "max_steps": 12, "success_key": "is_success"}
OBS = {"obs": ["achieved_goal", "desired_goal"]}


class Reach:
    """Goes for the goal, with noise."""

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, gain=5.0, noise=0.2):
        self.gain, self.noise = gain, noise

    def reset(self):
        self.seen = []

    def predict_action(self, obs_dict, generator=None):
        self.seen.append(obs_dict["obs"])
        here, goal = obs_dict["obs"][:, -1].split(3, dim=-1)
        noise = torch.stack([torch.randn(4, generator=g) for g in generator])
        action = torch.cat([self.gain * (goal - here), torch.zeros(len(here), 1)], dim=1) + self.noise * noise
        return {"action": action[:, None].repeat(1, 2, 1)}


@pytest.fixture
def make_runner(tmp_path, closed_at_end):
    small = {**FETCH, "obs_keys": OBS, "n_test": 3, "n_test_vis": 0, "n_envs": 3}
    return lambda **kwargs: closed_at_end(GymRunner(tmp_path, **{**small, **kwargs}))


def test_success_is_scored_and_filmed(make_runner):
    log = make_runner(n_test_vis=1, env_kwargs={"width": 64, "height": 48}).run(Reach())
    seeds = (100_000, 100_001, 100_002)
    keys = {*(f"test/sim_max_reward_{seed}" for seed in seeds), "test/mean_score", "test/success_rate"}
    assert set(scores(log)) == {*keys, "test/mean_return"}
    assert log["test/mean_score"] == log["test/success_rate"] == 1
    assert -12 < log["test/mean_return"] <= 0
    [(width, height, frames)] = video_sizes(log).values()
    assert (width, height) == (64, 48)
    assert frames >= 1


def test_no_success_is_no_score(make_runner):
    assert make_runner().run(Reach(gain=0.0, noise=0.0))["test/mean_score"] == 0


def test_scores_do_not_depend_on_the_number_of_workers(make_runner):
    policy = Reach(gain=1.0, noise=0.6)
    runner = make_runner(n_test=4, n_envs=4)
    expected = scores(runner.run(policy))
    assert scores(runner.run(policy)) == expected
    assert scores(make_runner(n_test=4, n_envs=1).run(policy)) == expected


def test_a_vector_observation_needs_no_names(tmp_path, closed_at_end):
    runner = closed_at_end(GymRunner(tmp_path, "Pendulum-v1", max_steps=4, n_test=1, n_test_vis=0, n_obs_steps=3))

    class Still(Reach):
        def predict_action(self, obs_dict, generator=None):
            self.seen.append(obs_dict["obs"])
            return {"action": torch.zeros(1, 2, 1)}

    policy = Still()
    log = runner.run(policy)
    assert policy.seen[0].shape == (1, 3, 3)
    assert "test/success_rate" not in log
    assert log["test/mean_score"] == log["test/sim_max_reward_100000"] <= 0


@pytest.mark.parametrize(
    ("env_id", "error", "message"),
    [
        ("gymnasium_robotics:FetchReach-v3000", ValueError, "did you mean FetchReach-v"),
        ("Pendulom-v1", ValueError, "did you mean Pendulum-v1"),
        ("qqqqqqqq", ValueError, "no environment 'qqqqqqqq' is registered: A package"),
        ("absent_package:FetchReach-v4", ModuleNotFoundError, "needs the package 'absent_package'"),
    ],
)
def test_unknown_environments_are_refused_at_once(make_runner, env_id, error, message):
    with pytest.raises(error, match=message):
        make_runner(env_id=env_id)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"success_key": "succeeded"},
            r"no info 'succeeded' after a step; it has \[.*'is_success'",
        ),
        ({"obs_keys": {"obs": "state"}}, r"no observation 'state': it has \['achieved_goal'"),
        ({"obs_dim": 7}, r"'obs' has 6 entries, but the config's task.obs_dim is 7"),
    ],
)
def test_what_does_not_fit_ends_the_run_with_the_reason(make_runner, changes, message):
    with pytest.raises((ValueError, RuntimeError), match=message):
        make_runner(**changes, n_test=1).run(Reach())
