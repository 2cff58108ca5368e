import json
import multiprocessing
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from simulated_station import PATIENCE, StationOnRig, simulated_station, speed, time_to_rest

from diffusion_policy.real_world import station
from diffusion_policy.real_world.cameras.frame_source import CameraError
from diffusion_policy.real_world.demo_loop import DemoLoop
from diffusion_policy.real_world.recorded_dataset import open_recordings
from diffusion_policy.real_world.robot_fault import RobotFaultError
from diffusion_policy.real_world.teleop_device import TeleopError

TIME_TO_STOP = 1.5  # s from a fault to an arm at rest


@pytest.fixture
def output_dir(tmp_path: Path) -> Path:
    return tmp_path / "demo"


@pytest.fixture
def at(output_dir: Path) -> Iterator[StationOnRig]:
    with simulated_station(output_dir) as station:
        yield station


def _run(at: StationOnRig, keys: dict[int, str], on_fault: str = "save") -> None:
    at.keys.by_cycle = keys
    DemoLoop(at.station, command_latency=0.01).run(on_fault)


def test_keys_begin_stage_save_and_drop_episodes(at: StationOnRig, output_dir: Path) -> None:
    at.rig.spacenavd.move([0.3, 0, 0, 0, 0, 0])
    keys = {2: "c", 6: "space", 16: "s", 18: "c", 23: "s", 24: "backspace", 26: "backspace", 27: "c", 32: "q"}
    _run(at, keys)
    buffer = open_recordings(output_dir)
    first, second = buffer.episode_lengths
    assert 11 <= first <= 24  # 14 cycles, of which the first two commands are not yet due; more if some were missed
    assert 2 <= second <= 10
    stages = buffer.get_episode(0)["stage"].tolist()
    assert sorted(stages) == stages
    assert set(stages) == {0, 1}
    step = 0.3 * 0.25 * 0.1  # 30 % of 0.25 m/s, for 0.1 s
    assert np.median(np.diff(buffer["action"][:first, 0])) == pytest.approx(step, abs=1e-4)
    moving = buffer["robot_eef_pose"][first - 7 : first, 0]  # not when it makes up for commands that came late
    assert np.median(np.diff(moving)) == pytest.approx(step, abs=0.003)
    assert {path.name for path in (output_dir / "videos").iterdir()} == {"0", "1"}
    timings = [json.loads(line) for line in (output_dir / "timing.json.txt").read_text().splitlines()]
    assert [timing["episode"] for timing in timings] == [0, 1, 1]
    assert timings[0]["n_steps"] == first
    assert timings[0]["period_p50_ms"] == pytest.approx(100, abs=30)
    assert timings[0]["frames"] > 10


def _wait_for_cycle(at: StationOnRig, cycle: int) -> None:
    deadline = time.monotonic() + 20
    while at.keys.cycle < cycle:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _fails_after(at: StationOnRig, fault: object, error: type[Exception], on_fault: str = "save") -> float:
    """Runs the loop with the arm moving; returns the s that the arm takes to rest after `fault` is called."""
    at.rig.spacenavd.move([0, 0.5, 0, 0, 0, 0])
    called, at_rest = threading.Event(), []

    def watch() -> None:
        _wait_for_cycle(at, 8)
        assert speed(at.rig) > 0.05
        fault()
        called.set()
        at_rest.append(time_to_rest(at.rig))

    thread = threading.Thread(target=watch)
    thread.start()
    with pytest.raises(error):
        _run(at, {2: "c"}, on_fault)
    thread.join()
    assert called.is_set()
    return at_rest[0]


def test_a_protective_stop_ends_the_session_and_saves_the_episode(at: StationOnRig, output_dir: Path) -> None:
    assert _fails_after(at, at.rig.robot.protective_stop, RobotFaultError) < TIME_TO_STOP
    assert open_recordings(output_dir).episode_lengths[0] >= 4


def test_a_camera_that_stops_stops_the_arm_and_drops_the_episode_if_told(at: StationOnRig, output_dir: Path) -> None:
    def stop_camera() -> None:
        at.rig.cameras[1].deliver(False)

    assert _fails_after(at, stop_camera, CameraError, on_fault="drop") < TIME_TO_STOP
    assert open_recordings(output_dir).n_episodes == 0
    assert list((output_dir / "videos").iterdir()) == []


def test_a_spacemouse_that_goes_away_stops_the_arm_at_once(at: StationOnRig, output_dir: Path) -> None:
    at.rig.spacenavd.move([0, 0.5, 0, 0, 0, 0])
    at.keys.by_cycle = {2: "c", 20: "s", 22: "q"}
    stopped = []

    def unplug() -> None:
        _wait_for_cycle(at, 8)
        at.rig.spacenavd.plug(False)
        time.sleep(TIME_TO_STOP)
        stopped.append(speed(at.rig))
        at.rig.spacenavd.plug(True)

    thread = threading.Thread(target=unplug)
    thread.start()
    DemoLoop(at.station, command_latency=0.01).run("save")
    thread.join()
    assert stopped[0] < 1e-3
    assert open_recordings(output_dir).episode_lengths[0] >= 15  # the device was plugged in again


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("RTDEInterpolationController", RobotFaultError),
        ("SimulatedUR", RobotFaultError),
        ("camera sim_0", CameraError),
        ("spacemouse", TeleopError),
        ("spacenavd", TeleopError),
    ],
)
def test_a_kill_of_any_process_stops_the_arm_and_keeps_the_episodes(
    at: StationOnRig, output_dir: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: type[Exception]
) -> None:
    monkeypatch.setattr(station, "LONGEST_TELEOP_FAULT", 0.5)
    (child,) = [process for process in multiprocessing.active_children() if process.name == name]
    at.rig.spacenavd.move([0, 0.5, 0, 0, 0, 0])
    killed: list[float] = []

    def kill() -> None:
        _wait_for_cycle(at, 14)
        child.kill()
        killed.append(time.monotonic())

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(error):
        _run(at, {2: "c", 7: "s", 8: "c"})
    thread.join()
    assert time.monotonic() - killed[0] < PATIENCE + TIME_TO_STOP
    if name != "SimulatedUR":
        assert time_to_rest(at.rig) < TIME_TO_STOP
    lengths = open_recordings(output_dir).episode_lengths
    assert len(lengths) == 2  # the one before, and the one under way
    assert lengths[1] >= 2
