import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from diffusion_policy.env.robomimic.demonstrations import make_env_meta
from diffusion_policy.env.robomimic.robosuite_env import RobosuiteEnv

# Recorded in robosuite 1.4.1: states, what was observed in them, actions, and the states that these led to.
RECORDED = np.load(Path(__file__).with_name("robosuite_1_4_1.npz"))
META = json.loads(str(RECORDED["meta"]))


@pytest.fixture(scope="module")
def env():
    env = RobosuiteEnv(make_env_meta("lift"))
    yield env
    env.close()


@pytest.mark.parametrize("name", META)
def test_old_recordings_are_observed_and_continue_as_then(name):
    env = RobosuiteEnv(META[name])
    observed = [key.split("/")[-1] for key in RECORDED.files if key.startswith(f"{name}/obs/")]
    assert "object" in observed
    for i, state in enumerate(RECORDED[f"{name}/states"]):
        obs = env.reset_to(state)
        np.testing.assert_array_equal(env.get_state(), state)
        for key in observed:
            np.testing.assert_allclose(obs[key], RECORDED[f"{name}/obs/{key}"][i], atol=2e-3, err_msg=key)
        env.step(RECORDED[f"{name}/actions"][i])
        arm = slice(1, 8)
        np.testing.assert_allclose(env.get_state()[arm], RECORDED[f"{name}/next_states"][i][arm], atol=1e-3)
    env.close()


def test_two_arms_poses_do_what_their_steps_do():
    """The arms face each other, so that the world's frame is neither one's."""
    relative, absolute = (RobosuiteEnv(META["TwoArmTransport"], abs_action=abs_action) for abs_action in (False, True))
    state, action = RECORDED["TwoArmTransport/states"][1], RECORDED["TwoArmTransport/actions"][1]
    relative.reset_to(state)
    pose = relative.absolute_action(action)
    after = [env.reset_to(state) and env.step(a)[0] for env, a in ((relative, action), (absolute, pose))]
    for arm in ("robot0", "robot1"):
        moved = after[0][f"{arm}_eef_pos"] - RECORDED[f"TwoArmTransport/obs/{arm}_eef_pos"][1]
        assert np.linalg.norm(moved) > 1e-3
        np.testing.assert_allclose(after[0][f"{arm}_eef_pos"], after[1][f"{arm}_eef_pos"], atol=1e-6)
    relative.close()
    absolute.close()


def test_a_seed_gives_an_episode_whatever_was_before(env):
    first = env.reset(seed=3)
    env.step(np.ones(7))
    other = env.reset(seed=4)
    again = env.reset(seed=3)
    assert not np.allclose(first["object"], other["object"])
    for key, value in first.items():
        np.testing.assert_array_equal(value, again[key])


def test_relative_poses_are_of_now(env):
    obs = env.reset(seed=5)
    for _ in range(3):
        obs, *_ = env.step(np.array([1, 1, -1, 0, 0, 0, -1.0]))
    np.testing.assert_allclose(obs["gripper_to_cube_pos"], obs["cube_pos"] - obs["robot0_eef_pos"], atol=1e-9)


def test_absolute_action_is_the_pose_that_the_step_asks_for(env):
    obs = env.reset(seed=6)
    action = np.array([0.5, -1, 0.2, 0, 0, 0.4, 1])
    pose = env.absolute_action(action)
    np.testing.assert_allclose(pose[:3], obs["robot0_eef_pos"] + 0.05 * action[:3], atol=1e-6)
    hand = Rotation.from_quat(obs["robot0_eef_quat_site"])
    turned = Rotation.from_rotvec(pose[3:6]) * hand.inv()
    np.testing.assert_allclose(turned.as_rotvec(), [0, 0, 0.2], atol=1e-3)
    assert pose[6] == 1


RENDER = """
import numpy as np
from diffusion_policy.env.robomimic.demonstrations import make_env_meta
env = robosuite_env.RobosuiteEnv(make_env_meta("lift"))
env.reset(seed=0)
image = env.render(60, 80, "frontview").astype(int)
assert image.shape == (60, 80, 3), image.shape
red = (image[..., 0] > 2 * image[..., 1].clip(20)) & (image[..., 0] > 60)  # the cube
assert red.any()
assert np.flatnonzero(red.any(1)).mean() > 30  # on the table, below the arm
"""


def test_images_are_upright_and_of_the_size_asked_for():
    """In a process of its own, as in rollouts: Mesa is loaded late in one that has loaded much before."""
    result = _run(RENDER)
    assert result.returncode == 0, result.stderr


def test_unknown_environments_cameras_and_states_are_refused(env):
    with pytest.raises(ValueError, match="has no environment 'Juggle'; it has"):
        RobosuiteEnv({**make_env_meta("lift"), "env_name": "Juggle"})
    with pytest.raises(ValueError, match="no camera 'backview'; it has frontview"):
        RobosuiteEnv(make_env_meta("lift"), {"backview": (8, 8)})
    with pytest.raises(ValueError, match=r"Lift has states \(32,\), got \(45,\)"):
        env.reset_to(RECORDED["NutAssemblySquare/states"][0])


def _run(code, **environment):
    command = [sys.executable, "-c", f"from diffusion_policy.env.robomimic import robosuite_env\n{code}"]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120)


def test_the_missing_extra_is_named():
    result = _run("import sys; sys.modules['robosuite'] = None; robosuite_env.RobosuiteEnv({'env_name': 'Lift'})")
    assert "pip install 'diffusion_policy[sim]'" in result.stderr
    assert "ImportError" in result.stderr


def test_a_missing_opengl_is_explained():
    result = _run("robosuite_env.RobosuiteEnv({'env_name': 'Lift'})", MUJOCO_GL="nonsense")
    assert "finds no OpenGL to render with" in result.stderr
    assert "MUJOCO_GL is nonsense" in result.stderr
    assert "libegl1" in result.stderr
