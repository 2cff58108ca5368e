"""What a state of the kitchen is: the order of its joints, the goals of its tasks, and the noise on what is observed.

Joints are in the order of the demonstrations of relay policy learning (Gupta et al. 2019), which is MuJoCo's `qpos`.
"""

import numpy as np

N_ROBOT = 9
"""Joints of the arm (7, rad) and of the gripper (2, m), first in `qpos`."""

N_QPOS = 30
"""Robot, then 21 numbers of objects: knobs, burners, switch, light, cabinets, microwave, pose of the kettle."""

OBS_DIM = 2 * N_QPOS
"""An observation is `qpos` and then a goal for each of its entries."""

STEP_SEC = 0.08
"""Time between two actions (s): 40 steps of the simulation."""

SIMULATION_STEPS = 40

OBS_ELEMENT_INDICES = {
    "bottom burner": np.array([11, 12]),
    "top burner": np.array([15, 16]),
    "light switch": np.array([17, 18]),
    "slide cabinet": np.array([19]),
    "hinge cabinet": np.array([20, 21]),
    "microwave": np.array([22]),
    "kettle": np.array([23, 24, 25, 26, 27, 28, 29]),
}
"""The entries of `qpos` that a task is about."""

OBS_ELEMENT_GOALS = {
    "bottom burner": np.array([-0.88, -0.01]),
    "top burner": np.array([-0.92, -0.01]),
    "light switch": np.array([-0.69, -0.05]),
    "slide cabinet": np.array([0.37]),
    "hinge cabinet": np.array([0.0, 1.45]),
    "microwave": np.array([-0.75]),
    "kettle": np.array([-0.23, 0.75, 1.62, 0.99, 0.0, 0.0, -0.06]),
}
"""What they are once the task is done."""

BONUS_THRESH = 0.3
"""A task is done where they are nearer to its goal than this (Euclidean distance)."""

NOISE_AMPLITUDE = np.array([0.1] * 9 + [0.005] * 2 + [0.0005] * 6 + ([0.005] * 3 + [0.1] * 3) * 2 + [0.005])
"""Noise on an observed `qpos` at a noise ratio of 1, `(30,)`: uniform in plus and minus that."""


def task_distance(qpos: np.ndarray, task: str) -> float:
    """How far `qpos` `(30,)` is from the goal of a task."""
    return float(np.linalg.norm(qpos[OBS_ELEMENT_INDICES[task]] - OBS_ELEMENT_GOALS[task]))


def with_noise(qpos: np.ndarray, ratio: float, generator: np.random.Generator) -> np.ndarray:
    """What is observed of `qpos` `(..., 30)`."""
    return qpos + ratio * NOISE_AMPLITUDE * generator.uniform(-1, 1, size=qpos.shape)
