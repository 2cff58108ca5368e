"""What ur_rtde's control script does on each command number, on the simulated arm."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffusion_policy.real_world.sim import ur_arm
from diffusion_policy.real_world.sim.ur_kinematics import forward, matrix_to_pose, pose_to_matrix

STOP_SCRIPT = 255
STREAMING = {6, 9, 10, 11, 24, 25, 26, 27, 38, 58, *range(66, 72)}
"""Commands that are carried out anew in every cycle, as long as they stand in the register."""


class Robot(Protocol):
    """What programs command."""

    arm: ur_arm.Arm
    payload: float
    payload_cog: NDArray[np.float64]
    inputs: dict[str, Any]
    outputs: dict[str, Any]

    def servo(self, q: NDArray[np.float64], lookahead_time: float, gain: float) -> None: ...

    def protective_stop(self) -> None: ...


class Program(Protocol):
    """What commands are read from and answered to."""

    robot: Robot
    watchdog_frequency: float

    def integer(self, index: int) -> int: ...

    def double(self, index: int) -> float: ...

    def doubles(self, first: int, n: int) -> NDArray[np.float64]: ...

    def answer(self, values: ArrayLike) -> None: ...

    def answer_integer(self, value: int, index: int = 1) -> None: ...

    def start_motion(self, motion: ur_arm.Motion, asynchronous: bool) -> None: ...


class ScriptError(RuntimeError):
    """Ends the program, as an error in a script on the robot does."""


def _reachable(program: Program, pose: NDArray[np.float64]) -> NDArray[np.float64]:
    q = program.robot.arm.joints_for(pose)
    if q is None:
        raise ScriptError(f"no joint angles bring the tool to {pose.round(4).tolist()}")
    return q


def _move(program: Program, straight: bool, in_joints: bool) -> None:
    target, speed, acceleration = program.doubles(0, 6), program.double(6), program.double(7)
    arm = program.robot.arm
    motion: ur_arm.Motion | None
    if straight:
        end = arm.pose_at(target) if in_joints else target
        motion = ur_arm.move_tool(arm, end, speed, acceleration)
        if motion is None:
            raise ScriptError(f"no straight way leads to {end.round(4).tolist()}")
    else:
        q = target if in_joints else _reachable(program, target)
        motion = ur_arm.move_joints(arm.q, q, speed, acceleration)
    program.start_motion(motion, asynchronous=program.integer(1) == 1)


def _servo(program: Program, in_joints: bool) -> None:
    target, lookahead_time, gain = program.doubles(0, 6), program.double(9), program.double(10)
    q = target if in_joints else _reachable(program, target)
    program.robot.servo(q, lookahead_time, gain)


def _speed_joints(program: Program) -> None:
    program.robot.arm.motion = ur_arm.speed_joints(program.doubles(0, 6), program.double(6))


def _speed_tool(program: Program) -> None:
    program.robot.arm.motion = ur_arm.speed_tool(program.doubles(0, 6), program.double(6))


def _stop(program: Program) -> None:
    program.start_motion(ur_arm.stop(program.double(0)), asynchronous=False)


def _stop_move(program: Program) -> None:
    program.start_motion(ur_arm.stop(program.double(0)), asynchronous=program.integer(1) == 1)


def _set_payload(program: Program) -> None:
    program.robot.payload, program.robot.payload_cog = program.double(0), program.doubles(1, 3)


def _set_tcp(program: Program) -> None:
    program.robot.arm.tcp = pose_to_matrix(program.doubles(0, 6))


def _set_watchdog(program: Program) -> None:
    program.watchdog_frequency = program.double(0)


def _protective_stop(program: Program) -> None:
    program.robot.protective_stop()


def _inverse_kinematics(program: Program) -> None:
    program.answer(_reachable(program, program.doubles(0, 6)))


def _forward_kinematics(program: Program) -> None:
    flange = forward(program.robot.arm.model, program.doubles(0, 6))
    program.answer(matrix_to_pose(flange @ pose_to_matrix(program.doubles(6, 6))))


def _tcp_offset(program: Program) -> None:
    program.answer(matrix_to_pose(program.robot.arm.tcp))


def _pose_trans(program: Program) -> None:
    product = pose_to_matrix(program.doubles(0, 6)) @ pose_to_matrix(program.doubles(6, 6))
    program.answer(matrix_to_pose(product))


def _is_steady(program: Program) -> None:
    program.answer_integer(int(not np.any(program.robot.arm.qd)))


def _pose_is_safe(program: Program) -> None:
    program.answer_integer(int(program.robot.arm.joints_for(program.doubles(0, 6)) is not None))


def _joints_are_safe(program: Program) -> None:
    program.answer_integer(int(np.all(np.abs(program.doubles(0, 6)) <= 2 * np.pi)))


COMMANDS: dict[int, Callable[[Program], None]] = {
    1: lambda program: _move(program, straight=False, in_joints=True),
    2: lambda program: _move(program, straight=False, in_joints=False),
    3: lambda program: _move(program, straight=True, in_joints=False),
    4: lambda program: _move(program, straight=True, in_joints=True),
    9: _speed_joints,
    10: _speed_tool,
    11: lambda program: _servo(program, in_joints=True),
    15: _stop,
    16: _stop,
    17: _set_payload,
    24: lambda program: _servo(program, in_joints=False),
    29: _set_tcp,
    31: _protective_stop,
    33: _stop_move,
    34: _stop_move,
    35: _set_watchdog,
    36: _pose_is_safe,
    37: _joints_are_safe,
    39: _pose_trans,
    40: _tcp_offset,
    44: _forward_kinematics,
    46: _inverse_kinematics,
    47: _is_steady,
    65: _set_payload,
}
"""Others are taken, and do nothing."""
