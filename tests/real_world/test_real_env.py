"""The environment on simulated hardware: robot, cameras and clocks are those that the real client libraries see."""

import itertools
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from simulated_station import FPS, RESOLUTION, env_of, simulated_rig, time_to_rest

from diffusion_policy.real_world.cameras.frame_source import CameraError
from diffusion_policy.real_world.cycle_clock import CycleClock
from diffusion_policy.real_world.real_data_conversion import real_data_to_replay_buffer
from diffusion_policy.real_world.real_env import RealEnv, SavedEpisode, video_start_time
from diffusion_policy.real_world.recorded_dataset import open_recordings
from diffusion_policy.real_world.robot_fault import RobotFaultError
from diffusion_policy.real_world.sim.rig import SimulatedRig
from diffusion_policy.real_world.sim.scene_renderer import LEFT, RIGHT, TOOL_COLOR, SceneRenderer
from diffusion_policy.real_world.video_recorder import VideoRecorder, read_video

DT = 0.1
ROBOT_CYCLE = 0.008  # s
START = 1.7e9


@pytest.fixture
def rig() -> Iterator[SimulatedRig]:
    with simulated_rig() as rig:
        yield rig


def _move(env: RealEnv, n_steps: int, speed: float = 1.2, record: bool = True) -> SavedEpisode | None:
    """Moves the tool to and fro along y for so many steps, recorded."""
    pose = env.get_robot_state()["TargetTCPPose"]
    clock = CycleClock(DT)
    if record:
        env.start_episode(clock.time_of(2))
    for i in range(n_steps):
        env.get_obs()
        target = pose + np.array([0, 0.1 * np.sin(speed * i * DT), 0, 0, 0, 0])
        env.exec_actions([target], [clock.time_of(clock.index + 2)], [i // 10])
        clock.next()
    return env.end_episode() if record else None


def test_observations_and_recordings_show_the_same(rig: SimulatedRig, tmp_path: Path) -> None:
    with env_of(rig, tmp_path / "demo") as env:
        obs = env.get_obs()
        shapes = {key: value.shape for key, value in obs.items()}
        assert shapes == {
            "camera_0": (2, 120, 160, 3),
            "camera_1": (2, 120, 160, 3),
            **{f"robot_{name}": (2, 6) for name in ("eef_pose", "eef_pose_vel", "joint", "joint_vel")},
            "timestamp": (2,),
        }
        assert obs["timestamp"][1] - obs["timestamp"][0] == pytest.approx(DT)
        assert time.time() - obs["timestamp"][1] < 0.5
        saved = _move(env, 40)
    assert saved is not None
    assert saved.number == 0
    assert 36 <= saved.n_steps <= 60
    for video in saved.videos:  # which a busy machine has no time for, now and then
        assert video.n_dropped + video.n_repeated < 0.3 * video.n_frames
    buffer = real_data_to_replay_buffer(tmp_path / "demo")
    np.testing.assert_allclose(np.diff(buffer["timestamp"][:]), DT, atol=1e-5)
    assert buffer["stage"][:].tolist() == sorted(buffer["stage"][:])
    for index, view in enumerate((LEFT, RIGHT)):
        renderer = SceneRenderer(view, RESOLUTION, rig.world.goal)
        expected = _track_of_poses(renderer, buffer["robot_eef_pose"][:])
        seen = np.array([_tool_column(image) for image in buffer[f"camera_{index}"][:]])

        # The world moves once a cycle of the robot, and a step has the first state that is not before it.
        assert abs(_delay(seen, expected)) < 0.5 / FPS + ROBOT_CYCLE


@pytest.mark.parametrize("phase", [0.0, 0.3, 0.49, 0.51, 0.8])
def test_a_step_shows_the_frame_nearest_to_it(tmp_path: Path, phase: float) -> None:
    """Whatever the time between steps and frames: `phase`, of the time between frames."""
    recorder = VideoRecorder.create_h264(fps=FPS, crf=5)
    recorder.start(tmp_path / "0.mp4", video_start_time(START, FPS))
    for i in range(-3, 56):
        recorder.write_frame(np.full((32, 32, 3), 20 + 4 * i, np.uint8), frame_time=START + (i + phase) / FPS)
    recorder.stop()
    for step, image in enumerate(itertools.islice(read_video(tmp_path / "0.mp4", dt=DT), 18)):
        i = round((image.mean() - 20) / 4)
        assert abs((i + phase) / FPS - step * DT) < 0.5 / FPS + 1e-3


def _track_of_poses(renderer: SceneRenderer, poses: np.ndarray) -> np.ndarray:
    """Column of the tool's middle in an image, for each pose."""
    return renderer.project(poses[:, :3] + np.array([0, 0, 0.05]))[:, 0]


def _tool_column(image: np.ndarray) -> float:
    """Mean column of what has the tool's colour in an RGB image."""
    differs = np.abs(image.astype(int) - TOOL_COLOR[::-1]).sum(axis=-1)
    return float(np.nonzero(differs < 60)[1].mean())


def _delay(seen: np.ndarray, expected: np.ndarray) -> float:
    """By how many s what was seen is behind what was expected (least squares)."""
    velocity = np.gradient(expected, DT)
    offset = seen - expected
    design = np.stack([-velocity, np.ones_like(velocity), expected], axis=1)  # the middle of what is seen is elsewhere
    return float(np.linalg.lstsq(design, offset, rcond=None)[0][0])


def test_late_actions_are_dropped_and_not_recorded(rig: SimulatedRig, tmp_path: Path) -> None:
    with env_of(rig, tmp_path / "demo") as env:
        pose = env.get_robot_state()["TargetTCPPose"]
        start = time.time()
        env.start_episode(start)
        poses = pose + np.arange(4)[:, None] * np.array([0.001, 0, 0, 0, 0, 0])
        n_late = env.exec_actions(poses, start + np.array([-0.2, -0.1, 0.3, 0.4]))
        assert n_late == 2
        time.sleep(0.6)
        env.get_obs()
        assert env.end_episode().n_steps == 5
        with pytest.raises(ValueError, match="4 actions need as many timestamps and stages, got 3 timestamps and 4"):
            env.exec_actions(poses, start + np.arange(3))
    actions = open_recordings(tmp_path / "demo")["action"][:]
    np.testing.assert_allclose(actions, poses[[2, 2, 2, 2, 3]])


def test_refused_targets_raise_hold_and_are_not_recorded(rig: SimulatedRig, tmp_path: Path) -> None:
    with env_of(rig, tmp_path / "demo") as env:
        pose = env.get_robot_state()["TargetTCPPose"]
        for bad in (pose + 1, np.full(6, np.nan)):
            with pytest.raises(ValueError, match=r"target|finite"):
                env.exec_actions([bad], [time.time() + 0.1])
        assert time_to_rest(rig) < 1.5
        np.testing.assert_allclose(env.get_robot_state()["ActualTCPPose"], pose, atol=1e-3)


def test_episodes_are_saved_dropped_and_added_to(rig: SimulatedRig, tmp_path: Path) -> None:
    videos = tmp_path / "demo/videos"
    with env_of(rig, tmp_path / "demo") as env:
        first = _move(env, 8)
        env.start_episode()
        assert env.drop_episode() == 1
        assert {path.name for path in videos.iterdir()} == {"0"}
        env.start_episode()
        _move(env, 5, record=False)
    buffer = open_recordings(tmp_path / "demo")  # the episode under way was saved at the end
    assert buffer.n_episodes == 2
    assert buffer.episode_lengths[0] == first.n_steps
    assert sorted(path.relative_to(videos).as_posix() for path in videos.rglob("*.mp4")) == [
        f"{episode}/{camera}.mp4" for episode in range(2) for camera in range(2)
    ]


def test_processed_videos_are_of_observations(rig: SimulatedRig, tmp_path: Path) -> None:
    with env_of(rig, tmp_path / "demo", record_raw_video=False, obs_float32=True) as env:
        obs = env.get_obs()
        assert obs["camera_0"].dtype == np.float32
        assert 0.2 < obs["camera_0"].mean() < 1
        _move(env, 10)
    buffer = real_data_to_replay_buffer(tmp_path / "demo")
    assert buffer["camera_1"].shape[1:] == (120, 160, 3)


def test_a_camera_that_stops_ends_the_episode_with_its_last_frame(rig: SimulatedRig, tmp_path: Path) -> None:
    with env_of(rig, tmp_path / "demo") as env:
        clock = CycleClock(DT)
        env.start_episode(clock.time_of(0))
        pose = env.get_robot_state()["TargetTCPPose"]
        stopped = None
        while env.fault is None:
            if clock.index >= 10 and stopped is None:
                rig.cameras[0].deliver(False)
                stopped, last_step = time.monotonic(), clock.index
            with suppress(CameraError):  # which may be noticed here first
                env.get_obs()
            env.exec_actions([pose], [clock.time_of(clock.index + 2)])
            clock.next()
            assert clock.index < 50
        assert time.monotonic() - stopped < 3
        with pytest.raises(CameraError, match="sim_0 has delivered nothing for"):
            env.get_obs()
        assert last_step - 2 <= env.end_episode().n_steps <= last_step + 3
    real_data_to_replay_buffer(tmp_path / "demo")  # has a frame for every step


def test_a_dead_camera_process_is_a_fault_and_the_episode_is_kept(rig: SimulatedRig, tmp_path: Path) -> None:
    with env_of(rig, tmp_path / "demo") as env:
        env.start_episode()
        _move(env, 8, record=False)
        os.kill(env.cameras.cameras["sim_1"].pid, signal.SIGKILL)
        with pytest.raises(CameraError, match="sim_1 has stopped"):
            _move(env, 30, record=False)
        assert env.end_episode().n_steps >= 5
    assert open_recordings(tmp_path / "demo").n_episodes == 1


def test_a_robot_that_stops_itself_is_a_fault(rig: SimulatedRig, tmp_path: Path) -> None:
    with env_of(rig, tmp_path / "demo") as env:
        env.start_episode()
        rig.robot.protective_stop()
        with pytest.raises(RobotFaultError, match="protective stop"):
            _move(env, 30, record=False)
        with pytest.raises(RobotFaultError):
            env.get_obs()
        assert time_to_rest(rig) < 1.5
    assert open_recordings(tmp_path / "demo").n_episodes == 1


def test_devices_that_do_not_start_leave_nothing_running(rig: SimulatedRig, tmp_path: Path) -> None:
    rig.cameras[1].deliver(False)
    env = RealEnv(tmp_path / "demo", "127.0.0.1", camera_sources=rig.cameras, enable_multi_cam_vis=False)
    with pytest.raises((RobotFaultError, CameraError)):
        env.start()
    assert not env.robot.is_alive()
    assert not any(camera.is_alive() for camera in env.cameras.cameras.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frequency": 60}, "frequency is 60 Hz, but cameras deliver only 30"),
        ({"n_obs_steps": 12}, "observations need 37 frames"),
        ({"output_dir": Path("/no/where/at/all")}, "there is no folder /no/where/at"),
        ({"camera_sources": []}, "no camera was found"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(rig: SimulatedRig, tmp_path: Path, change: dict, message: str) -> None:
    arguments = {"output_dir": tmp_path / "demo", "robot_ip": "", "camera_sources": rig.cameras, **change}
    with pytest.raises((ValueError, FileNotFoundError, CameraError), match=message):
        RealEnv(**arguments)
