import time
from pathlib import Path

import numpy as np
import pytest

from diffusion_policy.real_world.cameras.camera_process import SingleCamera
from diffusion_policy.real_world.cameras.frame_source import CameraError, FrameTimeout, Intrinsics
from diffusion_policy.real_world.cameras.opencv_source import OpenCVSource
from diffusion_policy.real_world.video_recorder import VideoRecorder


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("video") / "a.mp4"
    recorder = VideoRecorder.create_h264(fps=30, input_pix_fmt="bgr24", crf=10)
    recorder.start(path)
    for i in range(20):
        recorder.write_frame(np.full((48, 64, 3), (10 * i, 100, 50), np.uint8))
    recorder.stop()
    return str(path)


def test_video_is_played_at_its_rate(video: str) -> None:
    source = OpenCVSource(video, (64, 48))
    source.open()
    try:
        frames = [source.read(timeout=1) for _ in range(20)]
        with pytest.raises(FrameTimeout):
            source.read(timeout=0.01)
    finally:
        source.close()
    assert np.allclose(
        [frame["color"].mean((0, 1)) for frame in frames], [(10 * i, 100, 50) for i in range(20)], atol=6
    )
    times = [frame["camera_receive_timestamp"] for frame in frames]
    assert 0.5 < times[-1] - times[0] < 1.5


def test_in_its_process(video: str) -> None:
    with SingleCamera(None, OpenCVSource(video, (64, 48), intrinsics=Intrinsics(50, 50, 32, 24))) as camera:
        assert camera.get()["color"].shape == (48, 64, 3)
        assert np.allclose(camera.get_intrinsics(), [[50, 0, 32], [0, 50, 24], [0, 0, 1]])
        with pytest.raises(CameraError, match="does not let exposure be set"):  # a file has none
            camera.set_color_option("exposure", 100)


def test_what_cannot_be_delivered_is_refused(video: str, tmp_path: Path) -> None:
    with pytest.raises(CameraError, match=r"delivers 64 x 48 px, not 1280 x 720"):
        OpenCVSource(video).open()
    started = time.monotonic()
    with pytest.raises(CameraError, match="cannot be opened"):
        OpenCVSource(str(tmp_path / "absent.mp4")).open()
    with pytest.raises(CameraError, match="Camera 77 cannot be opened"):
        OpenCVSource(77).open()
    assert time.monotonic() - started < 5
    with pytest.raises(ValueError, match="four letters"):
        OpenCVSource(0, pixel_format="MJPEG")
    unknown = OpenCVSource(video, (64, 48))
    with pytest.raises(CameraError, match="calibrate"):
        unknown.intrinsics()
