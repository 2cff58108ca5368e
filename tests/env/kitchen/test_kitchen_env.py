"""The kitchen: what is observed, what actions do, what counts as done."""

import os
import subprocess
import sys

import numpy as np
import pytest

from diffusion_policy.env.kitchen.kitchen_lowdim_wrapper import KitchenLowdimWrapper
from diffusion_policy.env.kitchen.state import NOISE_AMPLITUDE, OBS_ELEMENT_GOALS, OBS_ELEMENT_INDICES
from diffusion_policy.env.kitchen.v0 import KitchenMicrowaveKettleBottomBurnerLightV0


@pytest.fixture(autouse=True)
def _as_made(kitchen):
    yield
    kitchen.robot_noise_ratio, kitchen.use_abs_action = 0.0, False
    kitchen.set_goal_masking(True)


def _with_tasks_done(env, *tasks):
    qpos = env.init_qpos.copy()
    for task in tasks:
        qpos[OBS_ELEMENT_INDICES[task]] = OBS_ELEMENT_GOALS[task]
    return qpos


def test_observation_is_robot_objects_and_goal(kitchen):
    obs, info = kitchen.reset(seed=0)
    assert obs.shape == (60,)
    assert obs.dtype == np.float32
    np.testing.assert_allclose(obs[:30], kitchen.init_qpos, atol=1e-6)
    np.testing.assert_array_equal(obs[30:], 0)
    assert not info["completed"].any()
    kitchen.set_goal_masking(False)
    np.testing.assert_allclose(kitchen.observe()[30:], kitchen.get_goal(), atol=1e-6)
    assert kitchen.get_goal()[22] == -0.75


def test_noise_is_of_the_seed_and_of_the_amplitude(kitchen):
    kitchen.robot_noise_ratio = 0.1
    first, again, other = (kitchen.reset(seed=seed)[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    noise = np.abs([first[:30] - kitchen.init_qpos, other[:30] - kitchen.init_qpos])
    assert (noise <= 0.1 * NOISE_AMPLITUDE + 1e-6).all()
    assert (noise[:, :7] > 0).all()
    assert not np.array_equal(first, other)


def test_action_is_a_velocity_in_units_of_2_rad_per_s(kitchen):
    """So is gymnasium-robotics': the same action there moves the robot to the same place."""
    from gymnasium_robotics.envs.franka_kitchen.kitchen_env import KitchenEnv

    theirs = KitchenEnv(robot_noise_ratio=0.0, object_noise_ratio=0.0)
    theirs.reset(seed=0)
    kitchen.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(10):
        action = rng.uniform(-1.5, 1.5, 9)
        before = kitchen.data.qpos[:9].copy()
        expected = np.clip(before + 0.16 * np.clip(action, -1, 1), *kitchen.position_limits.T)
        np.testing.assert_allclose(kitchen.control(action), expected)
        obs = kitchen.step(action)[0]
        their_obs = theirs.step(action)[0]["observation"]
        np.testing.assert_allclose(obs[:30], np.concatenate([their_obs[:9], their_obs[18:39]]), atol=1e-5)


def test_absolute_actions_are_joint_positions_within_the_limits(kitchen):
    kitchen.reset(seed=0)
    target = kitchen.init_qpos[:9] + 0.05
    action = kitchen.action_for(target)
    velocity_control = kitchen.control(action)
    kitchen.use_abs_action = True
    np.testing.assert_allclose(kitchen.control(target), np.clip(target, *kitchen.position_limits.T))
    np.testing.assert_allclose(velocity_control, kitchen.control(target))
    np.testing.assert_array_equal(kitchen.action_for(target), target)
    far = kitchen.control(np.full(9, 1e6))
    assert (far <= kitchen.position_limits[:, 1]).all()
    assert (far - kitchen.init_qpos[:9] <= 10 * 0.08 + 1e-6).all()


def test_reward_counts_each_task_once(kitchen):
    kitchen.reset(seed=0)
    kitchen.set_state(_with_tasks_done(kitchen, "microwave", "light switch"), kitchen.init_qvel)
    _, reward, terminated, truncated, info = kitchen.step(np.zeros(9))
    assert (reward, terminated, truncated) == (2.0, False, False)
    done = {task for task, is_done in zip(kitchen.ALL_TASKS, info["completed"], strict=True) if is_done}
    assert done == {"microwave", "light switch"}
    kitchen.set_state(_with_tasks_done(kitchen, "microwave", "slide cabinet"), kitchen.init_qvel)
    assert kitchen.step(np.zeros(9))[1] == 1.0
    kitchen.set_state(_with_tasks_done(kitchen, *kitchen.ALL_TASKS), kitchen.init_qvel)
    _, reward, terminated, _, info = kitchen.step(np.zeros(9))
    assert (reward, terminated, info["completed"].all()) == (4.0, True, True)


def test_tasks_in_order_wait_for_those_before_them():
    env = KitchenMicrowaveKettleBottomBurnerLightV0(robot_noise_ratio=0.0)
    env.reset(seed=0)
    env.set_state(_with_tasks_done(env, "light switch"), env.init_qvel)
    assert env.step(np.zeros(9))[1] == 0
    env.set_state(_with_tasks_done(env, "light switch", "microwave"), env.init_qvel)
    assert env.step(np.zeros(9))[1] == 1
    env.set_state(_with_tasks_done(env, *env.TASK_ELEMENTS), env.init_qvel)
    assert env.step(np.zeros(9))[1:3] == (3.0, True)
    env.close()


def test_wrapper_starts_where_it_is_told(kitchen):
    qpos = kitchen.init_qpos + 0.01
    wrapper = KitchenLowdimWrapper(kitchen, init_qpos=qpos)
    np.testing.assert_allclose(wrapper.reset(seed=0)[0][:23], qpos[:23], atol=1e-6)
    wrapper.init_qpos = None
    np.testing.assert_allclose(wrapper.reset(seed=0)[0][:30], kitchen.init_qpos, atol=1e-6)


RENDER = """
from diffusion_policy.env.kitchen.kitchen_lowdim_wrapper import KitchenLowdimWrapper
from diffusion_policy.env.kitchen.v0 import KitchenAllV0
wrapper = KitchenLowdimWrapper(KitchenAllV0(), render_hw=(48, 64))
wrapper.reset(seed=0)
image = wrapper.render()
assert image.shape == (48, 64, 3), image.shape
assert image.std() > 10, image.std()
"""


def test_wrapper_renders_in_the_size_asked_for():
    """In a process of its own, as in rollouts: Mesa is loaded late in one that has loaded much before."""
    done = _python(RENDER)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("qpos", "message"), [(np.zeros(29), r"qpos has shape \(29,\)"), (None, "action has shape")])
def test_wrong_shapes_are_refused(kitchen, qpos, message):
    kitchen.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        kitchen.step(np.zeros(7)) if qpos is None else kitchen.set_state(qpos, np.zeros(29))


def _python(code, **env):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **env})


def test_missing_simulator_names_the_extra():
    code = "import sys; sys.modules['gymnasium_robotics'] = None; import diffusion_policy.env.kitchen.v0"
    assert "pip install 'diffusion_policy[sim]'" in _python(code).stderr


def test_missing_opengl_says_what_to_do():
    code = "from diffusion_policy.env.kitchen.v0 import KitchenAllV0; KitchenAllV0().render()"
    done = _python(code, MUJOCO_GL="disable")
    assert "RuntimeError: cannot render" in done.stderr
    assert "n_test_vis=0" in done.stderr
