"""The process that drives the arm: from connecting to the last word on why it ended."""

import gc
import logging
import os
import signal
import time
from collections.abc import Callable
from typing import NoReturn

from diffusion_policy.real_world.arm_channels import ArmChannels
from diffusion_policy.real_world.motion_limits import MotionLimits
from diffusion_policy.real_world.parent_watch import ParentWatch, die_with_parent
from diffusion_policy.real_world.real_time import run_in_real_time
from diffusion_policy.real_world.robot_fault import FaultKind, RobotFaultError
from diffusion_policy.real_world.servo_loop import ServoLoop
from diffusion_policy.real_world.ur_connection import URConnection
from diffusion_policy.real_world.ur_settings import URSettings

logger = logging.getLogger(__name__)

LONGEST_CYCLE = 10  # s, of one that recovers the robot; the others take milliseconds


def drive_arm(settings: URSettings, limits: MotionLimits, channels: ArmChannels, parent_pid: int) -> NoReturn:
    """Runs until it is told to end, the parent dies, a signal comes or the robot needs help; stops the arm; ends the
    process."""
    gc.freeze()  # a search for garbage in all that the parent has loaded takes longer than a cycle
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: signals.append(number))
    parent = ParentWatch(parent_pid)

    def must_end() -> bool:
        signal.alarm(LONGEST_CYCLE)  # which ends the process, should ur_rtde wait for a robot that is gone
        return bool(signals) or channels.stop_requested.load() > 0 or not parent.is_alive()

    code = 1
    try:
        connection = _connect(settings)
        _drive(connection, settings, limits, channels, must_end)
        if not parent.is_alive():
            raise RobotFaultError(FaultKind.PARENT_DIED)
        if signals:
            raise RobotFaultError(FaultKind.INTERRUPTED, signal.Signals(signals[0]).name)
        code = 0
    except RobotFaultError as fault:
        logger.error("%s", fault)
        channels.report.write(fault.kind, fault.detail)
    except Exception as error:
        logger.exception("The arm's process failed.")
        channels.report.write(FaultKind.PROCESS_DIED, repr(error))
    finally:
        logging.shutdown()
        # While `connection` lives: ur_rtde's destructors take a second and, with the connection lost, may crash.
        os._exit(code)


def _connect(settings: URSettings) -> URConnection:
    if settings.soft_real_time and not run_in_real_time(priority=20):
        logger.warning(
            "soft_real_time is not allowed here: set rtprio to 20 for this user in /etc/security/limits.conf."
        )
    die_with_parent()  # ur_rtde holds the interpreter meanwhile: nothing here could look after the parent
    connection = URConnection(settings)
    die_with_parent(False)
    return connection


def _drive(
    connection: URConnection,
    settings: URSettings,
    limits: MotionLimits,
    channels: ArmChannels,
    must_end: Callable[[], bool],
) -> None:
    try:
        if settings.joints_init is not None:
            connection.move_to_joints(settings.joints_init, settings.joints_init_speed, must_end)
        while (state := connection.read_state()) is None:
            if fault := connection.fault():
                raise RobotFaultError(fault)
            time.sleep(0.001)
        channels.states.put(state)
        loop = ServoLoop(connection, settings.frequency, limits, channels, must_end)
        loop.run()
    except Exception as error:
        if getattr(error, "kind", None) not in (FaultKind.DISCONNECTED, FaultKind.FROZEN):
            connection.stop()
        raise
