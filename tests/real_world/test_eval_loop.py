import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated_station import StationOnRig, simulated_station, speed, time_to_rest

from diffusion_policy.real_world.eval_loop import EvalLoop, EvalSettings
from diffusion_policy.real_world.inference_thread import PolicyError
from diffusion_policy.real_world.policy_episode import END_POSITION, END_RADIUS
from diffusion_policy.real_world.recorded_dataset import open_recordings
from diffusion_policy.real_world.robot_fault import RobotFaultError
from diffusion_policy.real_world.robot_policy import ControlSettings
from diffusion_policy.real_world.sim.rig import TOOL_START

SHAPE_META = {"obs": {"robot_eef_pose": {"shape": [2]}}, "action": {"shape": [2]}}
TIME_TO_STOP = 1.5  # s from an error to an arm at rest
LONG = 60.0


@dataclass
class LinePolicy:
    """Drives the tool along y, from where it is; may take its time, or fail, from a question on.

    Attributes:
        velocity: m/s, along x and y.
        stops_at: x and y, on its way, where it is to stay; None for nowhere.
        fails_at: number of the question that it fails at.
    """

    velocity: tuple[float, float] = (0.0, -0.1)
    stops_at: np.ndarray | None = None
    latency: float = 0.05
    hangs_at: int | None = None
    fails_at: int | None = None
    rubbish_at: int | None = None
    asked: list[float] = field(default_factory=list)
    n_resets: int = 0
    shape_meta: Any = field(default_factory=lambda: SHAPE_META)
    n_obs_steps: int = 2
    settings: ControlSettings = field(default_factory=lambda: ControlSettings(steps_per_inference=4))

    def reset(self) -> None:
        self.n_resets += 1
        self.asked.clear()

    def predict(self, obs: dict[str, np.ndarray]) -> np.ndarray:
        self.asked.append(float(obs["timestamp"][-1]))
        number = len(self.asked) if self.n_resets else 0
        time.sleep(self.latency)
        if number == self.hangs_at:
            time.sleep(20)
        if number == self.fails_at:
            raise ZeroDivisionError("no such thing")
        here = obs["robot_eef_pose"][-1, :2]
        steps = np.outer(np.arange(1, 9) * 0.1, self.velocity)
        if self.stops_at is not None:
            steps[np.linalg.norm(steps, axis=1) > np.linalg.norm(self.stops_at - here)] = self.stops_at - here
        actions = here + steps
        return actions * np.nan if number == self.rubbish_at else actions

    def close(self) -> None:
        pass


@pytest.fixture
def output_dir(tmp_path: Path) -> Path:
    return tmp_path / "eval"


@pytest.fixture
def at(output_dir: Path) -> Iterator[StationOnRig]:
    with simulated_station(output_dir) as station:
        yield station


def _run(at: StationOnRig, policy: LinePolicy, keys: dict[int, str] | None = None, **kwargs: Any) -> None:
    at.keys.by_cycle = keys or {}
    settings = {"max_duration": LONG, "command_latency": 0.01, "policy_timeout": 5.0, **kwargs}
    EvalLoop(at.station, policy, EvalSettings(**settings)).run("save")


def test_person_and_policy_take_turns(at: StationOnRig, output_dir: Path) -> None:
    """The person's cycles are not recorded; the policy is asked every 4 steps, 1 s after the key."""
    policy = LinePolicy()
    _run(at, policy, {3: "c", 40: "s", 44: "c", 70: "q"})
    buffer = open_recordings(output_dir)
    assert buffer.n_episodes == policy.n_resets == 2
    assert 15 <= buffer.episode_lengths[0] <= 45
    assert np.median(np.diff(policy.asked)) == pytest.approx(0.4, abs=0.11)
    y = buffer.get_episode(0)["robot_eef_pose"][:, 1]
    assert np.median(np.diff(y[5:])) == pytest.approx(-0.01, abs=0.003)
    kept = buffer.get_episode(0)["action"][:, 2:]
    np.testing.assert_allclose(kept, np.broadcast_to(kept[0], kept.shape), atol=1e-9)
    assert kept[0, 0] == pytest.approx(TOOL_START[2], abs=2e-3)
    timings = [json.loads(line) for line in (output_dir / "timing.json.txt").read_text().splitlines()]
    assert [timing["episode"] for timing in timings] == [0, 1]
    assert timings[0]["inference_p50_ms"] == pytest.approx(50, abs=40)
    assert timings[0]["executed_actions"] > timings[0]["late_actions"]
    assert time_to_rest(at.rig) < TIME_TO_STOP


def test_episodes_end_by_time_and_follow_each_other_unattended(at: StationOnRig, output_dir: Path) -> None:
    scenes: list[int] = []
    _run(at, LinePolicy(), max_duration=1.0, n_episodes=2, before_episode=scenes.append)
    assert scenes == [0, 1]
    lengths = open_recordings(output_dir).episode_lengths
    assert len(lengths) == 2
    assert all(8 <= length <= 20 for length in lengths)


def test_an_episode_ends_where_demonstrations_end(at: StationOnRig, output_dir: Path) -> None:
    towards = np.subtract(END_POSITION, TOOL_START[:2])
    policy = LinePolicy(velocity=tuple(0.1 * towards / np.hypot(*towards)), stops_at=END_POSITION)
    _run(at, policy, n_episodes=1)
    poses = open_recordings(output_dir)["robot_eef_pose"][:]
    assert len(poses) < 60  # it ended long before its time was over
    assert np.hypot(*(poses[-1, :2] - END_POSITION)) < END_RADIUS


def _seconds_to_rest(
    at: StationOnRig, policy: LinePolicy, error: type[Exception], at_least: int, **kwargs: Any
) -> float:
    """Runs a policy that drives fast until an error; returns when the arm rests after it came up (s)."""
    rested: list[float] = []

    def watch() -> None:
        deadline = time.monotonic() + 60
        while not (policy.n_resets and len(policy.asked) >= at_least):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        begun = time.monotonic()
        while speed(at.rig) > 1e-3 or time.monotonic() < begun + policy.latency:
            assert time.monotonic() < begun + 15
            time.sleep(0.01)
        rested.append(time.monotonic() - begun)

    thread = threading.Thread(target=watch)
    thread.start()
    with pytest.raises(error):
        _run(at, policy, n_episodes=1, **kwargs)
    thread.join()
    return rested[0]


@pytest.mark.parametrize("what", ["fails_at", "rubbish_at"])
def test_a_policy_that_fails_stops_the_arm_and_the_episode_is_saved(
    at: StationOnRig, output_dir: Path, what: str
) -> None:
    error = PolicyError if what == "fails_at" else ValueError
    policy = LinePolicy(**{what: 4}, latency=0.3)
    assert _seconds_to_rest(at, policy, error, at_least=4) < policy.latency + TIME_TO_STOP
    assert open_recordings(output_dir).episode_lengths[0] >= 8


def test_a_policy_that_is_late_runs_out_of_actions_and_is_given_up(at: StationOnRig, output_dir: Path) -> None:
    """The arm rests at the last action that it has, 0.8 s after what it was made of; then the arm is stopped."""
    begun = time.monotonic()
    policy = LinePolicy(hangs_at=4)
    assert _seconds_to_rest(at, policy, PolicyError, at_least=4, policy_timeout=2.0) < 0.8 + TIME_TO_STOP
    assert time.monotonic() - begun < 20  # nobody waits for the policy
    assert open_recordings(output_dir).episode_lengths[0] >= 8


def test_a_protective_stop_ends_an_episode_of_a_policy(at: StationOnRig, output_dir: Path) -> None:
    policy = LinePolicy()

    def stop() -> None:
        deadline = time.monotonic() + 60
        while len(policy.asked) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        at.rig.robot.protective_stop()

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(RobotFaultError, match="protective stop"):
        _run(at, policy, n_episodes=1)
    thread.join()
    assert time_to_rest(at.rig) < TIME_TO_STOP
    assert open_recordings(output_dir).episode_lengths[0] >= 4
