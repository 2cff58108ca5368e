import numpy as np
import pytest
import torch

from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.dataset.replay_buffer_dataset import ReplayBufferDataset, download_hint

N_EPISODES, LENGTH = 10, 12


class Differences(ReplayBufferDataset):
    """Samples are what positions change by in a step; a dataset of a few lines, as a new task writes it."""

    action_key = "velocity"

    def __init__(self, first_steps=None, **kwargs):
        if first_steps is not None:
            self.first_steps = first_steps
        rng = np.random.default_rng(0)
        buffer = ReplayBuffer.create_empty_numpy()
        for _ in range(N_EPISODES):
            position = rng.normal(size=(LENGTH, 3)).astype(np.float32)
            buffer.add_episode({"position": position, "velocity": 2 * position[:, :2]})
        defaults = {"horizon": 4, "pad_before": 1, "pad_after": 2, "seed": 1, "val_ratio": 0.0}
        super().__init__(buffer, **{**defaults, "max_train_episodes": None, **kwargs})

    def transform(self, windows):
        return {"obs": windows["position"] - 1, "action": windows["velocity"]}


def test_windows_are_what_is_stored():
    dataset = Differences(first_steps={"position": 2})
    windows = dataset.get_windows([0, 3])
    assert {key: tuple(value.shape) for key, value in windows.items()} == {"position": (2, 2, 3), "velocity": (2, 4, 2)}
    first = torch.from_numpy(dataset.replay_buffer["position"])
    assert torch.equal(windows["position"], torch.stack([first[[0, 0]], first[[2, 3]]]))
    batch = dataset.get_batch([0, 3])
    assert torch.equal(batch["obs"], windows["position"] - 1)
    assert torch.equal(batch["obs"][1], dataset[3]["obs"])


def test_validation_has_the_episodes_that_are_not_trained_on():
    dataset = Differences(val_ratio=0.2, max_train_episodes=5)
    validation = dataset.get_validation_dataset()
    assert (dataset.train_mask.sum(), validation.train_mask.sum()) == (5, 5)
    assert (dataset.train_mask ^ validation.train_mask).all()
    windows_an_episode = LENGTH + 1 + 2 - 4 + 1
    assert len(dataset) == len(validation) == 5 * windows_an_episode
    assert validation.replay_buffer is dataset.replay_buffer
    assert len(Differences().get_validation_dataset()) == 0


def test_the_seed_chooses():
    masks = [Differences(seed=seed, max_train_episodes=5).train_mask.tolist() for seed in (1, 1, 2)]
    assert masks[0] == masks[1] != masks[2]


def test_normalizer_is_fitted_on_samples_of_all_data():
    dataset = Differences(max_train_episodes=1)
    normalizer = dataset.get_normalizer()
    obs = normalizer["obs"].normalize(dataset.replay_buffer["position"] - 1)
    torch.testing.assert_close(obs.amin(0), -torch.ones(3))
    torch.testing.assert_close(obs.amax(0), torch.ones(3))
    gaussian = dataset.get_normalizer(mode="gaussian")["action"].normalize(dataset.get_all_actions())
    torch.testing.assert_close(gaussian.std(0), torch.ones(2))
    assert gaussian.shape == (N_EPISODES * LENGTH, 2)


def test_download_hint():
    with pytest.raises(FileNotFoundError, match="gone") as caught, download_hint("pusht"):
        raise FileNotFoundError("gone")
    assert caught.value.__notes__ == ["The published data: python -m diffusion_policy.scripts.download_dataset pusht"]
