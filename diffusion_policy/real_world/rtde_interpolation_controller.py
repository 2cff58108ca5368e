"""Drives a UR robot's tool along waypoints, in a process of its own."""

import dataclasses
from collections.abc import Sequence
from multiprocessing.managers import SharedMemoryManager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffusion_policy.real_world.arm_channels import ArmChannels, Command
from diffusion_policy.real_world.motion_limits import MotionLimits
from diffusion_policy.real_world.supervised_arm import SupervisedArm
from diffusion_policy.real_world.ur_connection import RECEIVE_KEYS
from diffusion_policy.real_world.ur_settings import URSettings

__all__ = ["Command", "RTDEInterpolationController"]


class RTDEInterpolationController(SupervisedArm):
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
        keys = list(dict.fromkeys([*(RECEIVE_KEYS if receive_keys is None else receive_keys), "ActualTCPPose"]))
        settings = URSettings(
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
        limits = dataclasses.replace(
            motion_limits or MotionLimits(), max_pos_speed=max_pos_speed, max_rot_speed=max_rot_speed
        )
        super().__init__(settings, limits, ArmChannels(keys, frequency, get_max_k), launch_timeout, verbose)

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
