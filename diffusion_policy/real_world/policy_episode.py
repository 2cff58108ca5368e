"""A policy drives the arm for one episode."""

import logging
import time

import numpy as np

from diffusion_policy.real_world.action_schedule import ActionSchedule, Array
from diffusion_policy.real_world.cycle_clock import CycleClock
from diffusion_policy.real_world.inference_thread import Answer, InferenceThread
from diffusion_policy.real_world.observations import Arrays
from diffusion_policy.real_world.robot_policy import ControlSettings
from diffusion_policy.real_world.station import Station
from diffusion_policy.real_world.timing_report import TimingReport

log = logging.getLogger(__name__)

START_DELAY = 1.0  # s before step 0
FRAME_LATENCY = 1 / 30  # s from a moment to its frame: the loop looks so much earlier
END_POSITION = np.array([0.341, 0.218])
"""x and y (m) to which the tool returns when Push-T is done."""
END_RADIUS, END_TIME = 0.03, 0.5  # m from there, and for how many s


class PolicyEpisode:
    """Recorded, from `START_DELAY` after it is made until a key, the time or the place of the tool ends it.

    Args:
        station: of the operator, who can end it by S, or by Q, which also ends the program.
        inference: where the policy is asked.
        control: how it is executed.
        max_duration: s.
        timeout: s without an answer after which the arm is stopped.
    """

    def __init__(
        self,
        station: Station,
        inference: InferenceThread,
        control: ControlSettings,
        max_duration: float,
        timeout: float,
    ) -> None:
        self._station, self._inference, self._control = station, inference, control
        self._max_duration, self._timeout = max_duration, timeout
        env = station.env
        start_time = time.time() + START_DELAY
        self._number = env.recorder.n_episodes
        self._timing = TimingReport()
        self._clock = CycleClock(1 / env.frequency, start_time - FRAME_LATENCY)
        self._clock.index = -round(START_DELAY * env.frequency)
        rest_pose = np.array(env.get_robot_state()["TargetTCPPose"], np.float64)
        self._schedule = ActionSchedule(rest_pose, start_time, self._clock.dt, control)
        self._next_question = 0
        self._asked_pose: Array = rest_pose
        self._at_end_since = np.inf
        self._has_left_end = False
        env.start_episode(start_time)

    def run(self) -> str:
        """Returns the key that ended it, or "" if it was not one.

        Raises:
            PolicyError: the policy failed, or has given no answer in time.
            RobotFaultError, CameraError, TeleopError, OperatorGone: what they say.
        """
        while True:
            obs = self._look()
            self._ask(obs)
            keys = self._station.keys.pressed()
            if reason := self._reason_to_end(keys, obs):
                break
            if (answer := self._inference.answer(self._clock.end, self._timeout)) is not None:
                self._execute(answer)
            self._clock.next()
        self._station.env.hold()
        log.info("Episode %d: %s", self._number, reason)
        self._station.end_episode(self._timing)
        return next((key for key in keys if key in "sq"), "")

    def _look(self) -> Arrays:
        self._timing.cycle()
        obs = self._station.env.get_obs()
        self._timing.add("observation_latency", time.time() - float(obs["timestamp"][-1]))
        seconds = max(self._clock.index * self._clock.dt, 0)
        lines = [f"Episode: {self._number}, Time: {seconds:.1f}"]
        self._station.view.show(obs[f"camera_{self._station.camera}"][-1], lines)
        self._station.check_operator()
        return obs

    def _ask(self, obs: Arrays) -> None:
        if self._clock.index >= self._next_question and not self._inference.is_busy:
            self._inference.ask(obs)
            self._asked_pose = obs["robot_eef_pose"][-1]
            self._next_question = self._clock.index + self._control.steps_per_inference

    def _execute(self, answer: Answer) -> None:
        self._timing.add("inference", answer.latency)
        scheduled = self._schedule(answer, self._asked_pose, time.time())
        n_late = self._station.env.exec_actions(scheduled.poses, scheduled.times)
        self._timing.count("late_actions", scheduled.n_late + n_late)
        self._timing.count("executed_actions", len(scheduled.poses) - n_late)

    def _reason_to_end(self, keys: list[str], obs: Arrays) -> str:
        if "s" in keys or "q" in keys:
            return "stopped by the operator"
        seconds = self._clock.index * self._clock.dt
        if seconds > self._max_duration:
            return f"{self._max_duration:g} s are over"
        is_at_end = np.linalg.norm(obs["robot_eef_pose"][-1, :2] - END_POSITION) < END_RADIUS
        self._has_left_end |= not is_at_end  # where it may have begun
        self._at_end_since = min(self._at_end_since, seconds) if is_at_end and self._has_left_end else np.inf
        return "the tool has returned" if seconds > self._at_end_since + END_TIME else ""
