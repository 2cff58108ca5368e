"""Which push next: candidates are tried in a world of the planner's own. Lengths in m, angles in rad."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray

from diffusion_policy.real_world.sim import tee
from diffusion_policy.real_world.sim.pusht_world import GOAL, TOOL_RADIUS, WORKSPACE, PushTWorld

FloatArray = NDArray[np.float64]

CLEARANCE = 0.022  # between the tool and the block before a push
N_CONTACTS = 32  # around the block
ANGLES = (-0.6, -0.25, 0.0, 0.25, 0.6)  # of a push to the normal of the side it begins at
LONGEST = 0.16  # m that a push may go
STEP = 0.004  # m between two looks at the block
LEAST_GAIN = 0.0005  # m
OVERHEAD = 0.1  # m that every push costs, so that few long ones are chosen
HOPELESS = 0.06  # m that a push is followed without getting better; the tool may have to come to the block first
_Z = tee.HEIGHT / 2
_SPEED = 0.2  # m/s


@dataclass(frozen=True)
class Push:
    """Straight from `start` to `end` (x, y), which is expected to leave the block at `block_pose`.

    Attributes:
        error: of that pose: mean distance of the block's corners from where they should be (m).
    """

    start: FloatArray
    end: FloatArray
    block_pose: FloatArray
    error: float


class PushPlanner:
    """Chooses pushes that bring the block nearer to its goal, quickly.

    Args:
        goal: x, y, angle of the block.
    """

    def __init__(self, goal: ArrayLike = GOAL) -> None:
        self._world = PushTWorld(goal=goal)
        self._goal = np.asarray(goal, np.float64)
        self._goal_corners = tee.placed(tee.OUTLINE, self._goal)

    def error(self, block_pose: ArrayLike) -> float:
        """Mean distance of the block's corners from where they should be (m)."""
        return float(np.hypot(*(tee.placed(tee.OUTLINE, block_pose) - self._goal_corners).T).mean())

    def pushes(self, tool: ArrayLike, block_pose: ArrayLike) -> list[Push]:
        """Pushes that bring the block nearer to its goal; the one that wins most per metre of the way is first."""
        tool, block_pose = np.asarray(tool, np.float64), np.asarray(block_pose, np.float64)
        error = self.error(block_pose)
        tried = (self._try(start, direction, block_pose) for start, direction in self._candidates(block_pose))
        better = [push for push in tried if push is not None and push.error < error - LEAST_GAIN]

        def gain_per_metre(push: Push) -> float:
            way, length = np.hypot(*(push.start - tool)), np.hypot(*(push.end - push.start))
            return float((error - push.error) / (OVERHEAD + 0.3 * way + length))

        return sorted(better, key=gain_per_metre, reverse=True)

    def _candidates(self, block_pose: FloatArray) -> Iterator[tuple[FloatArray, FloatArray]]:
        """Where the tool may begin, close to the block, and in which direction (unit vector) it goes."""
        outline = tee.polygon(block_pose)
        ring = outline.exterior
        near = outline.buffer(TOOL_RADIUS + CLEARANCE / 2)
        for i in range(N_CONTACTS):
            distance = (i + 0.5) / N_CONTACTS * ring.length
            point = np.array(ring.interpolate(distance).coords[0])
            ahead = np.array(ring.interpolate(distance + 1e-3).coords[0]) - point
            inwards = np.array([-ahead[1], ahead[0]]) / np.hypot(*ahead)
            for angle in ANGLES:
                cos, sin = math.cos(angle), math.sin(angle)
                direction = np.array([cos * inwards[0] - sin * inwards[1], sin * inwards[0] + cos * inwards[1]])
                start = point - (TOOL_RADIUS + CLEARANCE) * inwards
                if not near.contains(shapely.Point(start)) and in_workspace(start):
                    yield start, direction

    def _try(self, start: FloatArray, direction: FloatArray, block_pose: FloatArray) -> Push | None:
        world = self._world
        world.step(0.0, [*start, 1.0, 0, 0, 0])  # lifted
        world.block_pose = block_pose
        world.time = None
        best: Push | None = None
        for i in range(round(LONGEST / STEP)):
            tool = start + i * STEP * direction
            if not in_workspace(tool):
                break
            world.step(i * STEP / _SPEED, [*tool, _Z, 0, 0, 0])
            pose = world.block_pose
            error = self.error(pose)
            if best is None or error < best.error:
                best = Push(start, tool, pose, error)
            elif np.hypot(*(tool - best.end)) > HOPELESS:
                break
        return best


def in_workspace(point: FloatArray) -> bool:
    """Whether the tool may be at `point` (x, y)."""
    return bool((WORKSPACE[:, 0] <= point).all() and (point <= WORKSPACE[:, 1]).all())
