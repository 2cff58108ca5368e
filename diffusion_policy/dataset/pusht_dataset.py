"""Push-T demonstrations as keypoints of the block and position of the agent."""

import copy
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.common.sampler import SequenceSampler, downsample_mask, get_val_mask
from diffusion_policy.dataset.base_dataset import BaseLowdimDataset
from diffusion_policy.model.common.normalizer import LinearNormalizer


class PushTLowdimDataset(BaseLowdimDataset):
    """`obs` is 9 keypoints and the agent's position (20 numbers, px), `action` the agent's target (2, px).

    Args:
        zarr_path: folder or zip of the demonstrations.
        horizon: steps T of a window.
        pad_before: steps that a window may begin before its episode (the first step is repeated).
        pad_after: steps that a window may end after its episode (the last step is repeated).
        obs_key: array of keypoints, `(N, 9, 2)`.
        state_key: array whose first two columns are the agent's position.
        action_key: array of actions, `(N, 2)`.
        seed: of the choice of episodes.
        val_ratio: share of the episodes kept for validation.
        max_train_episodes: at most so many of the others are trained on; the rest is validation too.
    """

    def __init__(
        self,
        zarr_path: str,
        horizon: int = 1,
        pad_before: int = 0,
        pad_after: int = 0,
        obs_key: str = "keypoint",
        state_key: str = "state",
        action_key: str = "action",
        seed: int = 42,
        val_ratio: float = 0.0,
        max_train_episodes: int | None = None,
    ) -> None:
        super().__init__()
        keys = [obs_key, state_key, action_key]
        try:
            self.replay_buffer = ReplayBuffer.copy_from_path(zarr_path, keys=keys)
        except FileNotFoundError as error:
            error.add_note("The published data: python -m diffusion_policy.scripts.download_dataset pusht")
            raise
        check_finite(self.replay_buffer, zarr_path)
        n_episodes = self.replay_buffer.n_episodes
        train_mask = ~get_val_mask(n_episodes=n_episodes, val_ratio=val_ratio, seed=seed)
        self.train_mask = downsample_mask(mask=train_mask, max_n=max_train_episodes, seed=seed)
        self.obs_key, self.state_key, self.action_key = keys
        self.horizon, self.pad_before, self.pad_after = horizon, pad_before, pad_after
        self.sampler = self._make_sampler(self.train_mask)

    def _make_sampler(self, episode_mask: np.ndarray) -> SequenceSampler:
        return SequenceSampler(
            replay_buffer=self.replay_buffer,
            sequence_length=self.horizon,
            pad_before=self.pad_before,
            pad_after=self.pad_after,
            episode_mask=episode_mask,
        )

    def get_validation_dataset(self) -> Self:
        validation = copy.copy(self)
        validation.train_mask = ~self.train_mask
        validation.sampler = self._make_sampler(validation.train_mask)
        return validation

    def get_normalizer(self, mode: str = "limits", **kwargs: Any) -> LinearNormalizer:
        whole = {key: torch.from_numpy(value[:]) for key, value in self.replay_buffer.items()}
        normalizer = LinearNormalizer()
        normalizer.fit(self.transform(whole), last_n_dims=1, mode=mode, **kwargs)
        return normalizer

    def get_all_actions(self) -> Tensor:
        return torch.from_numpy(self.replay_buffer[self.action_key])

    def transform(self, windows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        keypoints = windows[self.obs_key].flatten(-2)
        agent = windows[self.state_key][..., :2]
        return {"obs": torch.cat((keypoints, agent), dim=-1), "action": windows[self.action_key]}


def check_finite(replay_buffer: ReplayBuffer, source: str) -> None:
    """Refuses demonstrations with NaN or infinite values, naming the array, the episode and the step."""
    for key, values in replay_buffer.items():
        finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if not finite.all():
            step = int(np.argmin(finite))
            episode = int(np.searchsorted(replay_buffer.episode_ends[:], step, side="right"))
            raise ValueError(
                f"{source}: {key!r} has NaN or infinite values, first at step {step} (episode {episode}); mend or "
                "drop that episode"
            )
