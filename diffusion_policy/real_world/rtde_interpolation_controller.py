"""Drives a UR robot's tool along waypoints, in a process of its own."""

import dataclasses
import logging
import multiprocessing as mp
import signal
import time
from collections.abc import Sequence
from multiprocessing.managers import SharedMemoryManager
from queue import Full
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffusion_policy.real_world.arm_channels import ArmChannels, Command
from diffusion_policy.real_world.arm_process import drive_arm
from diffusion_policy.real_world.motion_limits import MotionLimits
from diffusion_policy.real_world.robot_fault import FaultKind, RobotFaultError
from diffusion_policy.real_world.ur_connection import RECEIVE_KEYS
from diffusion_policy.real_world.ur_settings import URSettings

__all__ = ["Command", "RTDEInterpolationController"]

logger = logging.getLogger(__name__)

JOINTS_INIT_TIMEOUT = 60.0  # s
STOP_TIMEOUT = 5.0  # s
RECOVER_TIMEOUT = 15.0  # s
HANGS_AFTER = 0.5  # s without a cycle


class RTDEInterpolationController(mp.Process):
    """Sends the robot a pose every cycle, and keeps the states it sends back.

    Commands are given by one thread. Every commanded pose keeps the limits; a target that is no pose, or too far away,
    is refused, and the arm holds. When this process, the one that started it or the connection ends, the arm stops:
    `FaultKind` lists what is noticed. After a fault `fault` says what happened and what to do, and commands raise it.

    Args:
        shm_manager: not needed (shared memory frees itself); may be None.
        robot_ip: address or host name.
        frequency: of commands (Hz): 125 for CB3, 500 for e-Series.
        lookahead_time: over which the robot smooths commands (s), 0.03 to 0.2.
        gain: with which the robot follows them, 100 to 2000.
        max_pos_speed: of the tool (m/s).
        max_rot_speed: of the tool (rad/s).
        launch_timeout: seconds until the robot must be connected; the move to `joints_init` may take a minute more.
        tcp_offset_pose: the tool's tip in the frame of the flange, `(6,)` (m, rotation vector in rad).
        payload_mass: kg.
        payload_cog: its centre of gravity in the frame of the flange, `(3,)` (m).
        joints_init: joint angles to go to first, `(6,)` (rad).
        joints_init_speed: of the leading joint (rad/s).
        soft_real_time: run the process in real time (`SCHED_RR`), which needs the right to.
        verbose: log what is not a fault too.
        receive_keys: entries of a state, named as ur_rtde's getters (`ActualQ` of `getActualQ`); default:
            `RECEIVE_KEYS`. `ActualTCPPose` is always there.
        get_max_k: most states that can be read at once.
        motion_limits: accelerations, workspace and how far targets may be; its speeds are those given above.
        watchdog_frequency: the robot's program ends by itself when no command came for `1 / watchdog_frequency` s.
        max_silence: seconds without a new state after which the robot counts as frozen.

    Raises:
        ValueError: an argument is of the wrong shape or out of range.
    """

    def __init__(
        self,
        shm_manager: SharedMemoryManager | None,
        robot_ip: str,
        frequency: float = 125,
        lookahead_time: float = 0.1,
        gain: float = 300,
        max_pos_speed: float = 0.25,
        max_rot_speed: float = 0.16,
        launch_timeout: float = 3,
        tcp_offset_pose: Sequence[float] | None = None,
        payload_mass: float | None = None,
        payload_cog: Sequence[float] | None = None,
        joints_init: Sequence[float] | None = None,
        joints_init_speed: float = 1.05,
        soft_real_time: bool = False,
        verbose: bool = False,
        receive_keys: Sequence[str] | None = None,
        get_max_k: int = 128,
        motion_limits: MotionLimits | None = None,
        watchdog_frequency: float = 5.0,
        max_silence: float = 0.2,
    ) -> None:
        super().__init__(name="RTDEInterpolationController", daemon=True)
        keys = list(dict.fromkeys([*(RECEIVE_KEYS if receive_keys is None else receive_keys), "ActualTCPPose"]))
        self._settings = URSettings(
            robot_ip=robot_ip,
            receive_keys=keys,
            frequency=frequency,
            lookahead_time=lookahead_time,
            gain=gain,
            tcp_offset_pose=tcp_offset_pose,
            payload_mass=payload_mass,
            payload_cog=payload_cog,
            joints_init=joints_init,
            joints_init_speed=joints_init_speed,
            soft_real_time=soft_real_time,
            watchdog_frequency=watchdog_frequency,
            max_silence=max_silence,
        )
        self.limits = dataclasses.replace(
            motion_limits or MotionLimits(), max_pos_speed=max_pos_speed, max_rot_speed=max_rot_speed
        )
        self._launch_timeout = launch_timeout + (0 if joints_init is None else JOINTS_INIT_TIMEOUT)
        self._verbose = verbose
        self._channels = ArmChannels(keys, frequency, get_max_k)
        self._stopping = False

    def run(self) -> None:
        """What the process does; see `start`."""
        logging.getLogger("diffusion_policy.real_world").setLevel(logging.INFO if self._verbose else logging.WARNING)
        parent = mp.parent_process()
        assert parent is not None
        assert parent.pid is not None
        drive_arm(self._settings, self.limits, self._channels, parent.pid)

    def start(self, wait: bool = True) -> None:
        """Connects and goes to `joints_init`; waits for it unless told otherwise: see `start_wait`."""
        super().start()
        if wait:
            self.start_wait()

    def start_wait(self) -> None:
        """Returns when commands are taken.

        Raises:
            RobotFaultError: the robot cannot be reached or refuses; the process has ended.
        """
        deadline = time.monotonic() + self._launch_timeout
        while not self.is_ready:
            fault = self.fault
            if fault is None and time.monotonic() > deadline:
                waited = f"{self._settings.robot_ip} was not ready after {self._launch_timeout} s"
                fault = RobotFaultError(FaultKind.NO_CONNECTION, waited)
                self.kill()
            if fault is not None:
                self.stop()
                raise fault
            time.sleep(0.002)

    def stop(self, wait: bool = True) -> None:
        """Stops the arm and ends the process; also after a fault, and more than once."""
        if not self._stopping and self.is_alive():
            try:
                self._channels.put(Command.STOP)
            except Full:
                self.terminate()
        self._stopping = True
        if wait:
            self.stop_wait()

    def stop_wait(self) -> None:
        """Returns when the process has ended; one that does not is killed, and the robot's watchdog stops the arm."""
        self.join(STOP_TIMEOUT)
        if self.is_alive():
            logger.error("The arm's process did not end within %s s and is killed.", STOP_TIMEOUT)
            self.kill()
            self.join()

    def __enter__(self) -> "RTDEInterpolationController":
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def is_ready(self) -> bool:
        """Whether commands are taken."""
        return self._channels.seconds_since_cycle() is not None and self.is_alive() and self.fault is None

    @property
    def fault(self) -> RobotFaultError | None:
        """Why the arm has stopped though it was not told to: returned, not raised."""
        alive = self.is_alive()
        if (reported := self._channels.report.read()) is not None or self._stopping or self.pid is None:
            return reported
        if not alive:
            code = self.exitcode or 0
            cause = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            return RobotFaultError(FaultKind.PROCESS_DIED, cause)
        silence = self._channels.seconds_since_cycle() or 0.0
        return RobotFaultError(FaultKind.PROCESS_HANGS, f"for {silence:.1f} s") if silence > HANGS_AFTER else None

    def servoL(self, pose: ArrayLike, duration: float = 0.1) -> None:
        """Drives straight to `pose` `(6,)`, to be there after `duration` s, or later if the limits on speed demand it.

        Raises:
            ValueError: the target is refused, and the arm holds.
            RobotFaultError: the arm takes no commands.
        """
        if not duration >= 1 / self._settings.frequency:
            raise ValueError(f"duration must be a cycle, {1 / self._settings.frequency} s, at least, got {duration}.")
        self._send(Command.SERVOL, pose, duration=duration)

    def schedule_waypoint(self, pose: ArrayLike, target_time: float) -> None:
        """Goes on to `pose` `(6,)` after the waypoint before, to be there at `target_time` (as `time.time()`, s), or
        later if the limits on speed demand it. A waypoint that was due before it gets there is dropped.

        Raises:
            ValueError: the target is refused, and the arm holds.
            RobotFaultError: the arm takes no commands.
        """
        if not np.isfinite(target_time):
            raise ValueError(f"target_time must be a time as time.time() gives it, got {target_time}.")
        self._send(Command.SCHEDULE_WAYPOINT, pose, target_time=target_time)

    def hold(self) -> None:
        """Stops the arm as soon as the limits allow, where it then stays.

        Raises:
            RobotFaultError: the arm takes no commands.
        """
        self._raise_fault()
        self._channels.put(Command.HOLD)

    def recover(self) -> None:
        """Releases a protective stop and starts the robot's program anew: for a human who has looked at the robot.

        Raises:
            RobotFaultError: the robot does not allow it (it wants 5 s after a protective stop), or the fault is one
                that needs a new controller.
        """
        n_before = self._channels.n_recoveries.load()
        if self.is_alive():
            self._channels.put(Command.RECOVER)
        deadline = time.monotonic() + RECOVER_TIMEOUT
        while self._channels.n_recoveries.load() == n_before and self.is_alive() and time.monotonic() < deadline:
            time.sleep(0.005)
        self._raise_fault()

    def get_state(self, k: int | None = None, out: dict[str, NDArray[Any]] | None = None) -> dict[str, NDArray[Any]]:
        """The newest state, by `receive_keys` and `robot_receive_timestamp` (as `time.time()`, s); with `k` the last
        `k` of them, oldest first, as arrays `(k, ...)`."""
        return self._channels.states.get(out) if k is None else self._channels.states.get_last_k(k, out)

    def get_all_state(self) -> dict[str, NDArray[Any]]:
        """The last `get_max_k` states, or as many as there are, oldest first, as arrays `(k, ...)`."""
        return self._channels.states.get_all()

    def _send(self, command: Command, pose: ArrayLike, **when: float) -> None:
        self._raise_fault()
        try:
            target = self.limits.checked_target(pose, self.get_state()["ActualTCPPose"])
        except ValueError:
            self._channels.put(Command.HOLD)
            raise
        self._channels.put(command, target, **when)

    def _raise_fault(self) -> None:
        if (fault := self.fault) is not None:
            raise fault
        if not self.is_ready:
            raise RuntimeError("The arm takes no commands: start the controller first, and give none after stop().")
