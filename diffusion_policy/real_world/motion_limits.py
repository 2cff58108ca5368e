"""What the arm is allowed to do, and the commands that keep to it whatever the trajectory asks for."""

import contextlib
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from diffusion_policy.common.pose_trajectory_interpolator import PoseTrajectoryInterpolator, pose_distance

Array = NDArray[np.float64]


@dataclass(frozen=True)
class MotionLimits:
    """Bounds on targets and on every commanded pose of the tool.

    Args:
        max_pos_speed: m/s.
        max_rot_speed: rad/s.
        max_pos_accel: m/s^2.
        max_rot_accel: rad/s^2.
        workspace: lowest and highest x, y, z (m) of the tool in the robot's base frame, `((3,), (3,))`; targets
            outside are moved to its surface. None: wherever the robot reaches.
        max_target_distance: targets farther than this (m) from where the tool is are refused.
        max_target_angle: targets turned by more than this (rad) are refused.
    """

    max_pos_speed: float = 0.25
    max_rot_speed: float = 0.16
    max_pos_accel: float = 6.0
    max_rot_accel: float = 12.0
    workspace: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None
    max_target_distance: float = 0.5
    max_target_angle: float = math.pi / 2

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name != "workspace" and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}.")
        low, high = self.box
        if low.shape != (3,) or high.shape != (3,) or not np.all(low < high):
            raise ValueError(f"workspace must be the lowest and the highest x, y, z, got {self.workspace}.")

    @property
    def box(self) -> tuple[Array, Array]:
        """Lowest and highest x, y, z (m), `(3,)` each."""
        low, high = self.workspace or ((-math.inf,) * 3, (math.inf,) * 3)
        return np.array(low, float), np.array(high, float)

    def checked_target(self, pose: ArrayLike, current: ArrayLike) -> Array:
        """`pose` `(6,)` as an array, moved into the workspace, if the arm may go there from `current` `(6,)`.

        Raises:
            ValueError: it has another shape, is not finite, or is too far away.
        """
        target = as_pose(pose)
        target[:3] = np.clip(target[:3], *self.box)
        distance, angle = pose_distance(current, target)
        if distance > self.max_target_distance or angle > self.max_target_angle:
            raise ValueError(
                f"The target {target.round(3).tolist()} is {distance:.3f} m and {angle:.3f} rad away from the tool; at "
                f"most {self.max_target_distance} m and {self.max_target_angle:.3f} rad are allowed. Positions are in "
                "metres, rotations are rotation vectors; max_target_distance and max_target_angle set the bounds."
            )
        return target


def as_pose(pose: ArrayLike) -> Array:
    """A copy, `(6,)` float64.

    Raises:
        ValueError: it has another shape, or is not finite.
    """
    with contextlib.suppress(TypeError, ValueError):
        array = np.array(pose, np.float64)
        if array.shape == (6,) and np.all(np.isfinite(array)):
            return array
    raise ValueError(f"A pose is six finite numbers (x, y, z in m, rotation vector in rad), got {pose!r}.")


class MotionLimiter:
    """Follows a trajectory with commands that keep the limits on speed, acceleration and workspace, each of them.

    Where the trajectory's speed jumps the commands brake before and accelerate after, so that they are on it in between
    and never shoot over its end. Along an axis the acceleration is at most `max_pos_accel / sqrt(3)`.

    Args:
        pose: `(6,)` at which the arm rests.
        dt: time between commands (s).
        limits: to keep.
    """

    def __init__(self, pose: ArrayLike, dt: float, limits: MotionLimits) -> None:
        self.dt = dt
        self.limits = limits
        self._accel = limits.max_pos_accel / math.sqrt(3)
        self.rest(pose)

    def rest(self, pose: ArrayLike) -> None:
        """Starts anew from an arm that rests at `pose` `(6,)`."""
        pose = as_pose(pose)
        self._position, self._rotation = pose[:3], Rotation.from_rotvec(pose[3:])
        self._velocity, self._spin = np.zeros(3), np.zeros(3)

    @property
    def pose(self) -> Array:
        """The last command `(6,)`."""
        return np.concatenate([self._position, self._rotation.as_rotvec()])

    @property
    def is_at_rest(self) -> bool:
        """Whether the last command was (but for 1 mm/s and 1 mrad/s) the one before."""
        return bool(np.linalg.norm(self._velocity) < 1e-3 and np.linalg.norm(self._spin) < 1e-3)

    def stopping_pose(self) -> Array:
        """Where the commands can come to rest soonest, `(6,)`."""
        position = self._position + self._velocity * np.linalg.norm(self._velocity) / (2 * self._accel)
        turn = self._spin * np.linalg.norm(self._spin) / (2 * self.limits.max_rot_accel)
        return np.concatenate([position, (Rotation.from_rotvec(turn) * self._rotation).as_rotvec()])

    def step(self, trajectory: PoseTrajectoryInterpolator, now: float) -> Array:
        """The command `(6,)` for the time `now` (s)."""
        # How far ahead to look: a stop from speed v takes v / a, of which half is lost against the trajectory.
        pos_lead = np.linalg.norm(self._velocity) / (2 * self._accel)
        rot_lead = np.linalg.norm(self._spin) / (2 * self.limits.max_rot_accel)
        ahead_pos, ahead_rot = trajectory(np.array([now + pos_lead, now + rot_lead]))
        self._move(ahead_pos[:3])
        self._turn(Rotation.from_rotvec(ahead_rot[3:]))
        return self.pose

    def _move(self, target: Array) -> None:
        wanted = self._towards(target - self._position, self.limits.max_pos_speed, self._accel)
        change = wanted - self._velocity
        velocity = self._velocity + change * _fraction(self._accel * self.dt, np.abs(change).max())
        low, high = self.limits.box
        slowest = -self._speed_to_stop_in(self._position - low, self._accel)
        fastest = self._speed_to_stop_in(high - self._position, self._accel)
        self._velocity = np.clip(velocity, slowest, fastest)
        self._position = self._position + self._velocity * self.dt

    def _turn(self, target: Rotation) -> None:
        limits = self.limits
        turn = (target * self._rotation.inv()).as_rotvec()
        wanted = self._towards(turn, limits.max_rot_speed, limits.max_rot_accel)
        change = wanted - self._spin
        self._spin = self._spin + change * _fraction(limits.max_rot_accel * self.dt, np.linalg.norm(change))
        self._rotation = Rotation.from_rotvec(self._spin * self.dt) * self._rotation

    def _towards(self, way: Array, max_speed: float, accel: float) -> Array:
        """The fastest velocity along `way` from which one can stop at its end."""
        distance = np.linalg.norm(way)
        if distance == 0:
            return np.zeros(3)
        speed = min(float(self._speed_to_stop_in(distance, accel)), max_speed)
        return way * (speed / distance)

    def _speed_to_stop_in(self, distance: NDArray[np.float64] | np.floating, accel: float) -> Array:
        """The speed `v` for which one more step and the stop take just the distance: `v dt + v^2 / (2 accel)`."""
        distance = np.maximum(distance, 0)
        speed: Array = accel * (np.sqrt(self.dt**2 + 2 * distance / accel) - self.dt)
        return speed


def _fraction(allowed: float, wanted: float | np.floating) -> float:
    return min(1.0, allowed / float(wanted)) if wanted else 0.0
