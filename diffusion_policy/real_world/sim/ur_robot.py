"""The controller's inside: arm, program and safety system, moved on tick by tick."""

import logging
import time
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.real_world.sim.ur_arm import Arm, servo, stop
from diffusion_policy.real_world.sim.ur_kinematics import (
    UR5,
    UR5E,
    invert,
    matrix_to_pose,
    pose_to_matrix,
)
from diffusion_policy.real_world.sim.ur_program import ControlProgram

logger = logging.getLogger(__name__)

Array = NDArray[np.float64]

NORMAL, PROTECTIVE_STOP, EMERGENCY_STOP = 1, 3, 7  # safety modes
PROGRAM_STOP_DECELERATION = 10.0  # rad/s^2 of the leading joint, when the program ends
PROTECTIVE_STOP_DECELERATION = 30.0
_SAFETY_BITS = {NORMAL: 1 << 0, PROTECTIVE_STOP: 1 << 2 | 1 << 10, EMERGENCY_STOP: 1 << 7 | 1 << 10}
_REFERENCE_GAIN = 300.0


class UrRobot:
    """An UR5 (CB3), or UR5e, that rests at `q` with no program.

    Args:
        e_series: a UR5e, with ticks of 2 ms instead of 8.
        q: joint angles `(6,)` (rad) to begin with.
        servo_time_constant: of the lag (s) with which the arm servos; None: `lookahead_time * 300 / gain` of the
            command.
        unlock_delay: seconds after a protective stop before it can be released.
    """

    def __init__(self, e_series: bool, q: Array, servo_time_constant: float | None, unlock_delay: float) -> None:
        self.e_series = e_series
        self.dt = 1 / 500 if e_series else 1 / 125
        self.arm = Arm(UR5E if e_series else UR5, q)
        self.inputs: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}
        self.input_times: dict[str, float] = {}
        self.command_times: deque[float] = deque(maxlen=4096)
        self.program: ControlProgram | None = None
        self.payload, self.payload_cog = 0.0, np.zeros(3)
        self.safety_mode = NORMAL
        self.time = 0.0
        self._servo_time_constant = servo_time_constant
        self._unlock_delay = unlock_delay
        self._stopped_at = -np.inf
        self.pose = self.arm.pose
        self.tool_speed = np.zeros(6)

    def servo(self, q: Array, lookahead_time: float, gain: float) -> None:
        """Follows joint angles `q`."""
        lag = self._servo_time_constant
        self.arm.motion = servo(q, lookahead_time * _REFERENCE_GAIN / gain if lag is None else lag)

    def run_program(self, script: str) -> None:
        """Starts an uploaded script, in place of the one that runs; not while the safety system has stopped the arm."""
        if self.safety_mode == NORMAL:
            self.program = ControlProgram(script, self)
            self.input_times[self.program.command_register] = self.time

    def stop_program(self) -> None:
        """Ends it, and slows the arm down."""
        if self.program is not None:
            self.program = None
            self.arm.motion = stop(PROGRAM_STOP_DECELERATION)

    def protective_stop(self) -> None:
        self._halt(PROTECTIVE_STOP)

    def emergency_stop(self) -> None:
        self._halt(EMERGENCY_STOP)

    def _halt(self, safety_mode: int) -> None:
        self.stop_program()
        self.arm.motion = stop(PROTECTIVE_STOP_DECELERATION)
        self.safety_mode = safety_mode
        self._stopped_at = self.time

    def unlock_protective_stop(self) -> bool:
        """Whether it is released: not too soon after it was made."""
        if self.safety_mode == PROTECTIVE_STOP and self.time - self._stopped_at < self._unlock_delay:
            return False
        if self.safety_mode == PROTECTIVE_STOP:
            self.safety_mode = NORMAL
        return True

    def write_inputs(self, values: dict[str, Any]) -> None:
        """What a client sent."""
        self.inputs.update(values)
        self.input_times.update(dict.fromkeys(values, self.time))
        if self.program is not None and self.program.command_register in values:
            self.command_times.append(time.monotonic())

    def tick(self) -> None:
        """Moves on by `dt`."""
        self.time += self.dt
        ended = self.arm.tick(self.dt)
        before, self.pose = self.pose, self.arm.pose
        turn = matrix_to_pose(pose_to_matrix(self.pose) @ invert(pose_to_matrix(before)))[3:]
        self.tool_speed = np.concatenate([self.pose[:3] - before[:3], turn]) / self.dt
        if self.program is None:
            return
        silence = self.time - self.input_times[self.program.command_register]
        if self.program.watchdog_frequency > 0 and silence > 1 / self.program.watchdog_frequency:
            logger.warning("The watchdog ends the program: no command for %.3f s.", silence)
            self.stop_program()
        elif not self.program.cycle(ended):
            self.stop_program()

    def states(self) -> dict[str, Any]:
        """Values of the RTDE outputs that are not zero."""
        arm, running = self.arm, self.program is not None
        return self.outputs | {
            "timestamp": self.time,
            "actual_q": arm.q,
            "target_q": arm.target_q,
            "actual_qd": arm.qd,
            "target_qd": arm.qd,
            "actual_TCP_pose": self.pose,
            "target_TCP_pose": arm.pose_at(arm.target_q),
            "actual_TCP_speed": self.tool_speed,
            "target_TCP_speed": self.tool_speed,
            "robot_mode": 7,
            "joint_mode": [253] * 6,
            "safety_mode": self.safety_mode,
            "safety_status": self.safety_mode,
            "safety_status_bits": _SAFETY_BITS[self.safety_mode],
            "runtime_state": 2 if running else 1,
            "robot_status_bits": 1 | running << 1,
            "speed_scaling": 1.0,
            "target_speed_fraction": 1.0,
            "actual_main_voltage": 48.0,
            "actual_robot_voltage": 48.0,
            "payload": self.payload,
            "payload_cog": self.payload_cog,
            "tcp_offset": matrix_to_pose(arm.tcp),
        }
