"""When and where the arm goes, of what a policy says."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.real_world.inference_thread import Answer
from diffusion_policy.real_world.robot_policy import ControlSettings

Array = NDArray[np.float64]

EXECUTION_LATENCY = 0.01  # s from sending an action to when it can be executed
BOUNDS: Array = np.array([[0.25, -0.45], [0.77, 0.40]])
"""Lowest and highest x and y (m) that a policy may ask for."""


class Scheduled(NamedTuple):
    """Poses `(N, 6)`, when they are due `(N,)` (wall clock, s), and how many were left out because they were late."""

    poses: Array
    times: Array
    n_late: int


class ActionSchedule:
    """Of one episode.

    Args:
        rest_pose: `(6,)`: of it are height and rotation, where actions are x and y.
        start_time: of step 0 (wall clock, s).
        dt: between steps (s).
        settings: of the policy.
    """

    def __init__(self, rest_pose: Array, start_time: float, dt: float, settings: ControlSettings) -> None:
        self._rest_pose = np.array(rest_pose, np.float64)
        self._start_time, self._dt, self._settings = start_time, dt, settings
        self._last: Array | None = None

    def __call__(self, answer: Answer, obs_pose: Array, now: float) -> Scheduled:
        """What to execute of an answer at the time `now` (s).

        Actions whose time is past are left out. If all are, the last one is executed at the next step.

        Args:
            obs_pose: of the tool `(6,)` in the last observation that was asked about; changes begin there.

        Raises:
            ValueError: actions are not x and y, or poses, or not finite.
        """
        poses = self._poses(answer.actions, obs_pose)
        first = answer.obs_time + self._settings.action_offset * self._dt
        times: Array = first + np.arange(len(poses), dtype=np.float64) * self._dt
        in_time = times > now + EXECUTION_LATENCY
        if in_time.any():
            return Scheduled(poses[in_time], times[in_time], int((~in_time).sum()))
        next_step = math.ceil((now + EXECUTION_LATENCY - self._start_time) / self._dt)
        return Scheduled(poses[-1:], np.array([self._start_time + next_step * self._dt]), len(poses) - 1)

    def _poses(self, actions: Array, obs_pose: Array) -> Array:
        if actions.ndim != 2 or actions.shape[1] not in (2, 6) or not len(actions):
            raise ValueError(f"the policy's actions are {actions.shape}, expected x and y (Ta, 2), or poses (Ta, 6)")
        if not np.isfinite(actions).all():
            raise ValueError("the policy's actions have NaN or infinite values")
        if self._settings.delta_action:
            if len(actions) > 1:
                raise ValueError(
                    f"the policy gives {len(actions)} changes of position, of which one at a time is executed"
                )
            actions = actions + (obs_pose if self._last is None else self._last)[: actions.shape[1]]
        poses = np.tile(self._rest_pose, (len(actions), 1))
        poses[:, : actions.shape[1]] = actions
        poses[:, :2] = np.clip(poses[:, :2], *BOUNDS)
        self._last = poses[-1]
        return poses
