import copy
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from robomimic_data import IMAGE, SHAPE_META, edit, write_random

from diffusion_policy.dataset import image_cache
from diffusion_policy.dataset.robomimic_replay_image_dataset import RobomimicReplayImageDataset

WINDOWS = {"horizon": 8, "pad_before": 1, "pad_after": 3, "n_obs_steps": 2}
OPEN = "from robomimic_data import SHAPE_META; " + (
    "from diffusion_policy.dataset.robomimic_replay_image_dataset import RobomimicReplayImageDataset as Dataset; "
    "Dataset(SHAPE_META, {path!r}, use_cache=True)"
)


@pytest.fixture
def path(tmp_path):
    return write_random(tmp_path / "image.hdf5")


def _stored_images(path):
    with h5py.File(path) as file:
        return np.concatenate([file[f"data/demo_{i}/obs/{IMAGE}"][:] for i in range(len(file["data"]))])


def _psnr(images, expected):
    return 10 * np.log10(255**2 / max(np.square(images.astype(float) - expected).mean(), 1e-9))


@pytest.mark.parametrize("use_cache", [False, True])
def test_samples_are_what_is_stored(path, use_cache):
    dataset = RobomimicReplayImageDataset(SHAPE_META, str(path), use_cache=use_cache, **WINDOWS)
    sample = dataset[1]
    assert {key: tuple(value.shape) for key, value in sample["obs"].items()} == {
        IMAGE: (2, 3, 12, 16),
        "robot0_eef_pos": (2, 3),
        "robot0_eef_quat": (2, 4),
    }
    assert sample["action"].shape == (8, 7)
    image = sample["obs"][IMAGE].movedim(1, -1).numpy() * 255
    assert _psnr(image, _stored_images(path)[:2]) > (image_cache.QUALITY - 5 if use_cache else 90)
    with h5py.File(path) as file:
        np.testing.assert_allclose(
            sample["obs"]["robot0_eef_pos"], file["data/demo_0/obs/robot0_eef_pos"][:2], rtol=1e-6
        )
    batch = dataset.get_batch([0, 7])
    assert torch.equal(batch["obs"][IMAGE][1], dataset[7]["obs"][IMAGE])
    assert path.with_name("image.hdf5.zarr.zip").exists() == use_cache


def test_images_that_do_not_fit_into_memory_stay_compressed(path, monkeypatch):
    in_memory = RobomimicReplayImageDataset(SHAPE_META, str(path), use_cache=True, **WINDOWS)
    monkeypatch.setattr("diffusion_policy.common.memory.SHARE_OF_FREE_MEMORY", 0)
    compressed = RobomimicReplayImageDataset(SHAPE_META, str(path), use_cache=True, **WINDOWS)
    assert not isinstance(compressed.replay_buffer[IMAGE], np.ndarray)
    for name, value in in_memory.get_batch([0, 3, 11])["obs"].items():
        assert torch.equal(compressed.get_batch([0, 3, 11])["obs"][name], value)
    compressed.get_normalizer()
    loader = torch.utils.data.DataLoader(compressed, batch_size=2, num_workers=1)  # a process that is forked
    assert torch.equal(next(iter(loader))["obs"][IMAGE], in_memory.get_batch([0, 1])["obs"][IMAGE])
    with pytest.raises(MemoryError, match="use_cache=true"):
        RobomimicReplayImageDataset(SHAPE_META, str(path), **WINDOWS)


def test_normalizers(path):
    dataset = RobomimicReplayImageDataset(SHAPE_META, str(path), **WINDOWS)
    normalizer = dataset.get_normalizer()
    position = normalizer["robot0_eef_pos"].normalize(dataset.replay_buffer["robot0_eef_pos"])
    torch.testing.assert_close(position.amax(0), torch.ones(3))
    quaternion = torch.from_numpy(dataset.replay_buffer["robot0_eef_quat"])
    assert torch.equal(normalizer["robot0_eef_quat"].normalize(quaternion), quaternion)
    assert normalizer[IMAGE].normalize(torch.tensor([0.0, 1.0])).tolist() == [-1, 1]


def _started(path, n):
    command = [sys.executable, "-c", OPEN.format(path=str(path))]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    return [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(n)]


@pytest.mark.slow
def test_processes_that_start_together_write_the_cache_once(path):
    processes = _started(path, 2)
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert sum("compressing images" in error for error in errors) == 1
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "image.hdf5",
        "image.hdf5.zarr.zip",
        "image.hdf5.zarr.zip.lock",
    ]


@pytest.mark.slow
def test_a_cache_is_gone_on_with_after_a_kill(tmp_path):
    path = write_random(tmp_path / "image.hdf5", lengths=(60,) * 20)
    (process,) = _started(path, 1)
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob(".*.partial/data/action/1.0")):  # of the second demonstration
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    (partial,) = tmp_path.glob(".*.partial")
    assert not (tmp_path / "image.hdf5.zarr.zip").exists()
    dataset = RobomimicReplayImageDataset(SHAPE_META, str(path), use_cache=True, **WINDOWS)
    assert not partial.exists()
    assert dataset.replay_buffer.episode_lengths.tolist() == [60] * 20
    assert _psnr(dataset.replay_buffer[IMAGE], _stored_images(path)) > image_cache.QUALITY - 5


def test_a_cache_of_other_data_and_a_damaged_one_are_written_anew(path, caplog):
    shape_meta = copy.deepcopy(SHAPE_META)
    RobomimicReplayImageDataset(shape_meta, str(path), use_cache=True)
    shape_meta["obs"]["robot0_gripper_qpos"] = {"shape": [2]}
    dataset = RobomimicReplayImageDataset(shape_meta, str(path), use_cache=True)
    assert "it is of other data, in robot0_gripper_qpos" in caplog.text
    assert dataset[0]["obs"]["robot0_gripper_qpos"].shape == (1, 2)
    cache = path.with_name("image.hdf5.zarr.zip")
    cache.write_bytes(cache.read_bytes()[:500])
    assert len(RobomimicReplayImageDataset(shape_meta, str(path), use_cache=True)) == len(dataset)
    assert "not a readable zip file" in caplog.text


def test_absolute_actions_are_converted_in_the_cache_too(path):
    shape_meta = {**SHAPE_META, "action": {"shape": [10]}}
    dataset = RobomimicReplayImageDataset(shape_meta, str(path), abs_action=True, use_cache=True, **WINDOWS)
    assert dataset[0]["action"].shape == (8, 10)
    assert len(dataset.get_normalizer()["action"].get_input_stats()["max"]) == 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"sideview_image": {"shape": [3, 12, 16], "type": "rgb"}},
            "has the camera 'sideview_image', which the dataset",
        ),
        ({IMAGE: {"shape": [3, 84, 84], "type": "rgb"}}, r"steps of shape \[12, 16, 3\], but shape_meta"),
        ({"robot0_eef_pos": {"shape": [2]}}, r"steps of shape \[3\], but shape_meta"),
        ({"object": {"shape": [10]}}, "expected names that end in 'pos', 'qpos' or 'quat'"),
    ],
)
def test_what_the_data_do_not_have_is_refused(path, change, message):
    shape_meta = {**SHAPE_META, "obs": {**SHAPE_META["obs"], **change}}
    with pytest.raises(ValueError, match=message):
        RobomimicReplayImageDataset(shape_meta, str(path), use_cache=True, **WINDOWS)


def test_images_of_another_type_and_actions_of_another_size_are_refused(path):
    with pytest.raises(ValueError, match=r"'action' has steps of shape \[7\]"):
        RobomimicReplayImageDataset({**SHAPE_META, "action": {"shape": [10]}}, str(path), **WINDOWS)

    def as_floats(file):
        images = file[f"data/demo_0/obs/{IMAGE}"][:] / 255
        del file[f"data/demo_0/obs/{IMAGE}"]
        file[f"data/demo_0/obs/{IMAGE}"] = images

    edit(path, as_floats)
    with pytest.raises(ValueError, match="expected images of uint8"):
        RobomimicReplayImageDataset(SHAPE_META, str(path), **WINDOWS)
