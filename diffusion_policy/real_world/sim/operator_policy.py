"""What a person would do with the SpaceMouse to push the block to its goal."""

from collections import deque
from enum import Enum, auto

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffusion_policy.real_world.sim import tee
from diffusion_policy.real_world.sim.push_planner import Push, PushPlanner
from diffusion_policy.real_world.sim.pusht_world import GOAL
from diffusion_policy.real_world.sim.way_around import way_around

FloatArray = NDArray[np.float64]

END = np.array([0.341, 0.218])  # x, y where the tool goes when the block is at its goal
GAIN = 4.0  # m/s a metre of distance
TURN = 0.012  # m before a point of a way at which the tool turns to the next
ARRIVED = 0.003  # m
SETTLED = 0.001  # m between where the tool is and where it will be
LOOK_AHEAD = 0.03  # m along a push
WRONG = 0.006  # m that the block's error may rise over its least in a push
SLOWEST, SLOWEST_AT_TURNS = 0.015, 0.06  # m/s


class Phase(Enum):
    """What the operator is at."""

    THINKING = auto()
    APPROACHING = auto()
    PUSHING = auto()
    RETURNING = auto()
    DONE = auto()


class OperatorPolicy:
    """Velocities of the tool that push the block to its goal and then return the tool to `END`.

    Args:
        max_speed: of the tool (m/s).
        latency: from a motion of the cap to that of the tool (s).
        target_coverage: part of the goal that is good enough.
        goal: x, y, angle of the block.
    """

    def __init__(
        self, max_speed: float = 0.17, latency: float = 0.25, target_coverage: float = 0.93, goal: ArrayLike = GOAL
    ) -> None:
        self.phase = Phase.THINKING
        self._max_speed = max_speed
        self._latency = latency
        self._target_coverage = target_coverage
        self._goal = np.asarray(goal, np.float64)
        self._planner = PushPlanner(goal)
        self._asked: deque[tuple[float, FloatArray]] = deque()
        self._way: list[FloatArray] = []
        self._push: Push | None = None
        self._least_error = np.inf

    def act(self, time: float, tool: ArrayLike, block_pose: ArrayLike) -> FloatArray:
        """Velocity (2,) (m/s) to ask for at `time` (s), with the tool at `tool` (x, y) and the block at `block_pose`.

        In a phase of thinking, which comes after a velocity of zero, it takes some tenths of a second.
        """
        tool, block_pose = np.asarray(tool, np.float64), np.asarray(block_pose, np.float64)
        velocity = np.zeros(2)
        if self.phase is Phase.THINKING:
            self._think(tool, block_pose)
        elif self.phase is not Phase.DONE:
            soon = self._soon(time, tool)
            velocity = self._move(soon, block_pose, is_settled=bool(np.hypot(*(soon - tool)) < SETTLED))
        self._asked.append((time, velocity))
        return velocity

    def _soon(self, time: float, tool: FloatArray) -> FloatArray:
        """Where the tool will be when what has been asked for is done."""
        while len(self._asked) > 1 and self._asked[1][0] <= time - self._latency:
            self._asked.popleft()
        times = [max(start, time - self._latency) for start, _ in self._asked] + [time]
        return tool + sum(
            (velocity * dt for (_, velocity), dt in zip(self._asked, np.diff(times), strict=True)), np.zeros(2)
        )

    def _think(self, tool: FloatArray, block_pose: FloatArray) -> None:
        if tee.coverage(block_pose, self._goal) < self._target_coverage:
            for push in self._planner.pushes(tool, block_pose):
                if (way := way_around(tool, push.start, block_pose)) is not None:
                    self.phase, self._push, self._way = Phase.APPROACHING, push, way
                    return
        self.phase, self._push = Phase.RETURNING, None
        self._way = way_around(tool, END, block_pose) or [END]

    def _move(self, tool: FloatArray, block_pose: FloatArray, is_settled: bool) -> FloatArray:
        if self.phase is Phase.PUSHING:
            return self._go_on_pushing(tool, block_pose, is_settled)
        while len(self._way) > 1 and np.hypot(*(self._way[0] - tool)) < TURN:
            del self._way[0]
        if len(self._way) == 1 and np.hypot(*(self._way[0] - tool)) < ARRIVED:
            self.phase = Phase.DONE if self._push is None else Phase.PUSHING
            self._least_error = np.inf
            return np.zeros(2)
        return self._towards(self._way[0], tool, slowest=SLOWEST if len(self._way) == 1 else SLOWEST_AT_TURNS)

    def _go_on_pushing(self, tool: FloatArray, block_pose: FloatArray, is_settled: bool) -> FloatArray:
        assert self._push is not None
        start, end = self._push.start, self._push.end
        length = float(np.hypot(*(end - start)))
        direction = (end - start) / length
        along = float((tool - start) @ direction)
        error = self._planner.error(block_pose)
        self._least_error = min(self._least_error, error)
        if error > self._least_error + WRONG or (is_settled and along > length - SETTLED):
            self.phase = Phase.THINKING
            return np.zeros(2)
        target = start + min(along + LOOK_AHEAD, length) * direction
        return self._towards(target, tool, slowest=0 if along + LOOK_AHEAD > length else self._max_speed)

    def _towards(self, target: FloatArray, tool: FloatArray, slowest: float) -> FloatArray:
        distance = max(float(np.hypot(*(target - tool))), 1e-6)
        return (target - tool) / distance * min(max(GAIN * distance, slowest), self._max_speed)
