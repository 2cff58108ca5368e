import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from diffusion_policy.common.pyav import av
from diffusion_policy.real_world.video_recorder import VideoRecorder, read_video


def image(value: int) -> np.ndarray:
    return np.full((64, 96, 3), value, np.uint8)


def record(path: Path, values: list[int], fps: float = 10) -> None:
    recorder = VideoRecorder.create_h264(fps=fps, crf=10)
    recorder.start(path)
    for value in values:
        recorder.write_frame(image(value))
    recorder.stop()


def boxes(path: Path) -> list[str]:
    """Types of the boxes that the file consists of."""
    content, position, types = path.read_bytes(), 0, []
    while position < len(content):
        size, kind = struct.unpack(">I4s", content[position : position + 8])
        types.append(kind.decode())
        position += size
    return types


def brightness(path: Path, dt: float = 0.1, **options: object) -> np.ndarray:
    return np.array([frame.mean() for frame in read_video(path, dt=dt, max_pad_frames=0, **options)])


def test_finished_file_is_a_plain_mp4(tmp_path: Path) -> None:
    record(tmp_path / "a.mp4", list(range(0, 200, 10)), fps=12.5)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context
        assert (codec.name, codec.profile, codec.pix_fmt) == ("h264", "High", "yuv420p")
        assert (stream.average_rate, stream.frames) == (12.5, 20)
    assert "moof" not in boxes(tmp_path / "a.mp4")


@pytest.mark.parametrize("pix_fmt", ["bgr24", "rgb24"])
def test_colors(tmp_path: Path, pix_fmt: str) -> None:
    recorder = VideoRecorder.create_h264(fps=10, input_pix_fmt=pix_fmt)
    recorder.start(tmp_path / "a.mp4")
    color = np.array([200, 100, 30], np.uint8)
    recorder.write_frame(np.broadcast_to(color, (64, 64, 3)).copy())
    recorder.stop()
    seen = next(read_video(tmp_path / "a.mp4", dt=0.1)).mean((0, 1))
    assert np.allclose(seen, color if pix_fmt == "rgb24" else color[::-1], atol=5)


def test_killed_recording_ends_with_its_last_frame(tmp_path: Path) -> None:
    script = f"""
import os, signal, numpy
from diffusion_policy.real_world.video_recorder import VideoRecorder
recorder = VideoRecorder.create_h264(fps=10)
recorder.start({str(tmp_path / "a.mp4")!r})
for value in range(0, 250, 5):
    recorder.write_frame(numpy.full((64, 96, 3), value, numpy.uint8))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == -9
    seen = brightness(tmp_path / "a.mp4")
    assert "moof" in boxes(tmp_path / "a.mp4")
    assert len(seen) >= 49  # the encoder may hold one back
    assert np.allclose(seen, np.arange(0, 250, 5)[: len(seen)], atol=4)


def test_jitter_neither_repeats_nor_drops(tmp_path: Path) -> None:
    """The phase of the camera is that of the grid: each frame comes a little before or after its place."""
    jitter = np.random.default_rng(0).uniform(-0.25, 0.25, 40)
    recorder = VideoRecorder.create_h264(fps=30)
    recorder.start(tmp_path / "a.mp4", start_time=100.0)
    places = [recorder.write_frame(image(i), frame_time=100.0 + (i + jitter[i]) / 30) for i in range(1, 40)]
    recorder.stop()
    assert places[1:] == [1] * 38


def test_gaps_are_filled_and_early_frames_left_out(tmp_path: Path) -> None:
    recorder = VideoRecorder.create_h264(fps=10)
    recorder.start(tmp_path / "a.mp4", start_time=100.0)
    times = [(0, 99.9), (50, 100.05), (100, 100.06), (150, 100.35), (200, 100.45)]
    assert [recorder.write_frame(image(value), frame_time=time) for value, time in times] == [0, 1, 0, 3, 1]
    recorder.stop()
    assert np.allclose(brightness(tmp_path / "a.mp4"), [50, 150, 150, 150, 200], atol=4)


def test_reading_at_another_rate(tmp_path: Path) -> None:
    record(tmp_path / "a.mp4", list(range(0, 240, 8)), fps=30)
    assert np.allclose(brightness(tmp_path / "a.mp4", dt=0.1), np.arange(0, 240, 24), atol=4)
    assert np.allclose(brightness(tmp_path / "a.mp4", dt=1 / 60)[:7], [0, 8, 8, 16, 16, 24, 24], atol=4)
    shifted = brightness(tmp_path / "a.mp4", dt=0.1, video_start_time=50.0, start_time=50.2)
    assert np.allclose(shifted[:3], [48, 72, 96], atol=4)


def test_reading_pads_and_transforms(tmp_path: Path) -> None:
    record(tmp_path / "a.mp4", [10, 60])
    frames = list(read_video(tmp_path / "a.mp4", dt=0.1, img_transform=lambda img: img[:2, :3] + 1, max_pad_frames=3))
    assert np.allclose([frame.mean() for frame in frames], [11, 61, 61, 61, 61], atol=4)
    assert frames[0].shape == (2, 3, 3)


def test_the_next_recording_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    record(tmp_path / "a.mp4", [10] * 30)
    record(tmp_path / "a.mp4", [90] * 3)
    assert np.allclose(brightness(tmp_path / "a.mp4"), [90] * 3, atol=4)
