from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.dataset.blockpush_lowdim_dataset import BlockPushLowdimDataset

Write = Callable[[list[dict[str, np.ndarray]]], str]


@pytest.fixture
def episodes() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    low, high = rng.uniform(-1, 0, 16), rng.uniform(0.5, 3, 16)
    return [
        {
            "obs": rng.uniform(low, high, (length, 16)).astype(np.float32),
            "action": rng.normal(0, 0.01, (length, 2)).astype(np.float32),
        }
        for length in (12, 9, 15, 11)
    ]


def test_samples_are_windows_of_episodes(write_demonstrations: Write, episodes: list[dict[str, np.ndarray]]) -> None:
    path = write_demonstrations(episodes)
    dataset = BlockPushLowdimDataset(path, horizon=4, pad_before=1, pad_after=2, val_ratio=0.3)
    validation = dataset.get_validation_dataset()
    assert (dataset.train_mask.sum(), validation.train_mask.sum()) == (3, 1)
    first = dataset.train_mask.argmax()
    rows = [0, 0, 1, 2]
    for key in ("obs", "action"):
        np.testing.assert_array_equal(dataset[0][key], episodes[first][key][rows])
    batch = dataset.get_batch([0, 3, len(dataset) - 1])
    assert (batch["obs"].shape, batch["action"].shape) == ((3, 4, 16), (3, 4, 2))
    assert dataset.get_all_actions().shape == (47, 2)
    assert BlockPushLowdimDataset(path, horizon=4, max_train_episodes=2).train_mask.sum() == 2


def test_effector_target_may_be_hidden(write_demonstrations: Write, episodes: list[dict[str, np.ndarray]]) -> None:
    path = write_demonstrations(episodes)
    seen = BlockPushLowdimDataset(path, horizon=4)[2]["obs"]
    dataset = BlockPushLowdimDataset(path, horizon=4, obs_eef_target=False)
    expected = seen.clone()
    expected[:, 8:10] = 0
    assert torch.equal(dataset[2]["obs"], expected)
    assert dataset.replay_buffer["obs"][2, 8] != 0
    normalized = dataset.get_normalizer().normalize(dataset[2])
    assert torch.equal(normalized["obs"][:, 8:10], torch.zeros(4, 2))


def test_normalizers(write_demonstrations: Write, episodes: list[dict[str, np.ndarray]]) -> None:
    path = write_demonstrations(episodes)
    obs = torch.from_numpy(np.concatenate([episode["obs"] for episode in episodes]))
    each = BlockPushLowdimDataset(path, horizon=4).get_normalizer()["obs"].normalize(obs)
    torch.testing.assert_close(each.amin(0), -torch.ones(16))
    torch.testing.assert_close(each.amax(0), torch.ones(16))
    normalizer = BlockPushLowdimDataset(path, horizon=4, use_manual_normalizer=True).get_normalizer()
    shared = normalizer["obs"].normalize(obs)
    for columns in ([0, 3, 6, 8, 10, 13], [1, 4, 7, 9, 11, 14], [2, 5, 12, 15]):
        assert shared[:, columns].min() == pytest.approx(-1, abs=1e-5)
        assert shared[:, columns].max() == pytest.approx(1, abs=1e-5)
        # Differences between two columns are kept, up to one factor.
        before, after = obs[:, columns].diff(dim=1), shared[:, columns].diff(dim=1)
        torch.testing.assert_close(after / before, (after / before)[:1, :1].expand_as(after), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(normalizer["obs"].unnormalize(shared).data, obs)
    actions = normalizer["action"].normalize(torch.from_numpy(np.concatenate([e["action"] for e in episodes])))
    assert actions.abs().max() == pytest.approx(1, abs=1e-5)


def test_absent_data_say_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        BlockPushLowdimDataset(str(tmp_path / "multimodal_push_seed.zarr"), horizon=4)
    assert "generate_bet_blockpush" in "".join(raised.value.__notes__)


def test_bad_data_are_refused(write_demonstrations: Write, episodes: list[dict[str, np.ndarray]]) -> None:
    path = write_demonstrations(episodes)
    with pytest.raises((KeyError, ValueError), match="state"):
        BlockPushLowdimDataset(path, horizon=4, obs_key="state")
    with pytest.raises(ValueError, match=r"'action' has steps of shape \[16\], expected \[2\]"):
        BlockPushLowdimDataset(path, horizon=4, action_key="obs")
    episodes[1]["obs"][3, 7] = np.nan
    with pytest.raises(ValueError, match=r"'obs' has NaN .* step 15 \(episode 1\)"):
        BlockPushLowdimDataset(write_demonstrations(episodes), horizon=4)


def test_episode_cut_off_while_it_was_written_is_left_out(
    write_demonstrations: Write, episodes: list[dict[str, np.ndarray]]
) -> None:
    path = write_demonstrations(episodes)
    buffer = ReplayBuffer.create_from_path(path, mode="r+")
    buffer.data["obs"].append(episodes[0]["obs"])  # killed before `action` and the episode's end
    assert len(BlockPushLowdimDataset(path, horizon=1)) == 47
    buffer.data["obs"].resize((40, 16))  # rows of whole episodes are gone
    with pytest.raises(ValueError, match=r"obs"):
        BlockPushLowdimDataset(path, horizon=1)
