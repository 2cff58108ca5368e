"""A person demonstrates a task with the arm."""

import logging
import time

from diffusion_policy.real_world.human_control import HumanControl
from diffusion_policy.real_world.operator_keys import BACKSPACE, SPACE
from diffusion_policy.real_world.station import OnFault, Station
from diffusion_policy.real_world.timing_report import TimingReport

log = logging.getLogger(__name__)

CONFIRMATION = 3.0  # s within which a key has to be pressed again


class DemoLoop:
    """Until Q is pressed: C begins an episode, S saves it, the space bar begins its next stage, Backspace drops it, or
    the last one, when pressed again.

    Args:
        station: where the person is.
        command_latency: see `HumanControl`.
    """

    def __init__(self, station: Station, command_latency: float) -> None:
        self._station = station
        self._control = HumanControl(station, command_latency)
        self._timing = TimingReport()
        self._stage = 0
        self._asked_to_drop = -CONFIRMATION
        self._is_over = False

    def run(self, on_fault: OnFault) -> None:
        """Raises whatever fails, after the arm has stopped and the episode under way was saved or dropped."""
        log.info("Ready: C begins an episode, S saves it, space begins its next stage, Backspace drops it, Q quits")
        with self._station.guarded(on_fault):
            while not self._is_over:
                for key in self._control.cycle(self._timing, self._lines(), self._stage):
                    self._press(key)

    def _lines(self) -> list[str]:
        recorder = self._station.env.recorder
        lines = [f"Episode: {recorder.n_episodes}, Stage: {self._stage}"]
        if recorder.is_recording:
            lines.append("Recording!")
        if self._is_drop_asked_for:
            lines.append("Backspace again drops the episode")
        if (fault := self._station.teleop.fault) is not None:
            lines.append(str(fault))
        return lines

    @property
    def _is_drop_asked_for(self) -> bool:
        return time.monotonic() - self._asked_to_drop < CONFIRMATION

    def _press(self, key: str) -> None:
        if key == "q":
            self._station.end_episode(self._timing)
            self._is_over = True
        elif key == "c":
            self._station.end_episode(self._timing)
            self._station.env.start_episode(self._control.next_command_time)
            self._timing, self._stage = TimingReport(), 0
            log.info("Recording episode %d", self._station.env.recorder.n_episodes)
        elif key == "s":
            self._station.end_episode(self._timing)
            self._stage = 0
        elif key == SPACE:
            self._stage += 1
        elif key == BACKSPACE:
            self._drop()

    def _drop(self) -> None:
        if not self._is_drop_asked_for:
            self._asked_to_drop = time.monotonic()
            return
        self._asked_to_drop = -CONFIRMATION
        dropped = self._station.env.drop_episode()
        self._stage = 0
        log.info("There is no episode to drop" if dropped is None else f"Episode {dropped} dropped")
