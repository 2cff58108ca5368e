import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from recordings import DT, FPS, frame, mean_difference, numbers, write_recordings, write_video

from diffusion_policy.codecs.imagecodecs_numcodecs import Jpeg2k, register_codecs
from diffusion_policy.common.cv2_util import get_image_transform
from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.dataset.real_pusht_image_dataset import RealPushTImageDataset, zarr_resize_index_last_dim

SHAPE_META = {
    "obs": {
        "camera_0": {"shape": [3, 16, 24], "type": "rgb"},
        "camera_2": {"shape": [3, 16, 24], "type": "rgb"},
        "robot_eef_pose": {"shape": [2], "type": "low_dim"},
    },
    "action": {"shape": [2]},
}
WINDOWS = {"horizon": 8, "pad_before": 1, "pad_after": 3, "n_obs_steps": 2}
OPEN = (
    "import json; from diffusion_policy.dataset.real_pusht_image_dataset import RealPushTImageDataset as Dataset; "
    "Dataset(json.loads({meta!r}), {path!r}, use_cache=True)"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_recordings(tmp_path / "demo")


def _dataset(folder: Path, meta: Any = SHAPE_META, **kwargs: Any) -> RealPushTImageDataset:
    return RealPushTImageDataset(meta, str(folder), **{**WINDOWS, **kwargs})


def _shows(image: torch.Tensor, episode: int, camera: int, step: int) -> bool:
    expected = get_image_transform((48, 32), (24, 16))(frame(episode, camera, round(step * DT * FPS)))
    return mean_difference(image.movedim(0, -1).numpy() * 255, expected) < 2.5


def _cache(folder: Path, meta: Any = SHAPE_META) -> Path:
    """Where the original keeps the cache."""
    return folder / f"{hashlib.md5(json.dumps(meta, sort_keys=True).encode()).hexdigest()}.zarr.zip"


@pytest.mark.parametrize("use_cache", [False, True])
def test_samples_are_what_was_recorded(folder: Path, use_cache: bool) -> None:
    dataset = _dataset(folder, use_cache=use_cache)
    sample = dataset[6]  # begins with step 5 of the first episode
    assert {key: tuple(value.shape) for key, value in sample["obs"].items()} == {
        "camera_0": (2, 3, 16, 24),
        "camera_2": (2, 3, 16, 24),
        "robot_eef_pose": (2, 2),
    }
    for camera in (0, 2):
        for i in range(2):
            assert _shows(sample["obs"][f"camera_{camera}"][i], 0, camera, 5 + i)
    recorded = numbers(12, 0, seed=0)
    expected = np.pad(recorded["action"][5:, :2], ((0, 1), (0, 0)), mode="edge")
    np.testing.assert_allclose(sample["action"], expected, rtol=1e-6)
    np.testing.assert_allclose(sample["obs"]["robot_eef_pose"], recorded["robot_eef_pose"][5:7, :2], rtol=1e-6)
    assert _cache(folder).exists() == use_cache
    batch = dataset.get_batch([0, 6])
    assert torch.equal(batch["obs"]["camera_2"][1], sample["obs"]["camera_2"])


def test_actions_begin_later_by_the_latency(folder: Path) -> None:
    plain = _dataset(folder, pad_before=3)
    late = _dataset(folder, pad_before=3, n_latency_steps=2)
    assert len(plain) - len(late) == 2 * 3
    for i in range(9):  # of the first episode
        assert torch.equal(late[i]["obs"]["camera_0"], plain[i]["obs"]["camera_0"])
        assert late[i]["action"].shape == (8, 2)
        assert torch.equal(late[i]["action"][:6], plain[i]["action"][2:])


def test_changes_of_actions_do_not_cross_episodes(folder: Path) -> None:
    dataset = _dataset(folder, delta_action=True)
    changes = dataset.get_all_actions().numpy()
    for episode, (start, stop) in enumerate([(0, 12), (12, 21), (21, 36)]):
        actions = numbers(stop - start, 0, seed=episode)["action"][:, :2]
        np.testing.assert_allclose(changes[start], 0)
        np.testing.assert_allclose(changes[start + 1 : stop], np.diff(actions, axis=0), rtol=1e-5, atol=1e-6)
    whole = copy.deepcopy(SHAPE_META)
    whole["action"]["shape"] = [6]
    with pytest.raises(ValueError, match="delta_action is for positions, actions have 6 entries"):
        _dataset(folder, whole, delta_action=True)


def test_validation_holds_what_was_chosen_for_it_only(folder: Path) -> None:
    dataset = _dataset(folder, val_ratio=0.34, max_train_episodes=1)
    assert (dataset.train_mask.sum(), dataset.get_validation_dataset().train_mask.sum()) == (1, 1)
    assert len(_dataset(folder).get_validation_dataset()) == 0


def test_normalizer_is_fitted_on_all_data(folder: Path) -> None:
    dataset = _dataset(folder)
    normalizer = dataset.get_normalizer()
    assert set(normalizer.params_dict) == {"action", "robot_eef_pose", "camera_0", "camera_2"}
    for key in ("action", "robot_eef_pose"):
        normalized = normalizer[key].normalize(dataset.replay_buffer[key])
        torch.testing.assert_close(normalized.amax(0), torch.ones(2))
        torch.testing.assert_close(normalized.amin(0), -torch.ones(2))
    assert normalizer["camera_0"].normalize(torch.tensor([0.0, 1.0])).tolist() == [-1, 1]


def test_cache_is_read_again_and_follows_the_content(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    meta = OmegaConf.create(SHAPE_META)
    first = _dataset(folder, meta, use_cache=True)
    cache = _cache(folder)
    written = cache.stat().st_mtime_ns
    again = _dataset(folder, meta, use_cache=True)
    assert cache.stat().st_mtime_ns == written
    np.testing.assert_array_equal(again.replay_buffer["camera_0"], first.replay_buffer["camera_0"])

    write_video(folder / "videos/0/0.mp4", 2, 0, 36)
    changed = _dataset(folder, use_cache=True)
    assert "is of other data, in videos" in caplog.text
    assert _shows(changed[1]["obs"]["camera_0"][0], 2, 0, 0)

    buffer = ReplayBuffer.create_from_path(folder / "replay_buffer.zarr", mode="r+")
    buffer.drop_episode()
    assert _dataset(folder, use_cache=True).replay_buffer.n_episodes == 2
    assert "is of other data, in episode_ends" in caplog.text


def test_cache_alone_is_enough(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = _dataset(folder, use_cache=True)
    shutil.rmtree(folder / "videos")
    np.testing.assert_array_equal(
        _dataset(folder, use_cache=True).replay_buffer["camera_2"], whole.replay_buffer["camera_2"]
    )
    assert not caplog.records
    with pytest.raises(FileNotFoundError, match="6 videos are missing"):
        _dataset(folder)


def test_cache_of_the_original_is_read(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It has the same name and arrays, and does not say of which videos it is."""
    register_codecs(verbose=False)
    lengths = (12, 9, 15)
    buffer = ReplayBuffer.create_empty_numpy()
    for episode, n in enumerate(lengths):
        recorded = numbers(n, 0, seed=episode)
        images = {f"camera_{i}": np.full((n, 16, 24, 3), 100 + 30 * i, np.uint8) for i in (0, 2)}
        vectors = {key: recorded[key][:, :2] for key in ("action", "robot_eef_pose")}
        buffer.add_episode({**vectors, **images})
    chunks = {f"camera_{i}": (1, 16, 24, 3) for i in (0, 2)}
    compressors = dict.fromkeys(chunks, Jpeg2k(level=50))
    cache = buffer.save_to_path(_cache(folder), chunks=chunks, compressors=compressors)
    dataset = _dataset(folder, use_cache=True)
    assert not caplog.records
    stored = ReplayBuffer.copy_from_path(cache, keys=["camera_2"])
    np.testing.assert_array_equal(dataset.replay_buffer["camera_2"], stored["camera_2"])


@pytest.mark.slow
def test_processes_that_start_together_write_the_cache_once(folder: Path) -> None:
    command = [sys.executable, "-c", OPEN.format(meta=json.dumps(SHAPE_META), path=str(folder))]
    processes = [subprocess.Popen(command, env={**os.environ}, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert sum("frames of videos" in error for error in errors) == 1
    cache = _cache(folder)
    assert {path.name for path in folder.iterdir()} == {
        "replay_buffer.zarr",
        "videos",
        cache.name,
        f"{cache.name}.lock",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"camera_7": {"shape": [3, 16, 24], "type": "rgb"}}, r"3 videos are missing, first .*0/7\.mp4"),
        ({"gripper": {"shape": [1]}}, "has the observation 'gripper', which the dataset lacks"),
        ({"robot_eef_pose": {"shape": [3]}}, r"steps of shape \[6\], but shape_meta"),
    ],
)
def test_what_the_data_do_not_have_is_refused(folder: Path, change: Any, message: str) -> None:
    meta = {**SHAPE_META, "obs": {**SHAPE_META["obs"], **change}}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        _dataset(folder, meta, use_cache=True)


def test_nan_is_refused(folder: Path) -> None:
    buffer = ReplayBuffer.create_from_path(folder / "replay_buffer.zarr", mode="r+")
    buffer["action"][13] = np.nan
    with pytest.raises(ValueError, match=r"'action' has NaN or infinite values, first at step 13 \(episode 1\)"):
        _dataset(folder)


def test_zarr_arrays_are_narrowed_in_place() -> None:
    buffer = ReplayBuffer.create_empty_zarr()
    buffer.add_episode({"a": np.arange(12.0).reshape(3, 4)})
    zarr_resize_index_last_dim(buffer.data["a"], [3, 0])
    assert buffer["a"][:].tolist() == [[3, 0], [7, 4], [11, 8]]
