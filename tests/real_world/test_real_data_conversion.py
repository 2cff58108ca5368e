import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from recordings import DT, FPS, frame, mean_difference, write_recordings, write_video

from diffusion_policy.codecs.imagecodecs_numcodecs import Jpeg2k
from diffusion_policy.common.cv2_util import get_image_transform
from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.common.zarr_array import compressor_of
from diffusion_policy.real_world.real_data_conversion import real_data_to_replay_buffer
from diffusion_policy.real_world.recorded_dataset import camera_videos, fingerprint

THREADS = {"n_decoding_threads": 2, "n_encoding_threads": 2, "max_inflight_tasks": 4}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_recordings(tmp_path / "demo")


def test_each_step_gets_the_frame_of_its_time(folder: Path) -> None:
    buffer = real_data_to_replay_buffer(folder, out_resolutions=(24, 16), **THREADS)
    recorded = ReplayBuffer.create_from_path(folder / "replay_buffer.zarr")
    assert set(buffer.keys()) == {*recorded.keys(), "camera_0", "camera_2"}
    np.testing.assert_array_equal(buffer.episode_ends, recorded.episode_ends)
    for key in recorded.keys():  # noqa: SIM118
        np.testing.assert_array_equal(buffer[key][:], recorded[key][:])
    scale = get_image_transform((48, 32), (24, 16))
    for camera in (0, 2):
        images = buffer[f"camera_{camera}"]
        assert (images.shape, images.dtype, images.chunks) == ((36, 16, 24, 3), np.uint8, (1, 16, 24, 3))
        for episode in range(3):
            for step, image in enumerate(buffer.get_episode(episode)[f"camera_{camera}"]):
                expected = scale(frame(episode, camera, round(step * DT * FPS)))
                assert mean_difference(image, expected) < 2.5


def test_resolutions_keys_and_compressors_are_chosen(folder: Path) -> None:
    buffer = real_data_to_replay_buffer(
        folder,
        out_resolutions={"camera_2": (16, 16)},
        lowdim_keys=["action"],
        image_compressor=Jpeg2k(level=30),
        verify_read=False,
        **THREADS,
    )
    assert set(buffer.keys()) == {"action", "camera_0", "camera_2"}
    assert (buffer["camera_0"].shape[1:], buffer["camera_2"].shape[1:]) == ((32, 48, 3), (16, 16, 3))
    assert compressor_of(buffer["camera_2"]).level == 30
    only = real_data_to_replay_buffer(folder, image_keys=["camera_2"], **THREADS)
    assert {key for key in only.keys() if "camera" in key} == {"camera_2"}  # noqa: SIM118


def test_stored_layout_is_zarr_2_that_others_read(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "converted.zarr"
    real_data_to_replay_buffer(folder, str(path), (24, 16), **THREADS)
    root = zarr.open_group(path, mode="r")
    assert root.metadata.zarr_format == 2
    assert root["meta/episode_ends"][:].tolist() == [12, 21, 36]
    assert root["data/camera_0"].metadata.zarr_format == 2


def test_videos_that_end_early_are_repeated_or_refused(folder: Path) -> None:
    write_video(folder / "videos/1/0.mp4", 1, 0, 20)  # of 27: two steps less
    buffer = real_data_to_replay_buffer(folder, **THREADS)
    for image in buffer.get_episode(1)["camera_0"][-2:]:
        assert mean_difference(image, frame(1, 0, 19)) < 2.5
    longer = write_recordings(folder.parent / "longer", lengths=(40,))
    write_video(longer / "videos/0/2.mp4", 0, 2, 20)
    with pytest.raises(ValueError, match=r"0/2\.mp4 ends after 17 of the 40 steps"):
        real_data_to_replay_buffer(longer, **THREADS)


def test_what_is_missing_or_damaged_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected a folder with replay_buffer\.zarr and videos"):
        real_data_to_replay_buffer(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"3 videos are missing, first .*videos/0/1\.mp4"):
        real_data_to_replay_buffer(folder, image_keys=["camera_1"], **THREADS)
    with pytest.raises(ValueError, match="'wrist' is no camera of a recording"):
        real_data_to_replay_buffer(folder, image_keys=["wrist"], **THREADS)
    (folder / "videos/2/0.mp4").write_bytes(b"no video" * 100)
    with pytest.raises(ValueError, match=r"videos/2/0\.mp4 cannot be decoded"):
        real_data_to_replay_buffer(folder, **THREADS)


def test_images_of_other_videos_in_the_store_are_replaced(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "converted.zarr"
    real_data_to_replay_buffer(folder, store, **THREADS)
    write_video(folder / "videos/0/0.mp4", 2, 0, 36)
    buffer = real_data_to_replay_buffer(folder, store, **THREADS)
    assert mean_difference(buffer["camera_0"][0], frame(2, 0, 0)) < 2.5


@pytest.mark.slow
def test_a_conversion_is_gone_on_with_after_a_kill(tmp_path: Path) -> None:
    folder = write_recordings(tmp_path / "demo", lengths=(300,), cameras=(0,))
    store = tmp_path / "converted.zarr"
    code = (
        "from diffusion_policy.real_world.real_data_conversion import real_data_to_replay_buffer as convert; "
        f"convert({str(folder)!r}, {str(store)!r}, n_decoding_threads=1, n_encoding_threads=1)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, env={**os.environ})
    chunks = store / "data/camera_0"
    deadline = time.monotonic() + 100
    while not (chunks.is_dir() and len(list(chunks.iterdir())) > 20):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    first = chunks / "0.0.0.0"
    written = first.stat().st_mtime_ns
    assert not (chunks / "299.0.0.0").exists()
    with pytest.raises(ValueError, match="episode_ends"):
        ReplayBuffer.create_from_path(store)
    buffer = real_data_to_replay_buffer(folder, store, **THREADS)
    assert first.stat().st_mtime_ns == written
    whole = real_data_to_replay_buffer(folder, **THREADS)
    np.testing.assert_array_equal(buffer["camera_0"][:], whole["camera_0"][:])


def test_fingerprint_is_of_the_content(folder: Path, tmp_path: Path) -> None:
    videos = camera_videos(folder, 3)
    before = fingerprint(videos)
    folder.rename(tmp_path / "moved")
    moved = camera_videos(tmp_path / "moved", 3)
    assert fingerprint(moved) == before
    assert fingerprint({"camera_0": moved["camera_0"]}) != before
    content = bytearray(moved["camera_2"][1].read_bytes())
    content[-1] ^= 1
    moved["camera_2"][1].write_bytes(content)
    assert fingerprint(moved) != before
