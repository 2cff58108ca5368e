"""A policy drives the arm, and a person between its episodes."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from diffusion_policy.real_world.action_schedule import BOUNDS
from diffusion_policy.real_world.human_control import HumanControl
from diffusion_policy.real_world.inference_thread import InferenceThread
from diffusion_policy.real_world.match_overlay import MatchOverlay
from diffusion_policy.real_world.policy_episode import PolicyEpisode
from diffusion_policy.real_world.robot_policy import RobotPolicy
from diffusion_policy.real_world.station import OnFault, Station
from diffusion_policy.real_world.timing_report import TimingReport

log = logging.getLogger(__name__)

WARM_UP_TIMEOUT = 300.0  # s: the first answer compiles and captures


@dataclass(frozen=True)
class EvalSettings:
    """How a policy is evaluated.

    Attributes:
        max_duration: of an episode (s).
        command_latency: see `HumanControl`.
        policy_timeout: s without an answer after which the arm is stopped.
        n_episodes: run one after the other, with no person in between; None: a person begins each.
        before_episode: called with the index of each of these before it begins.
    """

    max_duration: float
    command_latency: float
    policy_timeout: float
    n_episodes: int | None = None
    before_episode: Callable[[int], object] | None = None


class EvalLoop:
    """Until Q is pressed: C hands the arm to the policy, S takes it back.

    Args:
        overlay: what the scene is to look like before an episode; None for nothing.
    """

    def __init__(
        self, station: Station, policy: RobotPolicy, settings: EvalSettings, overlay: MatchOverlay | None = None
    ) -> None:
        self._station, self._policy, self._settings, self._overlay = station, policy, settings, overlay
        self._inference = InferenceThread(policy)

    def run(self, on_fault: OnFault) -> None:
        """Raises whatever fails, after the arm has stopped and the episode under way was saved or dropped."""
        try:
            with self._station.guarded(on_fault):
                self._wait_for_answer(WARM_UP_TIMEOUT)
                if self._settings.n_episodes is None:
                    while self._person_drives() and self._policy_drives():
                        pass
                else:
                    self._run_unattended(self._settings.n_episodes)
        finally:
            self._inference.close()

    def _run_unattended(self, n_episodes: int) -> None:
        for index in range(n_episodes):
            if self._settings.before_episode is not None:
                self._settings.before_episode(index)
            if not self._policy_drives():
                return

    def _wait_for_answer(self, timeout: float) -> None:
        """Leaves nothing asked; asks once, for the first question takes longest, if nothing was."""
        start = time.monotonic()
        self._inference.ask(self._station.env.get_obs())
        while self._inference.answer(time.monotonic() + 0.1, timeout) is None:
            self._station.env.get_obs()  # raises faults
            self._station.check_operator()
        log.info("The policy is ready (%.1f s)", time.monotonic() - start)

    def _person_drives(self) -> bool:
        """Whether the policy is next, else the end."""
        number = self._station.env.recorder.n_episodes
        overlay = self._overlay
        picture = None if overlay is None else lambda image: overlay(image, number)
        control = HumanControl(self._station, self._settings.command_latency, BOUNDS, picture)
        log.info("You drive: C hands the arm to the policy, Q quits")
        timing = TimingReport()
        while True:
            keys = control.cycle(timing, [f"Episode: {number}"])
            if "q" in keys or "c" in keys:
                return "q" not in keys

    def _policy_drives(self) -> bool:
        """Whether to go on."""
        if self._inference.is_busy:
            self._wait_for_answer(self._settings.policy_timeout)
        self._policy.reset()
        settings = self._settings
        episode = PolicyEpisode(
            self._station, self._inference, self._policy.settings, settings.max_duration, settings.policy_timeout
        )
        return episode.run() != "q"
