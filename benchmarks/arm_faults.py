"""Faults of the arm: each stops a simulated robot that moves at 0.2 m/s; how long and how far it goes on is measured.

Run as a script it is the program that a fault kills: it moves the arm of the robot at the address given, and waits.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from motion_log import MotionLog

from diffusion_policy.real_world.robot_fault import FaultKind
from diffusion_policy.real_world.rtde_interpolation_controller import RTDEInterpolationController
from diffusion_policy.real_world.sim.ur_controller import SimulatedUR

SPEED = 0.2
TICK = 1 / 125
MOVING_FOR = 0.5  # s, before the fault


@dataclass
class Rig:
    """A robot whose arm moves; `controller` commands it here, or `program` in a process of its own."""

    robot: SimulatedUR
    log: MotionLog
    controller: RTDEInterpolationController | None = None
    program: subprocess.Popen[str] | None = None
    arm_pid: int = 0

    def stopping(self, since: float) -> tuple[float, float]:
        """Seconds and metres that the tool went on after the time `since` (monotonic, s)."""
        _, poses = self.log.read(since)
        return self.log.seconds_to_rest(since, TICK), float(np.linalg.norm(poses[-1, :3] - poses[0, :3]))


@dataclass(frozen=True)
class Fault:
    """What is done to the rig, what the controller may say about it, and within how many seconds the arm rests."""

    inject: Callable[[Rig], object]
    kinds: set[FaultKind]
    bound: float


def move(controller: RTDEInterpolationController) -> None:
    """Sets out on a way of 0.3 m."""
    controller.servoL(controller.get_state()["ActualTCPPose"] + np.array([0, 0.3, 0, 0, 0, 0]), duration=0.1)


@contextlib.contextmanager
def moving_arm() -> Iterator[Rig]:
    """Commanded by a controller of this process."""
    log = MotionLog()
    with (
        SimulatedUR(on_tick=log, unlock_delay=0.2) as robot,
        RTDEInterpolationController(None, robot.host, max_pos_speed=SPEED, soft_real_time=True) as controller,
    ):
        move(controller)
        time.sleep(MOVING_FOR)
        yield Rig(robot, log, controller, arm_pid=controller.pid or 0)


@contextlib.contextmanager
def moving_arm_of_a_program() -> Iterator[Rig]:
    """Commanded by a process of its own."""
    log = MotionLog()
    with SimulatedUR(on_tick=log) as robot:
        command = [sys.executable, __file__, robot.host]
        program = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        try:
            assert program.stdout is not None
            arm_pid = int(program.stdout.readline())
            time.sleep(MOVING_FOR)
            yield Rig(robot, log, program=program, arm_pid=arm_pid)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
            program.wait()


def _refused(rig: Rig) -> None:
    assert rig.controller is not None
    with contextlib.suppress(ValueError):
        rig.controller.servoL([np.nan] * 6)


GONE = {FaultKind.DISCONNECTED, FaultKind.PROCESS_DIED}  # ur_rtde, which connects again by itself, may crash

FAULTS = {
    "protective stop": Fault(lambda rig: rig.robot.protective_stop(), {FaultKind.PROTECTIVE_STOP}, 0.2),
    "emergency stop": Fault(lambda rig: rig.robot.emergency_stop(), {FaultKind.EMERGENCY_STOP}, 0.2),
    "stop button of the teach pendant": Fault(lambda rig: rig.robot.stop_program(), {FaultKind.PROGRAM_STOPPED}, 0.3),
    "connections dropped": Fault(lambda rig: rig.robot.drop_connections(), GONE, 0.8),
    "controller shut down": Fault(lambda rig: rig.robot.drop_connections(refuse=True), GONE, 0.4),
    "cable cut (no data, connections open)": Fault(lambda rig: rig.robot.freeze(), {FaultKind.FROZEN}, 0.4),
    "SIGKILL of the arm's process": Fault(
        lambda rig: os.kill(rig.arm_pid, signal.SIGKILL), {FaultKind.PROCESS_DIED}, 0.4
    ),
    "the arm's process hangs (SIGSTOP)": Fault(
        lambda rig: os.kill(rig.arm_pid, signal.SIGSTOP), {FaultKind.PROGRAM_STOPPED}, 0.4
    ),
    "SIGINT to the arm's process": Fault(lambda rig: os.kill(rig.arm_pid, signal.SIGINT), {FaultKind.INTERRUPTED}, 0.4),
    "a target that is refused (NaN)": Fault(_refused, set(), 0.9),
    "stop()": Fault(lambda rig: rig.controller and rig.controller.stop(), set(), 0.4),
}
PROGRAM_FAULTS = {
    "SIGKILL of the program": Fault(lambda rig: rig.program and rig.program.kill(), {FaultKind.PARENT_DIED}, 0.4),
    "Ctrl-C (SIGINT to every process)": Fault(
        lambda rig: rig.program and os.killpg(rig.program.pid, signal.SIGINT), {FaultKind.INTERRUPTED}, 0.4
    ),
}


def main() -> None:
    with RTDEInterpolationController(None, sys.argv[1], max_pos_speed=SPEED, soft_real_time=True) as controller:
        move(controller)
        sys.stdout.write(f"{controller.pid}\n")
        sys.stdout.flush()
        time.sleep(60)


if __name__ == "__main__":
    main()
