"""Simulated cameras in their processes."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from diffusion_policy.common.cv2_util import get_image_transform
from diffusion_policy.real_world.cameras.camera_process import SingleCamera
from diffusion_policy.real_world.cameras.frame_source import CameraError, Frame
from diffusion_policy.real_world.cameras.multi_camera import MultiCamera
from diffusion_policy.real_world.cameras.per_camera import repeat_to_list
from diffusion_policy.real_world.sim.scene_renderer import LEFT, RIGHT
from diffusion_policy.real_world.sim.shared_world import SharedWorld
from diffusion_policy.real_world.sim.simulated_camera import SimulatedCamera
from diffusion_policy.real_world.video_recorder import read_video

RESOLUTION = (320, 180)
to_small_rgb = get_image_transform(RESOLUTION, (64, 48), bgr_to_rgb=True)


def small(frame: Frame) -> Frame:
    return {**frame, "color": to_small_rgb(frame["color"])}


@pytest.fixture
def world() -> SharedWorld:
    world = SharedWorld()
    world.on_tick(0.0, [0.4, 0.1, 0.02, 0, 0, 0])
    return world


@pytest.fixture
def sources(world: SharedWorld) -> list[SimulatedCamera]:
    return [SimulatedCamera(name, world, view, RESOLUTION) for name, view in (("left", LEFT), ("right", RIGHT))]


@pytest.fixture
def cameras(sources: list[SimulatedCamera]) -> Iterator[MultiCamera]:
    with MultiCamera.of_sources(sources, put_downsample=False, transform=small) as cameras:
        yield cameras


def test_frames_show_the_world_when_they_were_captured(world: SharedWorld, cameras: MultiCamera) -> None:
    assert cameras.n_cameras == 2
    assert cameras.is_ready
    assert cameras.fault is None
    time.sleep(0.5)
    frames = cameras.get(k=8)
    for frame in frames.values():
        assert frame["color"].shape == (8, 48, 64, 3)
        assert 0.8 < np.median(np.diff(frame["timestamp"])) * 30 < 1.3
        assert (frame["timestamp"] == frame["camera_receive_timestamp"]).all()
        latency = frame["camera_receive_timestamp"] - frame["camera_capture_timestamp"]
        assert (latency >= 0).all()
        assert np.median(latency) < 0.1
    assert not (frames[0]["color"] == frames[1]["color"]).all()

    before = cameras.get()[0]
    assert abs(before["timestamp"] - time.time()) < 0.3
    world.on_tick(1.0, [0.5, -0.1, 0.02, 0, 0, 0])
    moved = time.time()
    while (after := cameras.get()[0])["camera_capture_timestamp"] < moved + 0.01:
        time.sleep(0.01)
    assert not (before["color"] == after["color"]).all()
    vis = cameras.get_vis()
    assert vis["color"].shape == (2, 180, 320, 3)
    assert cameras.get_vis(out=vis) is vis


def test_grid_of_steps(sources: list[SimulatedCamera]) -> None:
    start_time = time.time()
    with SingleCamera(None, sources[0], put_fps=10, get_max_k=20) as camera:
        camera.restart_put(start_time - 100)
        time.sleep(1.0)
        frames = camera.get(k=6)
        assert (np.diff(frames["step_idx"]) == 1).all()
        lateness = frames["timestamp"] - (start_time - 100 + frames["step_idx"] * 0.1)
        assert (lateness >= -1e-4).all()
        assert np.median(lateness) < 0.1
        assert frames["step_idx"][-1] >= 1005


def test_recording_is_aligned_and_whole(world: SharedWorld, cameras: MultiCamera, tmp_path: Path) -> None:
    start_time = time.time() + 0.2
    cameras.start_recording(tmp_path / "0", start_time)
    with pytest.raises(RuntimeError, match="recording already"):
        cameras.start_recording(tmp_path / "0", start_time)
    time.sleep(0.7)
    world.on_tick(1.0, [0.6, -0.3, 0.02, 0, 0, 0])
    moved = time.time()
    time.sleep(0.5)
    stopped = time.time()
    reports = cameras.stop_recording()
    assert cameras.stop_recording() == [None, None]
    for index, report in enumerate(reports):
        path = tmp_path / "0" / f"{index}.mp4"
        assert report.path == path
        video = np.array(list(read_video(path, dt=1 / 30, max_pad_frames=0)), float)
        assert len(video) == report.n_frames + report.n_repeated
        assert video.shape[1:] == (180, 320, 3)
        assert abs(len(video) / 30 - (stopped - start_time)) < 0.3
        jumps = np.abs(np.diff(video, axis=0)).mean((1, 2, 3))
        seen_move = start_time + (jumps.argmax() + 1) / 30
        assert abs(seen_move - moved) < 0.15  # a frame, and what a busy machine adds


def test_options_are_checked_in_the_camera(cameras: MultiCamera, sources: list[SimulatedCamera]) -> None:
    cameras.set_exposure(120, gain=0)
    cameras.set_white_balance([4000, 5900])
    cameras.set_exposure()
    with pytest.raises(ValueError, match=r"Camera right: exposure is 20000\.0, expected 1 to 10000"):
        cameras.set_exposure([100, 20000])
    with pytest.raises(CameraError, match="no option zoom"):
        cameras.set_color_option("zoom", 1)
    with pytest.raises(ValueError, match="3 values for 2 cameras"):
        cameras.set_white_balance([1, 2, 3])
    matrices = cameras.get_intrinsics()
    assert matrices.shape == (2, 3, 3)
    assert matrices[0, 0, 2] == 160
    early = SingleCamera(None, SimulatedCamera("early", sources[0]._world, LEFT, RESOLUTION))
    with pytest.raises(CameraError, match="start it first"):
        early.get_intrinsics()
    early.set_exposure(0.1)  # out of range, and not yet open
    with pytest.raises(CameraError, match=r"early failed: .*exposure"):
        early.start()


def test_camera_that_stops_delivering_is_a_fault_until_it_goes_on(
    cameras: MultiCamera, sources: list[SimulatedCamera]
) -> None:
    sources[1].deliver(False)
    stopped = time.monotonic()
    while cameras.fault is None:
        assert time.monotonic() < stopped + 3
        time.sleep(0.01)
    assert 0.5 < time.monotonic() - stopped < 1.5
    assert "right has delivered nothing" in str(cameras.fault)
    with pytest.raises(CameraError, match="right"):
        cameras.get()
    cameras.cameras["left"].get()
    cameras.get_vis()
    cameras.set_exposure(100)  # it still answers
    sources[1].deliver(True)
    time.sleep(0.5)
    assert cameras.fault is None
    cameras.get()


def test_killed_camera_is_a_fault_and_its_video_stays(cameras: MultiCamera, tmp_path: Path) -> None:
    cameras.start_recording(tmp_path / "0", time.time())
    time.sleep(0.6)
    victim = cameras.cameras["left"]
    os.kill(victim.pid, signal.SIGKILL)
    killed = time.monotonic()
    while cameras.fault is None:
        time.sleep(0.005)
    assert time.monotonic() - killed < 1
    assert "left has stopped: its process ended with code -9" in str(cameras.fault)
    with pytest.raises(CameraError, match="left"):
        victim.set_exposure(100)
    with pytest.raises(CameraError, match="left"):
        cameras.stop_recording()
    for name in ("0.mp4", "1.mp4"):
        assert len(list(read_video(tmp_path / "0" / name, dt=1 / 30, max_pad_frames=0))) >= 5


def test_broken_camera_says_why_it_does_not_start(world: SharedWorld) -> None:
    def broken(frame: Frame) -> Frame:
        if frame["camera_receive_timestamp"] > 0:  # not the example
            raise ZeroDivisionError("a bug in a transform")
        return frame

    sources = [SimulatedCamera(name, world, LEFT, RESOLUTION) for name in ("good", "bad")]
    cameras = MultiCamera.of_sources(sources, transform=[small, broken])
    with pytest.raises(CameraError, match="bad failed: a bug in a transform"):
        cameras.start()
    assert not any(camera.is_alive() for camera in cameras.cameras.values())


def test_bad_recording_path_is_told_to_who_asked(cameras: MultiCamera, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        cameras.cameras["left"].start_recording(tmp_path / "absent" / "0.mp4")
    cameras.get()


def test_no_process_outlives_a_killed_parent() -> None:
    script = """
import os, signal, sys
from diffusion_policy.real_world.cameras.multi_camera import MultiCamera
from diffusion_policy.real_world.sim.scene_renderer import LEFT, RIGHT
from diffusion_policy.real_world.sim.shared_world import SharedWorld
from diffusion_policy.real_world.sim.simulated_camera import SimulatedCamera
world = SharedWorld()
world.on_tick(0.0, [0.4, 0.1, 0.02, 0, 0, 0])
cameras = MultiCamera.of_sources([SimulatedCamera(str(i), world, LEFT, (64, 48)) for i in range(2)])
cameras.start()
print(*[camera.pid for camera in cameras.cameras.values()], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    before = set(os.listdir("/dev/shm"))
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    pids = [int(pid) for pid in result.stdout.split()]
    assert len(pids) == 2
    end = time.monotonic() + 3
    while any(os.path.exists(f"/proc/{pid}") and _state(pid) != "Z" for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.02)
    assert not any(name.startswith("psm_") for name in set(os.listdir("/dev/shm")) - before)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_one_value_is_repeated() -> None:
    assert repeat_to_list(None, 2, int) == [None, None]
    assert repeat_to_list(3, 2, int) == [3, 3]
    assert repeat_to_list([3, 4], 2, int) == [3, 4]
    assert multiprocessing.active_children() == []
