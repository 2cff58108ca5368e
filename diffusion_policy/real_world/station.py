"""Where an operator works: the robot's environment, a device to drive it, keys, and a view of it all."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from diffusion_policy.common.json_logger import JsonLogger
from diffusion_policy.real_world.operator_keys import OperatorKeys
from diffusion_policy.real_world.operator_view import OperatorView
from diffusion_policy.real_world.real_env import RealEnv, SavedEpisode
from diffusion_policy.real_world.teleop_device import TeleopDevice
from diffusion_policy.real_world.timing_report import TimingReport, in_words

log = logging.getLogger(__name__)

OnFault = Literal["save", "drop"]

TIMING = "timing.json.txt"
"""Of each episode a line in the recordings' folder."""

LONGEST_TELEOP_FAULT = 5.0  # s in which a device may be plugged in again; the arm holds


class OperatorGone(RuntimeError):
    """The operator has closed a window: nobody watches the arm."""


@dataclass
class Station:
    """Everything that an operator needs.

    Attributes:
        camera: index of the one that is shown.
    """

    env: RealEnv
    teleop: TeleopDevice
    keys: OperatorKeys
    view: OperatorView
    output_dir: Path
    camera: int = 0
    _fault_since: float | None = field(default=None, init=False)

    def check_operator(self) -> None:
        """Sees to it that somebody watches, and has the arm in hand.

        Raises:
            OperatorGone: a window was closed.
            TeleopError: the device has been out of order for too long.
        """
        if self.view.is_closed or self.env.is_window_closed:
            raise OperatorGone("the window was closed: the arm was stopped")
        fault = self.teleop.fault
        if fault is None:
            self._fault_since = None
            return
        if self._fault_since is None:
            self._fault_since = time.monotonic()
            log.warning("%s The arm holds.", fault)
        if time.monotonic() - self._fault_since > LONGEST_TELEOP_FAULT:
            raise fault

    def end_episode(self, timing: TimingReport) -> SavedEpisode | None:
        """Saves the episode under way, and says and writes how it kept time."""
        saved = self.env.end_episode()
        if saved is None:
            return None
        summary = timing.summary(saved.videos)
        log.info("Episode %d saved, %d steps\n%s", saved.number, saved.n_steps, in_words(summary))
        with JsonLogger(self.output_dir / TIMING) as logger:
            logger.log({"episode": saved.number, "n_steps": saved.n_steps, **summary})
        return saved

    @contextmanager
    def guarded(self, on_fault: OnFault) -> Iterator[None]:
        """If the block fails or is interrupted: stops the arm, saves or drops the episode under way."""
        try:
            yield
        except BaseException:
            with suppress(Exception):  # an arm that takes no commands has stopped
                self.env.hold()
            if self.env.recorder.is_recording:
                self._end_as_told(on_fault)
            raise

    def _end_as_told(self, on_fault: OnFault) -> None:
        if on_fault == "drop":
            log.warning("Episode %s was dropped", self.env.drop_episode())
        elif (saved := self.env.end_episode()) is not None:
            log.warning("Episode %d was saved up to here: %d steps", saved.number, saved.n_steps)
