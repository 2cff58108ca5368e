import pickle

import numpy as np
import pytest
import torch
import zarr
from torch.utils.data import DataLoader, Dataset

from diffusion_policy.common import stored_array
from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.common.sampler import SequenceSampler
from diffusion_policy.common.stored_array import StoredArray

N_STEPS = 50


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (N_STEPS, 4, 5, 3)).astype(np.uint8)


@pytest.fixture(params=["folder", "zip", "format 3", "split chunks"])
def path(request, images, tmp_path):
    """Of a replay buffer with `img`, in one of the ways that zarr stores it."""
    path = tmp_path / ("demos.zarr.zip" if request.param == "zip" else "demos.zarr")
    if request.param == "format 3":
        root = zarr.open_group(path, mode="w", zarr_format=3)
        root.create_array("data/img", data=images, chunks=(7, 4, 5, 3))
        root.create_array("meta/episode_ends", data=np.array([20, N_STEPS]))
        return str(path)
    chunks = (7, 2, 5, 3) if request.param == "split chunks" else (7, 4, 5, 3)
    buffer = ReplayBuffer({"data": {"img": images}, "meta": {"episode_ends": np.array([20, N_STEPS])}})
    return str(buffer.save_to_path(path, chunks={"img": chunks}))


def _write(path, images, n_chunk):
    buffer = ReplayBuffer({"data": {"img": images}, "meta": {"episode_ends": np.array([len(images)])}})
    return str(buffer.save_to_path(path, chunks={"img": (n_chunk, *images.shape[1:])}))


def test_reads_what_is_stored(path, images):
    array = StoredArray(path, "img", N_STEPS)
    assert (array.shape, array.dtype, array.ndim, array.nbytes) == (images.shape, np.uint8, 4, images.nbytes)
    rng = np.random.default_rng(1)
    for _ in range(5):
        rows = rng.integers(0, N_STEPS, 20)  # not sorted, some more than once
        np.testing.assert_array_equal(array.take(rows), images[rows])
    np.testing.assert_array_equal(array[...], images)
    np.testing.assert_array_equal(array[3:30:4], images[3:30:4])
    assert array.take(np.array([], dtype=int)).shape == (0, 4, 5, 3)


def test_windows_are_those_of_an_array_in_memory(path, images):
    meta = {"episode_ends": np.array([20, N_STEPS])}
    in_memory, stored = (
        SequenceSampler(ReplayBuffer({"data": {"img": array}, "meta": meta}), 6, pad_before=1, pad_after=3)
        for array in (images, StoredArray(path, "img", N_STEPS))
    )
    idxs = np.random.default_rng(0).permutation(len(stored))
    for first_steps in ({}, {"img": 2}):
        expected = in_memory.sample_sequences(idxs, first_steps)["img"]
        np.testing.assert_array_equal(stored.sample_sequences(idxs, first_steps)["img"], expected)
    for idx in (0, 10, len(stored) - 1):
        np.testing.assert_array_equal(stored.sample_sequence(idx)["img"], in_memory.sample_sequence(idx)["img"])


def test_rows_beyond_the_last_episode_are_not_there(images, tmp_path):
    array = StoredArray(_write(tmp_path / "demos.zarr", images, 8), "img", 45)
    assert len(array) == 45
    np.testing.assert_array_equal(array[...], images[:45])


def test_keeps_the_last_chunks_used_within_its_share(images, tmp_path, monkeypatch):
    path, chunk = _write(tmp_path / "demos.zarr", images, 5), 5 * images[0].nbytes
    monkeypatch.setattr(stored_array, "CACHE_BYTES", 6.5 * chunk)
    array = StoredArray(path, "img", N_STEPS, n_shares=2)  # three chunks each
    array.take(np.arange(25))
    for number in range(10):
        (tmp_path / "demos.zarr" / "data" / "img" / f"{number}.0.0.0").unlink()
    np.testing.assert_array_equal(array.take(np.arange(10, 25)), images[10:25])
    assert (array.take(np.arange(5)) == 0).all()  # is read again, and what is not written is zero
    assert (array.take(np.arange(10, 15)) == 0).all()  # had to go for it
    np.testing.assert_array_equal(array.take(np.arange(20, 25)), images[20:25])


class _Rows(Dataset):
    def __init__(self, array):
        self.array = array

    def __len__(self):
        return len(self.array)

    def __getitem__(self, row):
        return torch.from_numpy(self.array.take(np.array([row]))[0])


def test_every_process_reads_for_itself(path, images):
    array = StoredArray(path, "img", N_STEPS)
    array.take(np.arange(5))  # what is open here is of no use there
    loader = DataLoader(_Rows(array), batch_size=10, num_workers=1, multiprocessing_context="fork")
    assert torch.equal(torch.cat(list(loader)), torch.from_numpy(images))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(array)).take(np.array([3])), images[[3]])


def test_values_are_converted_chunk_by_chunk(images, tmp_path):
    starts = []

    def convert(rows, start):
        starts.append((start, len(rows)))
        return rows.astype(np.float32) / 2

    array = StoredArray(_write(tmp_path / "demos.zarr", images, 20), "img", N_STEPS, convert, np.float32)
    assert array.nbytes == 4 * images.nbytes
    np.testing.assert_array_equal(array.take(np.array([49, 1])), images[[49, 1]] / np.float32(2))
    assert sorted(starts) == [(0, 20), (40, 10)]


def test_a_damaged_chunk_is_said_to_be(images, tmp_path):
    path = _write(tmp_path / "demos.zarr", images, 10)
    chunk = tmp_path / "demos.zarr" / "data" / "img" / "2.0.0.0"
    chunk.write_bytes(chunk.read_bytes()[:40])
    array = StoredArray(path, "img", N_STEPS)
    np.testing.assert_array_equal(array.take(np.array([19, 30])), images[[19, 30]])
    with pytest.raises(ValueError, match=r"cannot read array data/img .* damaged: fetch or convert it again"):
        array.take(np.array([20]))
