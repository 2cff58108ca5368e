"""The Franka kitchen of gymnasium-robotics, with the observations and the tasks of relay policy learning."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from diffusion_policy.env.kitchen.state import (
    BONUS_THRESH,
    N_QPOS,
    N_ROBOT,
    OBS_DIM,
    OBS_ELEMENT_GOALS,
    OBS_ELEMENT_INDICES,
    SIMULATION_STEPS,
    STEP_SEC,
    task_distance,
    with_noise,
)
from diffusion_policy.gym_util.mujoco_gl import prefer_headless_gl, rendering_explained

prefer_headless_gl()
try:
    import mujoco
    from gymnasium_robotics.envs.franka_kitchen.franka_env import DEFAULT_CAMERA_CONFIG
    from gymnasium_robotics.envs.franka_kitchen.kitchen_env import KitchenEnv
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"the kitchen needs {error.name}, which is not installed: pip install 'diffusion_policy[sim]'", name=error.name
    ) from error

VELOCITY_SCALE = 2.0
"""Joint velocity of an action of 1 (rad/s, m/s)."""


class KitchenBase(gymnasium.Env):
    """Franka arm in a kitchen with seven tasks; a subclass says which of them count.

    An observation `(60,)` is the joints of robot (9) and objects (21), both with noise, and the goal (30).
    The reward of a step is the number of tasks first done in it; the episode ends with the last of them.
    `info["completed"]` says which are done, `(7,)` bool in the order of `ALL_TASKS`.

    Actions `(9,)` are those of the demonstrations: normalised joint velocities, clipped to [-1, 1], which the
    controller turns into a target of `observed joints + 2 action 0.08 s`; or, with `use_abs_action`, the targets
    themselves (rad, m).

    Args:
        use_abs_action: actions are joint positions.
        robot_noise_ratio: of the noise on observations; `NOISE_AMPLITUDE` is what 1 means. It may be set later.
    """

    TASK_ELEMENTS: Sequence[str] = ()
    ALL_TASKS: Sequence[str] = (
        "bottom burner",
        "top burner",
        "light switch",
        "slide cabinet",
        "hinge cabinet",
        "microwave",
        "kettle",
    )
    COMPLETE_IN_ANY_ORDER = True
    """Else a task counts only once those before it are done."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 12.5}
    render_mode = "rgb_array"

    def __init__(self, use_abs_action: bool = False, robot_noise_ratio: float = 0.1) -> None:
        self.robot_noise_ratio = robot_noise_ratio
        self.use_abs_action = use_abs_action
        self.goal_masking = True
        self.robot = KitchenEnv(robot_noise_ratio=0.0, object_noise_ratio=0.0).robot_env
        self.model, self.data = self.robot.model, self.robot.data
        self.init_qpos, self.init_qvel = self.robot.init_qpos.copy(), np.zeros(self.model.nv)
        self.position_limits = self.robot.robot_pos_bound[:N_ROBOT]
        self.velocity_limits = self.robot.robot_vel_bound[:N_ROBOT]
        low, high = self.position_limits.T if use_abs_action else (-np.ones(N_ROBOT), np.ones(N_ROBOT))
        self.action_space = gymnasium.spaces.Box(low, high, dtype=np.float64)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (OBS_DIM,), np.float32)
        self.completed = np.zeros(len(self.ALL_TASKS), dtype=bool)
        self._renderer: mujoco.Renderer | None = None
        self._observed = self.init_qpos

    def set_goal_masking(self, goal_masking: bool = True) -> None:
        """Whether observations have zeros in place of the goal, as recorded demonstrations do; else `get_goal`."""
        self.goal_masking = goal_masking

    def get_goal(self) -> np.ndarray:
        """The goals of the tasks that count, by entry of `qpos` `(30,)`; zero for the others."""
        goal = np.zeros(N_QPOS)
        for task in self.TASK_ELEMENTS:
            goal[OBS_ELEMENT_INDICES[task]] = OBS_ELEMENT_GOALS[task]
        return goal

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode at `init_qpos` and `init_qvel`; all episodes start there, the seed is that of the noise."""
        super().reset(seed=seed)
        self.robot.reset()
        self.set_state(self.init_qpos, self.init_qvel)
        self.completed = np.zeros_like(self.completed)
        return self.observe(), {"completed": self.completed}

    def set_state(self, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Moves everything to positions `(30,)` and velocities `(29,)`."""
        for name, value, size in (("qpos", qpos, self.model.nq), ("qvel", qvel, self.model.nv)):
            if np.shape(value) != (size,):
                raise ValueError(f"{name} has shape {np.shape(value)}, expected ({size},)")
        self.robot.set_state(np.asarray(qpos, dtype=np.float64), np.asarray(qvel, dtype=np.float64))

    def observe(self) -> np.ndarray:
        """The observation `(60,)` of the present state, with new noise; actions are relative to it."""
        self._observed = with_noise(self.data.qpos, self.robot_noise_ratio, self.np_random)
        goal = np.zeros(N_QPOS) if self.goal_masking else self.get_goal()
        return np.concatenate([self._observed, goal]).astype(np.float32)

    def control(self, action: np.ndarray) -> np.ndarray:
        """The joint positions that the motors are told for an action, within the robot's limits, `(9,)`."""
        joints = self._observed[:N_ROBOT]
        velocity = (action - joints) / STEP_SEC if self.use_abs_action else VELOCITY_SCALE * np.clip(action, -1, 1)
        velocity = np.clip(velocity, *self.velocity_limits.T)
        return np.clip(joints + velocity * STEP_SEC, *self.position_limits.T)

    def action_for(self, joints: np.ndarray) -> np.ndarray:
        """The action after which the motors are told the positions `joints` `(9,)`, as far as that is allowed."""
        if self.use_abs_action:
            return joints
        return np.clip((joints - self._observed[:N_ROBOT]) / (VELOCITY_SCALE * STEP_SEC), -1, 1)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Moves for 0.08 s."""
        if np.shape(action) != (N_ROBOT,):
            raise ValueError(f"the action has shape {np.shape(action)}, expected ({N_ROBOT},)")
        self.robot.do_simulation(self.control(action), SIMULATION_STEPS)
        obs = self.observe()
        before = self.completed.sum()
        self.completed = self.completed | self._done_now(self.data.qpos)
        reward = float(self.completed.sum() - before)
        terminated = bool(self.completed.sum() == len(self.TASK_ELEMENTS))
        return obs, reward, terminated, False, {"completed": self.completed}

    def _done_now(self, qpos: np.ndarray) -> np.ndarray:
        done = self.completed.copy()
        for task in self.TASK_ELEMENTS:
            i = self.ALL_TASKS.index(task)
            done[i] |= task_distance(qpos, task) < BONUS_THRESH
            if not self.COMPLETE_IN_ANY_ORDER and not done[i]:
                break
        return done

    def render(self, height: int = 240, width: int = 360) -> np.ndarray:
        """An image `(height, width, 3)` uint8 of the whole kitchen."""
        with rendering_explained():
            if self._renderer is None or (self._renderer.height, self._renderer.width) != (height, width):
                self._close_renderer()
                self._renderer = _renderer(self.model, height, width)
            self._renderer.update_scene(self.data, _camera())
            return self._renderer.render()

    def close(self) -> None:
        """Frees the renderer."""
        self._close_renderer()
        self.robot.close()

    def _close_renderer(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def _renderer(model: "mujoco.MjModel", height: int, width: int) -> "mujoco.Renderer":
    """One without shadows, reflections and smooth edges: on a CPU these take sixty times as long as the image."""
    model.vis.global_.offheight = max(height, model.vis.global_.offheight)
    model.vis.global_.offwidth = max(width, model.vis.global_.offwidth)
    model.vis.quality.offsamples, model.vis.quality.shadowsize = 0, 1
    renderer = mujoco.Renderer(model, height, width)
    for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
        renderer.scene.flags[flag] = False
    return renderer


def _camera() -> "mujoco.MjvCamera":
    camera = mujoco.MjvCamera()
    camera.distance = DEFAULT_CAMERA_CONFIG["distance"]
    camera.azimuth = DEFAULT_CAMERA_CONFIG["azimuth"]
    camera.elevation = DEFAULT_CAMERA_CONFIG["elevation"]
    camera.lookat[:] = DEFAULT_CAMERA_CONFIG["lookat"]
    return camera
