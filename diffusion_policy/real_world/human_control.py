"""A person drives the arm."""

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffusion_policy.real_world.cycle_clock import CycleClock
from diffusion_policy.real_world.operator_view import Image
from diffusion_policy.real_world.station import Station
from diffusion_policy.real_world.teleop_target import TeleopTarget
from diffusion_policy.real_world.timing_report import TimingReport

log = logging.getLogger(__name__)


class HumanControl:
    """One cycle after the other, in each of which the arm is sent on.

    Args:
        station: where the person is.
        command_latency: from reading the device to the end of a cycle (s).
        bounds: see `TeleopTarget`.
        picture: what is shown of an image; None for itself.
    """

    def __init__(
        self,
        station: Station,
        command_latency: float,
        bounds: ArrayLike | None = None,
        picture: Callable[[Image], Image] | None = None,
    ) -> None:
        self._station, self._command_latency, self._picture = station, command_latency, picture
        env = station.env
        self.clock = CycleClock(1 / env.frequency)
        self._target = TeleopTarget(self._commanded_pose(), env.max_pos_speed, env.max_rot_speed, bounds)

    @property
    def next_command_time(self) -> float:
        """When the next command is due (wall clock, s)."""
        return self.clock.time_of(self.clock.index + 2)

    def cycle(self, timing: TimingReport, lines: Sequence[str], stage: int = 0) -> list[str]:
        """Looks, shows, and sends the arm where the device asks for.

        Args:
            lines: text to show.
            stage: to record.

        Returns:
            The keys that were pressed.
        """
        timing.cycle()
        env, station = self._station.env, self._station
        obs = env.get_obs()
        timing.add("observation_latency", time.time() - float(obs["timestamp"][-1]))
        image = obs[f"camera_{station.camera}"][-1]
        station.view.show(image if self._picture is None else self._picture(image), lines)
        station.check_operator()
        self.clock.wait(before_end=self._command_latency)
        self._send(timing, stage)
        self.clock.next()
        return station.keys.pressed()

    def _send(self, timing: TimingReport, stage: int) -> None:
        pose = self._target.move(self._station.teleop, self.clock.dt)
        try:
            timing.count("late_actions", self._station.env.exec_actions([pose], [self.next_command_time], [stage]))
        except ValueError as error:
            log.warning("%s", error)
            self._target.pose = self._commanded_pose()

    def _commanded_pose(self) -> NDArray[np.float64]:
        return np.array(self._station.env.get_robot_state()["TargetTCPPose"], np.float64)
