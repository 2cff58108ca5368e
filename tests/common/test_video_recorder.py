import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from diffusion_policy.common.pyav import av
from diffusion_policy.common.video_recorder import VideoRecorder


def image(value: int, height: int = 96, width: int = 96) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_h264_that_browsers_play(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    recorder = VideoRecorder.create_h264(fps=12.5, crf=22)
    assert not recorder.is_ready()
    recorder.start(path)
    assert recorder.is_ready()
    for value in range(0, 250, 10):
        recorder.write_frame(image(value))
    recorder.stop()
    assert not recorder.is_ready()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context
        assert (codec.name, codec.profile, codec.pix_fmt) == ("h264", "High", "yuv420p")
        assert (codec.width, codec.height, stream.average_rate) == (96, 96, 12.5)
    frames = decoded(path)
    assert len(frames) == 25
    assert np.allclose([frame.mean() for frame in frames], range(0, 250, 10), atol=3)
    content = path.read_bytes()
    assert content.find(b"moov") < content.find(b"mdat")
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


def test_crf_trades_size_for_quality(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (10, 64, 64, 3), dtype=np.uint8)
    sizes = []
    for crf in (10, 40):
        recorder = VideoRecorder.create_h264(fps=10, crf=crf)
        recorder.start(tmp_path / "a.mp4")
        for frame in noise:
            recorder.write_frame(frame)
        recorder.stop()
        sizes.append((tmp_path / "a.mp4").stat().st_size)
    assert sizes[0] > 3 * sizes[1]


def test_bgr_images(tmp_path: Path) -> None:
    recorder = VideoRecorder.create_h264(fps=10, input_pix_fmt="bgr24")
    recorder.start(tmp_path / "a.mp4")
    recorder.write_frame(np.broadcast_to(np.array([255, 0, 0], np.uint8), (64, 64, 3)))
    recorder.stop()
    assert np.allclose(decoded(tmp_path / "a.mp4")[0].mean((0, 1)), [0, 0, 255], atol=6)


def test_frame_times_are_kept(tmp_path: Path) -> None:
    """Early and surplus frames are dropped, gaps filled with the frame that follows."""
    recorder = VideoRecorder.create_h264(fps=10)
    recorder.start(tmp_path / "a.mp4", start_time=100.0)
    for value, time in [(0, 99.9), (50, 100.0), (100, 100.02), (150, 100.3), (200, 100.4)]:
        recorder.write_frame(image(value), frame_time=time)
    with pytest.raises(ValueError, match="frame_time"):
        recorder.write_frame(image(0))
    recorder.stop()
    brightness = [frame.mean() for frame in decoded(tmp_path / "a.mp4")]
    assert np.allclose(brightness, [50, 150, 150, 150, 200], atol=3)


def test_file_has_its_name_only_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    recorder = VideoRecorder.create_h264(fps=10)
    recorder.start(path)
    for _ in range(100):
        recorder.write_frame(image(0))
    assert not path.exists()
    recorder.abort()
    assert list(tmp_path.iterdir()) == []
    recorder.start(path)
    recorder.stop()
    assert list(tmp_path.iterdir()) == []


def test_killed_process_leaves_no_finished_file(tmp_path: Path) -> None:
    script = f"""
import os, numpy
from diffusion_policy.common.video_recorder import VideoRecorder
recorder = VideoRecorder.create_h264(fps=10)
recorder.start({str(tmp_path / "a.mp4")!r})
for _ in range(100):
    recorder.write_frame(numpy.zeros((64, 64, 3), numpy.uint8))
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 9
    assert not (tmp_path / "a.mp4").exists()


def test_start_completes_the_video_before(tmp_path: Path) -> None:
    recorder = VideoRecorder.create_h264(fps=10)
    for name in ("a.mp4", "b.mp4"):
        recorder.start(tmp_path / name)
        recorder.write_frame(image(0))
    recorder.stop()
    assert [len(decoded(tmp_path / name)) for name in ("a.mp4", "b.mp4")] == [1, 1]


def test_bad_input_is_refused_and_what_was_recorded_stays(tmp_path: Path) -> None:
    recorder = VideoRecorder.create_h264(fps=10)
    with pytest.raises(RuntimeError, match="start"):
        recorder.write_frame(image(0))
    with pytest.raises(FileNotFoundError, match="absent"):
        recorder.start(tmp_path / "absent" / "a.mp4")
    recorder.start(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match="97 x 96 px"):
        recorder.write_frame(image(0, height=97))
    recorder.write_frame(image(0))
    with pytest.raises(ValueError, match="began with"):
        recorder.write_frame(image(0, height=48))
    recorder.stop()
    assert len(decoded(tmp_path / "a.mp4")) == 1
    with pytest.raises(ValueError, match="fps is 0"):
        VideoRecorder.create_h264(fps=0)
