"""A UR robot through ur_rtde: every call to that library stands here."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.real_world.robot_fault import FaultKind, RobotFaultError
from diffusion_policy.real_world.ur_settings import URSettings

try:
    import rtde_control
    import rtde_receive
    from dashboard_client import DashboardClient
except ImportError as error:
    raise ImportError("The UR robot needs ur_rtde: pip install 'diffusion_policy[real]'", name=error.name) from error

RECEIVE_KEYS = (
    "ActualTCPPose",
    "ActualTCPSpeed",
    "ActualQ",
    "ActualQd",
    "TargetTCPPose",
    "TargetTCPSpeed",
    "TargetQ",
    "TargetQd",
)
_VECTORS_OF_6 = (
    *RECEIVE_KEYS,
    *("TargetQdd", "TargetCurrent", "TargetMoment", "ActualCurrent", "JointControlOutput", "ActualTCPForce"),
    *("JointTemperatures", "ActualJointVoltage", "PayloadInertia", "JointMode", "FtRawWrench"),
)
_VECTORS_OF_3 = ("ActualToolAccelerometer", "PayloadCog")
_NORMAL_MODES = (1, 2)  # normal and reduced
_STOPPED_MODES = {3: "protective stop", 4: "recovery mode", 5: "safeguard stop"}
_STATES_ON_THE_WAY = 0.025  # s of the robot's clock
_JOINT_ACCELERATION = 1.4  # rad/s^2, of moves to the first joint angles
_SERVO_STOP_DECELERATION = 10.0  # m/s^2


def state_example(receive_keys: Sequence[str]) -> dict[str, Any]:
    """Zeros in the shape of a state with these keys.

    Raises:
        ValueError: ur_rtde has no state of that name.
    """
    for key in receive_keys:
        if not hasattr(rtde_receive.RTDEReceiveInterface, f"get{key}"):
            known = sorted(name[3:] for name in dir(rtde_receive.RTDEReceiveInterface) if name.startswith("get"))
            raise ValueError(f"ur_rtde receives no '{key}'. receive_keys can be {known}.")
    sizes = {key: 6 if key in _VECTORS_OF_6 else 3 if key in _VECTORS_OF_3 else None for key in receive_keys}
    return {key: 0.0 if size is None else np.zeros(size) for key, size in sizes.items()}


class URConnection:
    """Connects and configures; then servos, and says what is wrong with the robot.

    On the robot a watchdog ends the program, which stops the arm, when no command has come for `1 /
    watchdog_frequency` seconds: it works when this process, this computer or the cable is dead.

    Raises:
        RobotFaultError: there is no robot, or it takes no programs.
    """

    def __init__(self, settings: URSettings) -> None:
        self._settings = settings
        try:
            self._receive = rtde_receive.RTDEReceiveInterface(settings.robot_ip)
            if not self._receive.isConnected():  # the other interface would wait for data for ever
                raise RobotFaultError(FaultKind.NO_CONNECTION, f"{settings.robot_ip} sends no data")
            self._control = rtde_control.RTDEControlInterface(settings.robot_ip)
        except RuntimeError as error:
            if isinstance(error, RobotFaultError):
                raise
            raise RobotFaultError(FaultKind.NO_CONNECTION, f"{settings.robot_ip}: {error}") from error
        self._last_timestamp = self._receive.getTimestamp()
        self._last_news = time.monotonic()
        self._takes_commands = True
        self._stopped_time: float | None = None
        self._configure()

    def _configure(self) -> None:
        settings = self._settings
        done = self._control.setWatchdog(settings.watchdog_frequency)
        if done and settings.tcp_offset_pose is not None:
            done = self._control.setTcp(list(settings.tcp_offset_pose))
        if done and settings.payload_mass is not None:
            done = self._control.setPayload(settings.payload_mass, list(settings.payload_cog or []))
        if not done:
            raise RobotFaultError(self._reason(), "it refused watchdog, tool or payload")
        self._forget_states()
        self._takes_commands = True

    def _forget_states(self) -> None:
        """States from before are still on their way: servoing would begin with a jump to where the tool was in them."""
        seen = self._receive.getTimestamp()
        self._wait(lambda: self._receive.getTimestamp() > seen + _STATES_ON_THE_WAY, FaultKind.FROZEN)

    def pose(self) -> NDArray[np.float64]:
        """Where the tool is, `(6,)`."""
        return np.array(self._receive.getActualTCPPose())

    def read_state(self) -> dict[str, Any] | None:
        """The robot's newest state; None if it is the one read before."""
        timestamp = self._receive.getTimestamp()
        if timestamp == self._last_timestamp:
            return None
        self._last_timestamp, self._last_news = timestamp, time.monotonic()
        state = {key: np.array(getattr(self._receive, f"get{key}")(), float) for key in self._settings.receive_keys}
        return state | {"robot_receive_timestamp": time.time()}

    def servo(self, pose: NDArray[np.float64]) -> None:
        """Sends a command `(6,)`, unless one was refused: `fault` then says why."""
        if not self._takes_commands:
            return
        settings = self._settings
        unused = 0.5  # speed and acceleration
        self._takes_commands = self._control.servoL(
            pose.tolist(), unused, unused, 1 / settings.frequency, settings.lookahead_time, settings.gain
        )

    def fault(self) -> FaultKind | None:
        """What keeps the arm from moving, as far as states that have come tell.

        A stop of the robot's ends its program too. Of that the control connection hears, of why the other one, which
        may be behind: that the program has ended is said when later states give no other reason.
        """
        if not (self._receive.isConnected() and self._control.isConnected()):
            return FaultKind.DISCONNECTED
        mode = self._receive.getSafetyMode()
        if mode in _STOPPED_MODES or self._receive.isProtectiveStopped():
            return FaultKind.PROTECTIVE_STOP
        if mode not in _NORMAL_MODES or self._receive.isEmergencyStopped():
            return FaultKind.EMERGENCY_STOP
        if time.monotonic() - self._last_news > self._settings.max_silence:
            return FaultKind.FROZEN
        if self._takes_commands and self._control.isProgramRunning():
            self._stopped_time = None
            return None
        now = self._receive.getTimestamp()
        if self._stopped_time is None:
            self._stopped_time = now
        return FaultKind.PROGRAM_STOPPED if now > self._stopped_time + _STATES_ON_THE_WAY else None

    def _reason(self) -> FaultKind:
        """The fault, of a robot that does not do what it is told."""
        if self.fault() is None:
            self._forget_states()
        return self.fault() or FaultKind.PROGRAM_STOPPED

    def move_to_joints(self, joints: Sequence[float], speed: float, must_end: Callable[[], bool]) -> None:
        """Moves to joint angles (rad) at a speed (rad/s), straight in joint space; stops if `must_end` says so.

        Raises:
            RobotFaultError: it did not get there.
        """
        before = self._control.getAsyncOperationProgress()
        moving = self._control.moveJ(list(joints), speed, _JOINT_ACCELERATION, True)
        while moving:
            self.read_state()
            if fault := self.fault():
                raise RobotFaultError(fault, "on the way to joints_init")
            if must_end():
                self._control.stopJ(2 * _JOINT_ACCELERATION)
                break
            self._control.kickWatchdog()
            progress = self._control.getAsyncOperationProgress()
            moving = progress >= 0 or progress == before
            time.sleep(1 / self._settings.frequency)
        self._forget_states()
        if not must_end() and np.abs(np.array(self._receive.getActualQ()) - joints).max() > 0.05:
            raise RobotFaultError(self._reason(), f"joints_init {list(joints)} not reached")

    def recover(self) -> None:
        """Releases a protective stop and starts the program anew; the arm rests.

        Raises:
            RobotFaultError: the robot does not allow it, or is not ready within seconds.
        """
        if self.fault() == FaultKind.PROTECTIVE_STOP:
            dashboard = DashboardClient(self._settings.robot_ip)
            try:
                dashboard.connect()
                dashboard.unlockProtectiveStop()
            except RuntimeError as error:
                raise RobotFaultError(FaultKind.PROTECTIVE_STOP, str(error)) from error
            finally:
                dashboard.disconnect()
            self._wait(lambda: self._receive.getSafetyMode() in _NORMAL_MODES, FaultKind.PROTECTIVE_STOP)
        self._control.reuploadScript()
        self._wait(self._control.isProgramRunning, FaultKind.PROGRAM_STOPPED)
        self._configure()

    def _wait(self, condition: Callable[[], bool], otherwise: FaultKind) -> None:
        deadline = time.monotonic() + 3
        while not condition():
            if time.monotonic() > deadline:
                raise RobotFaultError(otherwise, "it stayed so for 3 s after it was told to go on")
            time.sleep(0.01)

    def stop(self) -> None:
        """Ends servoing and the robot's program. The connection is left to the end of the process."""
        if self._control.isProgramRunning():
            self._control.servoStop(_SERVO_STOP_DECELERATION)
            self._control.stopScript()
