"""Both runners of robomimic's tasks, in robosuite."""

import shutil

import h5py
import numpy as np
import pytest
from robomimic_data import edit, set_env_args, write_random
from robomimic_policies import Lifter, Replay
from runner_log import scores, video_sizes

from diffusion_policy.env.robomimic.demonstrations import make_env_meta
from diffusion_policy.env.robomimic.robomimic_image_wrapper import RobomimicImageWrapper
from diffusion_policy.env.robomimic.robomimic_lowdim_wrapper import OBS_KEYS, RobomimicLowdimWrapper
from diffusion_policy.env.robomimic.robosuite_env import RobosuiteEnv
from diffusion_policy.env_runner.robomimic_image_runner import RobomimicImageRunner
from diffusion_policy.env_runner.robomimic_lowdim_runner import RobomimicLowdimRunner
from diffusion_policy.model.common.absolute_actions import AbsoluteActions

STATES = ["object", "robot0_eef_pos"]
SMALL = {"n_train_vis": 0, "n_test_vis": 0, "max_steps": 60, "n_obs_steps": 2, "n_action_steps": 4}
SHAPE_META = {
    "obs": {
        "robot0_eye_in_hand_image": {"shape": [3, 24, 32], "type": "rgb"},
        "robot0_eef_pos": {"shape": [3]},
        "robot0_eef_quat": {"shape": [4]},
    },
    "action": {"shape": [7]},
}


@pytest.fixture
def make_lowdim(tmp_path, lift_demos, closed_at_end):
    def make(**kwargs):
        arguments = {"dataset_path": lift_demos, "obs_keys": STATES, **SMALL, **kwargs}
        return closed_at_end(RobomimicLowdimRunner(tmp_path, **arguments))

    return make


def test_scores_follow_seeds_whatever_the_number_of_processes(tmp_path, make_lowdim, lift_demos):
    path = shutil.copy(lift_demos, tmp_path / "shaped.hdf5")
    env_meta = make_env_meta("lift")
    env_meta["env_kwargs"]["reward_shaping"] = True  # so that scores tell episodes apart
    set_env_args(path, env_meta)
    logs = []
    for n_envs in (1, 4):
        runner = make_lowdim(dataset_path=path, n_train=1, n_test=3, test_start_seed=100, max_steps=8, n_envs=n_envs)
        logs.append(runner.run(Lifter()))
    logs.append(runner.run(Lifter()))
    assert scores(logs[0]) == scores(logs[1]) == scores(logs[2])
    expected = {"train/sim_max_reward_0", "train/mean_score", "test/mean_score"}
    expected |= {f"test/sim_max_reward_{seed}" for seed in (100, 101, 102)}
    assert scores(logs[0]).keys() == expected
    each = {value for key, value in scores(logs[0]).items() if "max_reward" in key}
    assert len(each) == 4
    assert all(0 < value < 1 for value in each)


def test_videos_show_the_camera(make_lowdim):
    log = make_lowdim(n_train=0, n_test=1, n_test_vis=1, max_steps=8, render_hw=(48, 64)).run(Lifter())
    assert video_sizes(log) == {"test/sim_video_10000": (64, 48, 4)}


@pytest.mark.parametrize("abs_action", [False, True])
def test_a_demonstrations_actions_succeed_from_where_it_began(make_lowdim, lift_demos, lift_abs_demos, abs_action):
    path = lift_abs_demos if abs_action else lift_demos
    policy = Replay(path, AbsoluteActions().from_env if abs_action else lambda action: action)
    runner = make_lowdim(dataset_path=path, n_train=3, n_test=0, abs_action=abs_action)
    log = runner.run(policy)
    assert scores(log) == dict.fromkeys((*(f"train/sim_max_reward_{i}" for i in range(3)), "train/mean_score"), 1.0)
    with h5py.File(path) as file:
        for i in range(3):
            recorded = np.concatenate([file[f"data/demo_{i}/obs/{key}"][0] for key in STATES])
            for step in range(2):  # the first observation stands in for the one before
                np.testing.assert_allclose(policy.seen[0]["obs"][i, step], recorded, atol=2e-3)


def test_latency_shows_the_policy_the_oldest_observations(make_lowdim):
    policy = Lifter()
    make_lowdim(n_train=0, n_test=1, max_steps=6, n_latency_steps=2, n_action_steps=2).run(policy)
    assert {obs["obs"].shape for obs in policy.seen} == {(1, 2, 13)}
    # Of four observations the oldest two: at the third call, two steps after the second, those that it saw last.
    np.testing.assert_array_equal(policy.seen[0]["obs"], policy.seen[1]["obs"])
    assert not np.array_equal(policy.seen[1]["obs"], policy.seen[2]["obs"])


def test_image_runner_shows_images_and_states_and_records_the_camera(tmp_path, lift_demos, closed_at_end):
    policy = Replay(lift_demos)
    camera = {"shape_meta": SHAPE_META, "render_obs_key": "robot0_eye_in_hand_image"}
    small = {**SMALL, "max_steps": 8, "n_train": 1, "n_train_vis": 1, "n_test": 1}
    runner = closed_at_end(RobomimicImageRunner(tmp_path, lift_demos, **camera, **small))
    log = runner.run(policy)
    assert video_sizes(log) == {"train/sim_video_0": (32, 24, 4)}
    image = policy.seen[0]["robot0_eye_in_hand_image"]
    assert image.shape == (2, 2, 3, 24, 32)
    assert 0 <= image.min() < image.max() <= 1
    with h5py.File(lift_demos) as file:
        recorded = file["data/demo_0/obs/robot0_eef_quat"][0]
    np.testing.assert_allclose(policy.seen[0]["robot0_eef_quat"][0, -1], recorded, atol=1e-3)


def test_initial_states_are_those_recorded_and_seeds_come_back_after_them(lift_demos):
    env = RobomimicLowdimWrapper(RobosuiteEnv(make_env_meta("lift")), OBS_KEYS)
    seeded, _ = env.reset(seed=7)
    with h5py.File(lift_demos) as file:
        states = [file[f"data/demo_{i}/states"][0] for i in range(3)]
    for state in states:
        env.init_state = state
        env.reset(seed=0)
        np.testing.assert_allclose(env.env.get_state(), state, atol=1e-9)
    env.init_state = None
    np.testing.assert_array_equal(env.reset(seed=7)[0], seeded)
    env.seed(7)
    np.testing.assert_array_equal(env.reset()[0], seeded)
    assert env.observation_space.contains(seeded)
    with pytest.raises(ValueError, match="the action is not finite"):
        env.step(np.full(7, np.nan))
    env.close()


def test_observations_that_do_not_exist_are_refused():
    env = RobosuiteEnv(make_env_meta("lift"))
    with pytest.raises(ValueError, match=r"Lift has no observations \['cup'\]; it has"):
        RobomimicLowdimWrapper(env, ["object", "cup"])
    with pytest.raises(ValueError, match="render_obs_key is 'agentview_image', expected one of"):
        RobomimicImageWrapper(env, SHAPE_META)
    wrong = {**SHAPE_META, "obs": {**SHAPE_META["obs"], "robot0_eef_pos": {"shape": [2]}}}
    with pytest.raises(ValueError, match=r"'robot0_eef_pos' has shape \[3\], shape_meta says \[2\]"):
        RobomimicImageWrapper(env, wrong, render_obs_key="robot0_eye_in_hand_image")
    env.close()


def test_files_that_say_nothing_of_their_environment_are_refused(tmp_path, make_lowdim, lift_demos):
    path = write_random(tmp_path / "low_dim.hdf5")
    with pytest.raises(ValueError, match="has no 'env_args'"):
        make_lowdim(dataset_path=path, n_train=0, n_test=1)
    edit(path, lambda file: file["data"].attrs.update({"env_args": "{"}))
    with pytest.raises(ValueError, match="env_args are not JSON"):
        make_lowdim(dataset_path=path, n_train=0, n_test=1)
    set_env_args(path, {**make_env_meta("lift"), "env_name": "Juggle"})
    with pytest.raises(ValueError, match="has no environment 'Juggle'"):
        make_lowdim(dataset_path=path, n_train=0, n_test=1).run(Lifter())
    with pytest.raises(ValueError, match="has 3 demonstrations, demo_0 to demo_2, and lacks demo_3"):
        make_lowdim(n_train=4, n_test=0)


def test_a_camera_that_does_not_exist_ends_the_run_with_the_seed(make_lowdim):
    runner = make_lowdim(n_train=0, n_test=1, n_test_vis=1, render_camera_name="backview")
    with pytest.raises(RuntimeError, match="test episode with seed 10000"):
        runner.run(Lifter())
