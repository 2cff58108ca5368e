import logging

import numpy as np
import pytest
import torch
from s3_server import s3_server
from torch.utils.data import DataLoader

from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.common.stored_array import StoredArray
from diffusion_policy.dataset import replay_buffer_dataset
from diffusion_policy.dataset.blockpush_lowdim_dataset import BlockPushLowdimDataset
from diffusion_policy.dataset.lowdim_dataset import LowdimDataset
from diffusion_policy.dataset.mujoco_image_dataset import MujocoImageDataset
from diffusion_policy.dataset.pusht_dataset import PushTLowdimDataset
from diffusion_policy.dataset.pusht_image_dataset import PushTImageDataset
from diffusion_policy.workspace.batch_source import BatchSource

WINDOWS = {"horizon": 6, "pad_before": 1, "pad_after": 2, "val_ratio": 0.4}
SHAPES = {"state": (5,), "keypoint": (9, 2), "obs": (16,), "robot_tcp_pose": (6,), "gripper_width": (1,)}
SHAPES["action"] = (2,)
DATASETS = {
    PushTLowdimDataset: {},
    LowdimDataset: {"obs_keys": ["obs", "state"]},
    BlockPushLowdimDataset: {"use_manual_normalizer": True},
    PushTImageDataset: {"n_obs_steps": 2},
    MujocoImageDataset: {},
}


def _episodes(image_dtype=np.uint8):
    rng = np.random.default_rng(0)
    episodes = []
    for length in (20, 9, 14):
        vectors = {key: rng.normal(size=(length, *shape)).astype(np.float32) for key, shape in SHAPES.items()}
        episodes.append({**vectors, "img": rng.integers(0, 256, (length, 8, 8, 3)).astype(image_dtype)})
    return episodes


def _write(path, episodes):
    buffer = ReplayBuffer.create_empty_numpy()
    for episode in episodes:
        buffer.add_episode(episode)
    chunks = {key: (4, *value.shape[1:]) for key, value in episodes[0].items()}
    return str(buffer.save_to_path(path, chunks=chunks))


@pytest.fixture
def path(tmp_path):
    return _write(tmp_path / "demos.zarr", _episodes())


def _assert_equal(a, b):
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            _assert_equal(a[key], b[key])
    else:
        assert torch.equal(a, b)


@pytest.mark.parametrize("dataset_class", DATASETS)
def test_data_in_their_store_are_those_in_memory(dataset_class, path, monkeypatch):
    monkeypatch.setattr(replay_buffer_dataset, "BLOCK_BYTES", 1)  # statistics of many blocks
    arguments = {**WINDOWS, **DATASETS[dataset_class]}
    held, stored = (dataset_class(path, in_memory=in_memory, **arguments) for in_memory in (True, False))
    assert not any(isinstance(array, StoredArray) for _, array in held.replay_buffer.items())
    large = [key for key, array in stored.replay_buffer.items() if isinstance(array, StoredArray)]
    assert large == (["img"] if "Image" in dataset_class.__name__ else stored.replay_buffer.keys())
    for one, other in ((held, stored), (held.get_validation_dataset(), stored.get_validation_dataset())):
        _assert_equal(one.get_batch(range(len(one))), other.get_batch(range(len(other))))
    _assert_equal(held.get_all_actions(), stored.get_all_actions())
    for mode in ("limits", "gaussian"):
        expected = held.get_normalizer(mode=mode).state_dict()
        actual = stored.get_normalizer(mode=mode).state_dict()
        assert actual.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(actual[key], value, rtol=1e-5, atol=1e-6, msg=key)


def test_processes_load_batches_from_s3(tmp_path):
    expected = PushTImageDataset(_write(tmp_path / "bucket" / "demos.zarr", _episodes()), **WINDOWS)
    with s3_server(tmp_path):
        dataset = PushTImageDataset("s3://bucket/demos.zarr", in_memory=False, **WINDOWS)
        _assert_equal(dataset[0], expected[0])
        arguments = {"batch_size": 5, "num_workers": 2}
        batches = list(BatchSource(dataset, torch.device("cpu"), **arguments))
    for batch, other in zip(batches, DataLoader(expected, batch_size=5), strict=True):
        _assert_equal(batch, other)


@pytest.mark.parametrize(("share", "is_stored"), [(0.5, False), (0.0, True)])
def test_data_that_do_not_fit_stay_in_their_store(path, monkeypatch, share, is_stored):
    monkeypatch.setattr("diffusion_policy.common.memory.SHARE_OF_FREE_MEMORY", share)
    buffer = PushTImageDataset(path, **WINDOWS).replay_buffer
    assert isinstance(buffer["img"], StoredArray) == is_stored
    assert isinstance(buffer["state"], np.ndarray)


def test_images_stored_as_floats_are_bytes_once_read(tmp_path):
    path = _write(tmp_path / "demos.zarr", _episodes(np.float32))
    held, stored = (PushTImageDataset(path, in_memory=in_memory, **WINDOWS) for in_memory in (True, False))
    assert stored.replay_buffer["img"].nbytes == held.replay_buffer["img"].nbytes
    assert stored.get_windows([3])["img"].dtype == torch.uint8
    _assert_equal(held.get_batch([0, 9]), stored.get_batch([0, 9]))


def test_wrong_values_are_refused_when_they_are_read(tmp_path):
    episodes = _episodes(np.float32)
    episodes[1]["img"][4, 0, 0, 0] = 0.5
    episodes[2]["obs"][3] = np.nan
    path = _write(tmp_path / "demos.zarr", episodes)
    images = PushTImageDataset(path, in_memory=False, **{**WINDOWS, "val_ratio": 0})
    images.get_batch([0])
    with pytest.raises(ValueError, match=r"'img' has the value 0.5 at step 24 \(episode 1\)"):
        images.get_batch(range(len(images)))
    vectors = LowdimDataset(path, in_memory=False, **WINDOWS)
    with pytest.raises(ValueError, match=r"'obs' has NaN or infinite values, first at step 32 \(episode 2\)"):
        vectors.get_normalizer()


def test_what_is_asked_for_has_to_be_there(path):
    with pytest.raises(KeyError, match=r"has no \['camera'\]; it has \['action', 'gripper_width', 'img'.*image_key"):
        MujocoImageDataset(path, image_key="camera")
    with pytest.raises(ValueError, match=r"task.dataset.in_memory must be auto, true or false, got 'yes'"):
        PushTImageDataset(path, in_memory="yes")


def test_chunks_far_longer_than_a_window_are_warned_of(tmp_path, caplog):
    images = np.zeros((100, 8, 8, 3), np.uint8)
    vectors = {"state": np.zeros((100, 5), np.float32), "action": np.zeros((100, 2), np.float32)}
    buffer = ReplayBuffer({"data": {"img": images, **vectors}, "meta": {"episode_ends": np.array([100])}})
    for n_chunk in (4, 64):
        caplog.clear()
        path = buffer.save_to_path(tmp_path / f"{n_chunk}.zarr", chunks={"img": (n_chunk, 8, 8, 3)})
        with caplog.at_level(logging.WARNING):
            PushTImageDataset(str(path), in_memory=False)
        assert ("'img' is stored in chunks of 64 steps" in caplog.text) == (n_chunk == 64)
