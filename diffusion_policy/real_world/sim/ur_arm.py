"""The arm itself: joints that move as they are told, as fast as they can."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.real_world.sim.ur_kinematics import (
    URModel,
    forward,
    inverse,
    invert,
    matrix_to_pose,
    pose_to_matrix,
)

Array = NDArray[np.float64]

MAX_JOINT_SPEED = 3.14  # rad/s
MAX_JOINT_ACCELERATION = 40.0  # rad/s^2

_METRES_PER_RADIAN = 0.2  # of turns that are longer than the way

Motion = Callable[["Arm", float], bool]
"""Moves the arm by a tick of so many seconds; says whether it has come to its end."""


class Arm:
    """Joint angles and speeds, `(6,)` rad and rad/s, and the motion under way.

    Args:
        model: its links.
        q: joint angles to begin with.
    """

    def __init__(self, model: URModel, q: Array) -> None:
        self.model = model
        self.q = np.array(q, float)
        self.qd = np.zeros(6)
        self.target_q = self.q.copy()
        self.tcp = np.eye(4)
        self.motion: Motion | None = None

    @property
    def pose(self) -> Array:
        """The tool `(6,)` in the base frame."""
        return self.pose_at(self.q)

    def pose_at(self, q: Array) -> Array:
        """The tool `(6,)` at other joint angles."""
        return matrix_to_pose(forward(self.model, q) @ self.tcp)

    def joints_for(self, pose: Array) -> Array | None:
        """Joint angles that bring the tool to `pose` `(6,)`, near those it has; None out of reach."""
        return inverse(self.model, pose_to_matrix(pose) @ invert(self.tcp), self.q)

    def tick(self, dt: float) -> bool:
        """Moves on by `dt` s; True when the motion has just ended."""
        if self.motion is None:
            self.accelerate_to(np.zeros(6), dt, MAX_JOINT_ACCELERATION)
            return False
        ended = self.motion(self, dt)
        if ended:
            self.motion = None
        return ended

    def accelerate_to(self, qd: Array, dt: float, acceleration: float) -> None:
        """Changes joint speeds towards `qd`, at most so fast, and moves on."""
        step = acceleration * dt
        self.qd = self.qd + np.clip(np.clip(qd, -MAX_JOINT_SPEED, MAX_JOINT_SPEED) - self.qd, -step, step)
        self.q = self.q + self.qd * dt

    def go_to(self, q: Array, dt: float) -> None:
        """Is at `q` after `dt` s."""
        self.qd = (q - self.q) / dt
        self.q = self.target_q = q


def stop(deceleration: float) -> Motion:
    """Slows every joint down, the leading one by `deceleration` (rad/s^2)."""

    def motion(arm: Arm, dt: float) -> bool:
        fastest = np.abs(arm.qd).max()
        slower = arm.qd * max(0.0, 1 - deceleration * dt / fastest) if fastest > 0 else arm.qd
        arm.go_to(arm.q + slower * dt, dt)
        return not np.any(slower)

    return motion


def servo(q: Array, time_constant: float) -> Motion:
    """Follows the target `q` as a first-order system; never ends."""

    def motion(arm: Arm, dt: float) -> bool:
        arm.target_q = q
        share = 1 - math.exp(-dt / time_constant) if time_constant > 0 else 1.0
        arm.accelerate_to((q - arm.q) * share / dt, dt, MAX_JOINT_ACCELERATION)
        return False

    return motion


def speed_joints(qd: Array, acceleration: float) -> Motion:
    """Keeps joint speeds; never ends."""

    def motion(arm: Arm, dt: float) -> bool:
        arm.accelerate_to(qd, dt, acceleration)
        arm.target_q = arm.q
        return False

    return motion


def speed_tool(velocity: Array, acceleration: float) -> Motion:
    """Keeps the tool's velocity `(6,)` (m/s, rad/s) until it is out of reach."""

    def motion(arm: Arm, dt: float) -> bool:
        step = pose_to_matrix([0, 0, 0, *(velocity[3:] * dt)])
        tool = pose_to_matrix(arm.pose)
        step[:3, 3] = tool[:3, 3] + velocity[:3] * dt
        tool[:3, 3] = 0
        q = arm.joints_for(matrix_to_pose(step @ tool))
        if q is None:
            return True
        arm.accelerate_to((q - arm.q) / dt, dt, 20 * acceleration)
        arm.target_q = arm.q
        return False

    return motion


def move_joints(start: Array, end: Array, speed: float, acceleration: float) -> Motion:
    """To `end`, straight in joint space; speeds are the leading joint's (rad/s, rad/s^2)."""
    profile = Trapezoid(float(np.abs(end - start).max()), speed, acceleration)
    return _along(lambda share: start + share * (end - start), profile)


def move_tool(arm: Arm, end: Array, speed: float, acceleration: float) -> Motion | None:
    """The tool to pose `end` `(6,)`, straight; None if a pose on the way is out of reach. Units m/s, m/s^2."""
    start = pose_to_matrix(arm.pose)
    turn = matrix_to_pose(pose_to_matrix(end) @ invert(start))[3:]
    length = max(float(np.linalg.norm(end[:3] - start[:3, 3])), _METRES_PER_RADIAN * float(np.linalg.norm(turn)))
    profile = Trapezoid(length, speed, acceleration)

    def joints(share: float) -> Array | None:
        pose = pose_to_matrix([0, 0, 0, *(share * turn)]) @ _rotation_only(start)
        pose[:3, 3] = start[:3, 3] + share * (end[:3] - start[:3, 3])
        return arm.joints_for(matrix_to_pose(pose))

    if any(joints(share) is None for share in np.linspace(0, 1, 11)):
        return None
    return _along(joints, profile)


class Trapezoid:
    """How far one is on a way of `length` after `elapsed` s: speeds up, goes on, slows down."""

    def __init__(self, length: float, speed: float, acceleration: float) -> None:
        self.length = length
        self.acceleration = acceleration
        self.speed = min(speed, math.sqrt(length * acceleration))
        self.ramp = self.speed / acceleration
        self.duration = length / self.speed + self.ramp if length > 0 else 0.0

    def share(self, elapsed: float) -> float:
        """Of the way, 0 to 1."""
        if elapsed >= self.duration:
            return 1.0
        if elapsed < self.ramp:
            way = self.acceleration * elapsed**2 / 2
        elif elapsed < self.duration - self.ramp:
            way = self.speed * (elapsed - self.ramp / 2)
        else:
            way = self.length - self.acceleration * (self.duration - elapsed) ** 2 / 2
        return way / self.length


def _along(joints: Callable[[float], Array | None], profile: Trapezoid) -> Motion:
    elapsed = 0.0

    def motion(arm: Arm, dt: float) -> bool:
        nonlocal elapsed
        elapsed += dt
        q = joints(profile.share(elapsed))
        if q is None:
            return True
        arm.go_to(q, dt)
        if elapsed >= profile.duration:
            arm.qd = np.zeros(6)
            return True
        return False

    return motion


def _rotation_only(matrix: Array) -> Array:
    rotation = matrix.copy()
    rotation[:3, 3] = 0
    return rotation
