"""The arm's process, seen from the one that started it."""

import logging
import multiprocessing as mp
import signal
import time

from diffusion_policy.real_world.arm_channels import ArmChannels, Command
from diffusion_policy.real_world.arm_process import drive_arm
from diffusion_policy.real_world.motion_limits import MotionLimits
from diffusion_policy.real_world.robot_fault import FaultKind, RobotFaultError
from diffusion_policy.real_world.start_stop import StartStop
from diffusion_policy.real_world.ur_settings import URSettings

logger = logging.getLogger(__name__)

JOINTS_INIT_TIMEOUT = 60.0  # s
STOP_TIMEOUT = 5.0  # s
RECOVER_TIMEOUT = 15.0  # s
HANGS_AFTER = 0.5  # s without a cycle


class SupervisedArm(StartStop, mp.Process):
    """Starts, stops and recovers the arm, and knows why it stopped.

    Args:
        settings: of the robot.
        limits: that every command keeps.
        channels: to the process.
        launch_timeout: seconds until it must take commands; a minute more if it moves to `joints_init`.
        verbose: log what is not a fault too.
    """

    def __init__(
        self,
        settings: URSettings,
        limits: MotionLimits,
        channels: ArmChannels,
        launch_timeout: float,
        verbose: bool,
    ) -> None:
        super().__init__(name=type(self).__name__, daemon=True)
        self.limits = limits
        self._settings = settings
        self._channels = channels
        self._launch_timeout = launch_timeout + (0 if settings.joints_init is None else JOINTS_INIT_TIMEOUT)
        self._verbose = verbose
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
        self._stopping = True
        self._channels.stop_requested.store(1)
        if wait:
            self.stop_wait()

    def stop_wait(self) -> None:
        """Returns when the process has ended; one that does not is killed, and the robot's watchdog stops the arm."""
        self.join(STOP_TIMEOUT)
        if self.is_alive():
            logger.error("The arm's process did not end within %s s and is killed.", STOP_TIMEOUT)
            self.kill()
            self.join()

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

    def _raise_fault(self) -> None:
        if (fault := self.fault) is not None:
            raise fault
        if not self.is_ready:
            raise RuntimeError("The arm takes no commands: start the controller first, and give none after stop().")
