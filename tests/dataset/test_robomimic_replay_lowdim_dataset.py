import h5py
import numpy as np
import pytest
import torch
from robomimic_data import OBS_DIMS, edit, write_random

from diffusion_policy.dataset.robomimic_replay_lowdim_dataset import RobomimicReplayLowdimDataset
from diffusion_policy.model.common.rotation_transformer import RotationTransformer

WINDOWS = {"horizon": 8, "pad_before": 1, "pad_after": 3}


def test_observations_stand_one_after_another_and_actions_as_stored(tmp_path):
    path = write_random(tmp_path / "low_dim.hdf5")
    dataset = RobomimicReplayLowdimDataset(str(path), **WINDOWS)
    assert dataset.replay_buffer.episode_lengths.tolist() == [12, 9, 10, 14]
    with h5py.File(path) as file:
        demo = file["data/demo_0"]
        obs = np.concatenate([demo[f"obs/{key}"] for key in OBS_DIMS], axis=-1)
        sample = dataset[1]  # the first window without padding
        np.testing.assert_allclose(sample["obs"], obs[:8], rtol=1e-6)
        np.testing.assert_allclose(sample["action"], demo["actions"][:8], rtol=1e-6)
    assert sample["obs"].dtype == sample["action"].dtype == torch.float32
    batch = dataset.get_batch([1, 5, 20])
    for i, idx in enumerate((1, 5, 20)):
        assert torch.equal(batch["obs"][i], dataset[idx]["obs"])


@pytest.mark.parametrize(("action_dim", "n_arms"), [(7, 1), (14, 2)])
def test_absolute_actions_get_six_numbers_of_rotation(tmp_path, action_dim, n_arms):
    path = write_random(tmp_path / "abs.hdf5", action_dim=action_dim)
    dataset = RobomimicReplayLowdimDataset(str(path), abs_action=True, **WINDOWS)
    with h5py.File(path) as file:
        stored = file["data/demo_0/actions"][:].reshape(12, n_arms, 7)
    action = dataset.get_all_actions()[:12].reshape(12, n_arms, 10).numpy()
    np.testing.assert_allclose(action[..., :3], stored[..., :3], rtol=1e-6)
    np.testing.assert_allclose(action[..., 3:9], RotationTransformer().forward(stored[..., 3:6]), atol=1e-6)
    np.testing.assert_allclose(action[..., 9], stored[..., 6], rtol=1e-6)
    normalized = dataset.get_normalizer()["action"].normalize(dataset.get_all_actions()).reshape(-1, n_arms, 10)
    torch.testing.assert_close(normalized[..., :3].amax((0, 1)), torch.ones(3))
    torch.testing.assert_close(normalized[..., :3].amin((0, 1)), -torch.ones(3))
    torch.testing.assert_close(normalized[:12, ..., 3:], torch.from_numpy(action[..., 3:]))


def test_normalizers(tmp_path):
    path = str(write_random(tmp_path / "low_dim.hdf5"))
    dataset = RobomimicReplayLowdimDataset(path, **WINDOWS)
    normalizer = dataset.get_normalizer()
    assert torch.equal(normalizer["action"].normalize(dataset.get_all_actions()), dataset.get_all_actions())
    obs = torch.from_numpy(dataset.replay_buffer["obs"])
    torch.testing.assert_close(normalizer["obs"].normalize(obs), obs / obs.abs().max())
    legacy = RobomimicReplayLowdimDataset(path, abs_action=True, use_legacy_normalizer=True, **WINDOWS)
    actions = legacy.get_all_actions()
    torch.testing.assert_close(legacy.get_normalizer()["action"].normalize(actions), actions / actions.abs().max())


def test_validation_is_the_other_episodes(tmp_path):
    path = str(write_random(tmp_path / "low_dim.hdf5"))
    dataset = RobomimicReplayLowdimDataset(path, val_ratio=0.25, max_train_episodes=2, **WINDOWS)
    validation = dataset.get_validation_dataset()
    assert (dataset.train_mask.sum(), validation.train_mask.sum()) == (2, 2)
    assert len(dataset) + len(validation) == len(RobomimicReplayLowdimDataset(path, **WINDOWS))


def _drop(name):
    return lambda file: file.pop(name)


def _cut(file):
    values = file["data/demo_2/obs/object"][:5]
    del file["data/demo_2/obs/object"]
    file["data/demo_2/obs/object"] = values


def _widen(file):
    del file["data/demo_3/actions"]
    file["data/demo_3/actions"] = np.zeros((14, 8))


def _spoil(file):
    file["data/demo_1/obs/object"][3, 0] = np.nan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop("data"), "not in robomimic's layout: it has no group 'data'"),
        (_drop("data/demo_1/obs/object"), "demo_1 has no 'obs/object'; it has actions, states, obs/agentview_image"),
        (_drop("data/demo_3/actions"), "demo_3 has no 'actions'.*not written to its end"),
        (_cut, "demo_2 has arrays of .* steps, expected the same number"),
        (_widen, r"'actions' have shape \[7\] in demo_0 but \[8\] in demo_3: do not mix"),
        (_spoil, r"'obs' has NaN or infinite values, first at step 15 \(episode 1\)"),
        (lambda file: [file.pop(f"data/demo_{i}") for i in range(4)], "has no demonstrations"),
    ],
)
def test_damaged_files_are_refused(tmp_path, change, message):
    path = write_random(tmp_path / "low_dim.hdf5")
    edit(path, change)
    with pytest.raises(ValueError, match=message):
        RobomimicReplayLowdimDataset(str(path), **WINDOWS)


def test_files_that_are_cut_short_absent_or_of_other_actions_are_refused(tmp_path):
    path = write_random(tmp_path / "low_dim.hdf5")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="is not a whole HDF5 file"):
        RobomimicReplayLowdimDataset(str(path), **WINDOWS)
    with pytest.raises(FileNotFoundError, match="generate_robomimic_demos"):
        RobomimicReplayLowdimDataset(str(tmp_path / "absent.hdf5"), **WINDOWS)
    path = write_random(tmp_path / "joints.hdf5", action_dim=8)
    with pytest.raises(ValueError, match=r"actions have shape \[8\], expected \[7\] or \[14\]"):
        RobomimicReplayLowdimDataset(str(path), abs_action=True, **WINDOWS)
