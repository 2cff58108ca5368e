"""A scripted expert for two tasks of the kitchen: it moves the gripper through points beside what has to be moved."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from diffusion_policy.env.kitchen.base import KitchenBase, mujoco
from diffusion_policy.env.kitchen.state import N_ROBOT, STEP_SEC

N_ARM = 7
MAX_SPEED = 0.6  # m/s, of the gripper
GAIN = 4.0  # 1/s, from distance to speed
ROTATION_WEIGHT = 0.5  # m/rad, of keeping the gripper's orientation against reaching the point
DAMPING = 0.05
POSTURE_GAIN = 0.5  # 1/s, back to the posture of the start, where that does not move the gripper
MAX_LEAD = 0.15  # rad, of the motors' targets before the joints: bounds what builds up against resistance
JITTER = 0.01  # m, of the points
TOLERANCE = 0.03  # m


class Task(NamedTuple):
    """Points relative to a site of the model (m), how many steps each may take, and where to go afterwards."""

    site: str
    points: tuple[tuple[float, float, float], ...]
    retreat: tuple[float, float, float]
    max_steps: int = 40


TASKS = {
    # before the lever and to the right of it, beside its tip, and through it
    "light switch": Task("light_site", ((0.12, -0.17, 0), (0.09, -0.006, 0), (-0.14, 0.014, 0)), (-0.03, -0.2, 0.07)),
    # before the handle and to the left of it, beside it, and along with it
    "slide cabinet": Task("slide_site", ((-0.14, -0.16, -0.05), (-0.11, 0.01, 0), (0.3, 0.01, 0)), (0.1, -0.2, -0.15)),
}


class ScriptedExpert:
    """Does tasks one after another in the kitchen's present episode.

    Args:
        env: the kitchen with velocities as actions, after a reset.
        tasks: of `TASKS`, in the order in which to do them.
        generator: of what differs between demonstrations.
    """

    def __init__(self, env: KitchenBase, tasks: tuple[str, ...], generator: np.random.Generator) -> None:
        self.env, self.tasks, self.generator = env, tasks, generator
        self._site = _site_id(env, "end_effector")
        self._posture = env.data.qpos[:N_ARM].copy()
        self._orientation = self._axes().copy()
        self._targets = self._posture.copy()

    def actions(self) -> Iterator[np.ndarray]:
        """Actions `(9,)` to execute one by one; they follow from the state in which the environment then is."""
        for name in self.tasks:
            task, index = TASKS[name], self.env.ALL_TASKS.index(name)
            site = self.env.data.site_xpos[_site_id(self.env, task.site)].copy()
            for point in task.points:
                target = site + point + self.generator.uniform(-JITTER, JITTER, 3)
                for _ in range(task.max_steps):
                    if self.env.completed[index] or self._distance(target) < TOLERANCE:
                        break
                    yield self._action_towards(target)
            target = site + task.retreat
            for _ in range(task.max_steps):
                if self._distance(target) < TOLERANCE:
                    break
                yield self._action_towards(target)

    def _distance(self, target: np.ndarray) -> float:
        return float(np.linalg.norm(target - self.env.data.site_xpos[self._site]))

    def _axes(self) -> np.ndarray:
        return self.env.data.site_xmat[self._site].reshape(3, 3)

    def _action_towards(self, target: np.ndarray) -> np.ndarray:
        """Damped least squares on the gripper's position and orientation, with the posture in the null space."""
        env = self.env
        position, rotation = np.zeros((2, 3, env.model.nv))
        mujoco.mj_jacSite(env.model, env.data, position, rotation, self._site)
        jacobian = np.concatenate([position[:, :N_ARM], ROTATION_WEIGHT * rotation[:, :N_ARM]])
        velocity = GAIN * (target - env.data.site_xpos[self._site])
        velocity *= min(1.0, MAX_SPEED / max(float(np.linalg.norm(velocity)), 1e-9))
        turn = 1.5 * np.cross(self._axes(), self._orientation, axis=0).sum(axis=1)
        inverse = jacobian.T @ np.linalg.inv(jacobian @ jacobian.T + DAMPING**2 * np.eye(6))
        joints = env.data.qpos[:N_ARM]
        joint_velocity = inverse @ np.concatenate([velocity, ROTATION_WEIGHT * turn])
        joint_velocity += (np.eye(N_ARM) - inverse @ jacobian) @ (POSTURE_GAIN * (self._posture - joints))
        targets = self._targets + joint_velocity * STEP_SEC
        self._targets = joints + np.clip(targets - joints, -MAX_LEAD, MAX_LEAD)
        closed = np.zeros(N_ROBOT - N_ARM)
        return env.action_for(np.concatenate([self._targets, closed]))


def _site_id(env: KitchenBase, name: str) -> int:
    return int(mujoco.mj_name2id(env.model, mujoco.mjtObj.mjOBJ_SITE, name))
