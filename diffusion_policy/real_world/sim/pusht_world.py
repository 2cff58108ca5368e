"""Push-T on a table, as the robot's tool finds it. Lengths in m, angles in rad, in the robot's base frame."""

import math
from collections.abc import Sequence

import numpy as np
import pymunk
import shapely
from numpy.typing import ArrayLike, NDArray

from diffusion_policy.real_world.sim import tee

FloatArray = NDArray[np.float64]

WORKSPACE = np.array([[0.25, 0.77], [-0.45, 0.40]])  # x and y that the tool may reach
GOAL = np.array([0.56, -0.10, math.pi / 4])  # x, y, angle
TOOL_RADIUS = 0.0125
START = ((0.42, 0.66), (-0.25, 0.18))  # x and y between which blocks start

_MM = 1000.0  # the physics engine's tolerances are made for lengths of this size
_LONGEST_STEP = 0.001  # m that the tool moves in a step of physics
_STEP_TIME = 0.005  # s of physics: how fast the tool really is changes nothing
_FASTEST = 1.0  # m/s: a tool that moves faster, as one put elsewhere by its simulator, does not push
_CLEARANCE = 0.03  # m between the tool and a block that was put down


class PushTWorld:
    """A T-shaped block that moves when the tool pushes it, and stops when the tool stops (quasi-static, Mason 1986).

    Args:
        seed: of where the block starts.
        goal: x, y, angle where the block should go.
    """

    def __init__(self, seed: int = 0, goal: ArrayLike = GOAL) -> None:
        self.goal = np.array(goal, np.float64)
        self.tool_pose = np.zeros(6)
        self.time: float | None = None
        self._space = pymunk.Space()
        self._space.damping = 0  # friction of the table: nothing keeps its speed
        mass = 1.0
        parts = [(part * _MM).tolist() for part in (tee.BAR, tee.STEM)]
        moment = sum(
            pymunk.moment_for_poly(mass * share, part) for share, part in zip((4 / 7, 3 / 7), parts, strict=True)
        )
        self._block = pymunk.Body(mass, moment)
        self._tool = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
        self._tool_shape = pymunk.Circle(self._tool, TOOL_RADIUS * _MM)
        self._space.add(self._block, *[pymunk.Poly(self._block, part) for part in parts])
        self._space.add(self._tool)
        self.reset(seed)

    @property
    def block_pose(self) -> FloatArray:
        """x, y, angle (3,)."""
        x, y = self._block.position
        return np.array([x / _MM, y / _MM, self._block.angle])

    @block_pose.setter
    def block_pose(self, pose: ArrayLike) -> None:
        x, y, angle = np.asarray(pose, np.float64).tolist()
        if not all(map(math.isfinite, (x, y, angle))):
            raise ValueError(f"got block pose {(x, y, angle)}, expected finite numbers x, y (m), angle (rad)")
        self._block.position, self._block.velocity, self._block.angular_velocity = (x * _MM, y * _MM), (0, 0), 0
        self._block.angle = angle
        self._space.reindex_shapes_for_body(self._block)

    def reset(self, seed: int) -> None:
        """Puts the block where `seed` says, off the tool and not yet at its goal."""
        rng = np.random.default_rng(seed)
        tool = shapely.Point(self.tool_pose[:2])
        while True:
            (x0, x1), (y0, y1) = START
            pose = np.array([rng.uniform(x0, x1), rng.uniform(y0, y1), rng.uniform(-math.pi, math.pi)])
            if tee.polygon(pose).distance(tool) > TOOL_RADIUS + _CLEARANCE and tee.coverage(pose, self.goal) < 0.5:
                break
        self.block_pose = pose

    def coverage(self) -> float:
        """Part of the goal's area, 0 to 1, that the block covers."""
        return tee.coverage(self.block_pose, self.goal)

    def step(self, t: float, tool_pose: Sequence[float] | FloatArray) -> None:
        """Moves the tool's tip to `tool_pose` (x, y, z, then rotation) at time `t` (s), and the block before it.

        The tool pushes as long as its tip is lower than the block's top.
        """
        pose = np.array(tool_pose, np.float64)
        start, target = self.tool_pose[:2] * _MM, pose[:2] * _MM
        dt = 0.0 if self.time is None else t - self.time
        self.tool_pose, self.time = pose, t
        distance = float(np.hypot(*(target - start)))
        pushes = pose[2] < tee.HEIGHT and dt > 0 and distance < _FASTEST * _MM * dt
        self._set_pushing(pushes)
        if not pushes:
            self._tool.position, self._tool.velocity = (target[0], target[1]), (0, 0)
            self._space.reindex_shapes_for_body(self._tool)
            return
        n_steps = max(math.ceil(distance / (_LONGEST_STEP * _MM)), 1)
        velocity = (target - start) / (n_steps * _STEP_TIME)
        self._slow_block_down(velocity)
        self._tool.velocity = velocity[0], velocity[1]
        for _ in range(n_steps):
            self._space.step(_STEP_TIME)
        self._tool.position = target[0], target[1]

    def _slow_block_down(self, tool_velocity: FloatArray) -> None:
        """pymunk moves things by their velocities of the step before: where the tool stops, so does the block."""
        before = np.array(self._tool.velocity)
        speed = float(before @ before)
        kept = min(max(float(tool_velocity @ before) / speed, 0.0), 1.0) if speed > 0 else 0.0
        self._block.velocity = self._block.velocity * kept
        self._block.angular_velocity *= kept

    def _set_pushing(self, pushes: bool) -> None:
        if pushes and self._tool_shape not in self._space.shapes:
            self._space.add(self._tool_shape)
        elif not pushes and self._tool_shape in self._space.shapes:
            self._space.remove(self._tool_shape)
