import numpy as np
import pytest
import torch
from fixtures import load_fixture

from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.dataset.pusht_dataset import PushTLowdimDataset

CONFIG = {"horizon": 16, "pad_before": 1, "pad_after": 7, "seed": 42, "val_ratio": 0.02, "max_train_episodes": 90}


def _write(path, n_episodes=3, length=20, spoil=None):
    buffer = ReplayBuffer.create_from_path(str(path), mode="a")
    rng = np.random.default_rng(0)
    for episode in range(n_episodes):
        data = {
            "keypoint": rng.uniform(0, 512, (length, 9, 2)).astype(np.float32),
            "state": rng.uniform(0, 512, (length, 5)).astype(np.float32),
            "action": rng.uniform(0, 512, (length, 2)).astype(np.float32),
        }
        if spoil == episode:
            data["state"][4, 1] = np.nan
        buffer.add_episode(data)
    return str(path)


def test_real_data_equals_fixture(compat, real_pusht):
    fixture = load_fixture(compat, "f_sampler")
    dataset = PushTLowdimDataset(str(real_pusht), **CONFIG)
    validation = dataset.get_validation_dataset()
    assert (len(dataset), len(validation)) == (10726, 13482)
    assert (dataset.train_mask.sum(), validation.train_mask.sum()) == (90, 116)
    assert not (dataset.train_mask & validation.train_mask).any()
    items = {f"item{i}": dataset[i] for i in (0, 1, 1000, 10725)} | {"val_item0": validation[0]}
    for name, item in items.items():
        for key, value in fixture.tensors(f"out/pusht_lowdim/{name}/").items():
            torch.testing.assert_close(item[key], value, rtol=0, atol=0)
    state = dataset.get_normalizer().state_dict()
    expected = fixture.tensors("out/pusht_lowdim/normalizer/")
    assert state.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(state[key], value, rtol=1e-5, atol=1e-5)


def test_samples_are_keypoints_agent_and_action(tmp_path):
    dataset = PushTLowdimDataset(_write(tmp_path / "demo.zarr"), horizon=4, pad_before=1, pad_after=2)
    buffer = dataset.replay_buffer
    assert len(dataset) == 3 * (20 + 1 + 2 - 4 + 1)
    first = dataset[0]
    rows = [0, 0, 1, 2]
    expected = np.concatenate((buffer["keypoint"][rows].reshape(4, 18), buffer["state"][rows, :2]), axis=1)
    np.testing.assert_array_equal(first["obs"], expected)
    np.testing.assert_array_equal(first["action"], buffer["action"][rows])
    np.testing.assert_array_equal(dataset[-1]["action"], buffer["action"][[58, 59, 59, 59]])


def test_batch_is_the_stack_of_its_samples(tmp_path):
    dataset = PushTLowdimDataset(_write(tmp_path / "demo.zarr"), horizon=8, pad_before=1, pad_after=7)
    indices = [0, 5, len(dataset) - 1, 5]
    batch = dataset.get_batch(indices)
    for key in ("obs", "action"):
        assert batch[key].dtype == torch.float32
        assert torch.equal(batch[key], torch.stack([dataset[i][key] for i in indices]))
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_normalizer_spans_all_data(tmp_path):
    dataset = PushTLowdimDataset(_write(tmp_path / "demo.zarr"), horizon=4, max_train_episodes=1)
    normalizer = dataset.get_normalizer()
    actions = normalizer["action"].normalize(dataset.get_all_actions())
    torch.testing.assert_close(actions.amin(0), -torch.ones(2))
    torch.testing.assert_close(actions.amax(0), torch.ones(2))


def test_nan_is_refused_with_its_place(tmp_path):
    path = _write(tmp_path / "demo.zarr", spoil=1)
    with pytest.raises(ValueError, match=r"'state' has NaN .* step 24 \(episode 1\)"):
        PushTLowdimDataset(path, horizon=4)


def test_missing_data_says_how_to_get_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="pusht_cchi"):
        PushTLowdimDataset(str(tmp_path / "pusht_cchi_v7_replay.zarr"), horizon=4)
