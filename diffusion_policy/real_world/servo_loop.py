"""What the arm's process does all the time: one command and one state a cycle."""

import logging
import math
import time
from collections.abc import Callable
from queue import Empty
from typing import Any

from diffusion_policy.common.pose_trajectory_interpolator import PoseTrajectoryInterpolator
from diffusion_policy.common.precise_sleep import precise_wait
from diffusion_policy.real_world.arm_channels import ArmChannels, Command
from diffusion_policy.real_world.motion_limits import MotionLimiter, MotionLimits
from diffusion_policy.real_world.robot_fault import RECOVERABLE, FaultKind, RobotFaultError
from diffusion_policy.real_world.ur_connection import URConnection

logger = logging.getLogger(__name__)

LONGEST_STOP = 1.0
"""Seconds after which the robot's own stop takes over from one within the limits."""


class ServoLoop:
    """Commands the arm along a trajectory that is made from the queue's commands.

    Args:
        connection: to the robot, whose arm rests.
        frequency: of the cycles (Hz).
        limits: that every command keeps.
        channels: to the process that gives commands.
        must_end: whether to end; asked every cycle.
    """

    def __init__(
        self,
        connection: URConnection,
        frequency: float,
        limits: MotionLimits,
        channels: ArmChannels,
        must_end: Callable[[], bool],
    ) -> None:
        self._connection = connection
        self._limits = limits
        self._channels = channels
        self._report = channels.report
        self._must_end = must_end
        self._dt = 1 / frequency
        self._limiter = MotionLimiter(connection.pose(), self._dt, limits)
        self._trajectory, self._last_waypoint_time = self._resting()

    def run(self) -> None:
        """Returns when it is told to end and the arm has stopped.

        Raises:
            RobotFaultError: the robot is gone, or needs a human.
        """
        deadline = time.monotonic()
        while not self._must_end():
            self._drive()
            self._take_commands()
            deadline = self._wait(deadline)
        self._hold()
        give_up = time.monotonic() + LONGEST_STOP
        while not self._limiter.is_at_rest and self._report.read() is None and time.monotonic() < give_up:
            self._drive()
            deadline = self._wait(deadline)
        self._connection.stop()

    def _drive(self) -> None:
        self._channels.begin_cycle()
        now = time.monotonic()
        stopped = self._report.read() is not None
        if not stopped:
            self._connection.servo(self._limiter.step(self._trajectory, now))
        if (state := self._connection.read_state()) is not None:
            self._put(state)
        if not stopped and (kind := self._connection.fault()) is not None:
            self._stop(kind)

    def _stop(self, kind: FaultKind) -> None:
        fault = RobotFaultError(kind)
        if kind not in RECOVERABLE:
            raise fault
        logger.error("%s", fault)
        self._report.write(kind)

    def _put(self, state: dict[str, Any]) -> None:
        try:
            self._channels.states.put(state, wait=False)
        except TimeoutError:
            logger.warning("A state of the robot was dropped: they came faster than the ring was made for.")

    def _take_commands(self) -> None:
        try:
            commands = self._channels.commands.get_all()
        except Empty:
            return
        for i in range(len(commands["cmd"])):
            self._execute({name: values[i] for name, values in commands.items()})

    def _execute(self, command: dict[str, Any]) -> None:
        now = time.monotonic()
        kind = Command(int(command["cmd"]))
        speeds = {"max_pos_speed": self._limits.max_pos_speed, "max_rot_speed": self._limits.max_rot_speed}
        pose = command["target_pose"]
        match kind:
            case Command.HOLD:
                self._hold()
            case Command.RECOVER:
                self._recover()
            case Command.SERVOL:
                due = now + float(command["duration"])
                self._trajectory = self._trajectory.drive_to_waypoint(pose, due, now, **speeds)
                self._last_waypoint_time = due
            case Command.SCHEDULE_WAYPOINT:
                due = float(command["target_time"]) - time.time() + now
                if due <= now:
                    logger.warning("A waypoint was dropped: it was due %.3f s ago.", now - due)
                    return
                self._trajectory = self._trajectory.schedule_waypoint(
                    pose, due, **speeds, curr_time=now, last_waypoint_time=self._last_waypoint_time
                )
                self._last_waypoint_time = due

    def _hold(self) -> None:
        self._trajectory, self._last_waypoint_time = self._resting()

    def _resting(self) -> tuple[PoseTrajectoryInterpolator, float]:
        """The trajectory that stops as soon as the limits allow and stays there, and the time of its last waypoint."""
        now = time.monotonic()
        return PoseTrajectoryInterpolator([now], [self._limiter.stopping_pose()]), now

    def _recover(self) -> None:
        try:
            self._connection.recover()
        except RobotFaultError as fault:
            logger.error("%s", fault)
            self._report.write(fault.kind, fault.detail)
        else:
            self._limiter.rest(self._connection.pose())
            self._hold()
            self._report.clear()
        self._channels.n_recoveries.add(1)

    def _wait(self, deadline: float) -> float:
        """Waits for the next of the evenly spaced cycles that is not past by a whole one; returns when it was due."""
        deadline += self._dt
        deadline += self._dt * max(math.floor((time.monotonic() - deadline) / self._dt), 0)
        precise_wait(deadline, slack_time=0)
        return deadline
