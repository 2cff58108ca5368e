"""The production code against librealsense itself, which plays recordings made without a camera."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from diffusion_policy.real_world.cameras.frame_source import CameraError, Intrinsics
from diffusion_policy.real_world.cameras.realsense_source import connected_serials
from diffusion_policy.real_world.multi_realsense import MultiRealsense
from diffusion_policy.real_world.sim.pusht_world import GOAL
from diffusion_policy.real_world.sim.realsense_file import write_realsense_file
from diffusion_policy.real_world.sim.scene_renderer import LEFT, SceneRenderer
from diffusion_policy.real_world.single_realsense import SingleRealsense
from diffusion_policy.real_world.video_recorder import read_video

RESOLUTION = (320, 180)
N_FRAMES = 30


def frames(first_depth: int):
    renderer = SceneRenderer(LEFT, RESOLUTION, GOAL)
    for i in range(N_FRAMES):
        yield {
            "color": renderer.render([0.3 + 0.01 * i, 0, 0.02, 0, 0, 0], [0.5, 0.1, 0.3]),
            "depth": np.full((180, 320), first_depth + i, np.uint16),
            "infrared": np.full((180, 320), i, np.uint8),
            "camera_capture_timestamp": 1.7e9 + i / 30,
        }


@pytest.fixture(scope="module")
def playback_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("realsense")
    files = [folder / "a.db3", folder / "b.db3"]
    for file, serial, depth in zip(files, ("222", "111"), (1000, 3000), strict=True):
        write_realsense_file(file, serial, frames(depth), Intrinsics(250, 251, 160, 90))
    return files


def test_cameras_are_found_by_serial_number(playback_files: list[Path]) -> None:
    assert connected_serials(playback_files) == ["111", "222"]
    started = time.monotonic()
    with (
        pytest.raises(CameraError, match=r"333 failed: RealSense camera 333 is not connected. Connected are: 111, 222"),
        SingleRealsense(None, "333", RESOLUTION, playback_files=playback_files),
    ):
        pass
    assert time.monotonic() - started < 5  # librealsense itself would wait for 15 s
    with pytest.raises(CameraError, match="No RealSense camera is connected"):
        MultiRealsense()
    with pytest.raises(FileNotFoundError, match=r"absent\.db3"):
        connected_serials(["absent.db3"])


def test_streams_are_delivered_until_they_end(playback_files: list[Path], tmp_path: Path) -> None:
    cameras = MultiRealsense(
        resolution=RESOLUTION,
        enable_depth=True,
        enable_infrared=True,
        put_downsample=False,
        playback_files=playback_files,
    )
    with cameras:
        cameras.start_recording(tmp_path, time.time())
        assert np.allclose(cameras.get_depth_scale(), 0.001)
        assert np.allclose(cameras.get_intrinsics()[0], [[250, 0, 160], [0, 251, 90], [0, 0, 1]])
        while cameras.fault is None:  # a recording ends; a camera that does so is broken
            time.sleep(0.05)
        rings = [camera.ring_buffer for camera in cameras.cameras.values()]
        latest = [ring.get_last_k(5) for ring in rings]
        reports = cameras.stop_recording()
        assert "111 has delivered nothing" in str(cameras.fault) or "222 has delivered nothing" in str(cameras.fault)
    for item, serial, first_depth in zip(latest, cameras.cameras, (3000, 1000), strict=True):
        shown = item["infrared"][:, 0, 0].astype(int)  # which frame of the recording
        assert shown[-1] >= N_FRAMES - 3, serial
        assert (item["depth"][:, 90, 160] == first_depth + shown).all()
        assert np.allclose(item["camera_capture_timestamp"], 1.7e9 + shown / 30, atol=1e-3)
        expected = [frame["color"] for frame in frames(0)]
        assert all((item["color"][i] == expected[shown[i]]).all() for i in range(5))  # recordings are lossless
        assert 0.5 < np.median(np.diff(item["timestamp"])) / np.median(np.diff(shown)) * 30 < 1.6
    for i, report in enumerate(reports):
        assert report.n_frames > N_FRAMES / 2
        assert (
            len(list(read_video(tmp_path / f"{i}.mp4", 1 / 30, max_pad_frames=0)))
            == report.n_frames + report.n_repeated
        )


def test_refusals_of_the_camera_reach_who_asked(playback_files: list[Path]) -> None:
    with SingleRealsense(None, "111", RESOLUTION, playback_files=playback_files) as camera:
        with pytest.raises(CameraError, match="111: exposure cannot be set now"):  # recordings are read-only
            camera.set_color_option("exposure", 100)
        with pytest.raises(CameraError, match="no option gain"):
            camera.set_color_option("gain", 1)
    for wrong, message in [
        ({"resolution": (640, 480)}, "does not start with color of 640 x 480 px at 30 Hz"),
        ({"resolution": RESOLUTION, "advanced_mode_config": {"a": 1}}, "refuses advanced_mode_config"),
    ]:
        with pytest.raises(CameraError, match=message):
            SingleRealsense(None, "111", playback_files=playback_files, **wrong).start()
    with pytest.raises(ValueError, match="no stream enabled"):
        SingleRealsense(None, "111", enable_color=False)


def test_missing_library_names_the_extra() -> None:
    script = """
import sys
sys.modules["pyrealsense2"] = None
from diffusion_policy.real_world.multi_realsense import MultiRealsense
MultiRealsense()
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert "pip install 'diffusion_policy[real]'" in result.stderr.splitlines()[-1]


def test_recordings_need_librealsenses_suffix() -> None:
    with pytest.raises(ValueError, match=r"\.db3, got a\.bag"):
        write_realsense_file("a.bag", "1", frames(0), Intrinsics(1, 1, 0, 0))
