"""What all datasets over the episodes of a replay buffer share."""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.common.sampler import SequenceSampler, downsample_mask, get_val_mask
from diffusion_policy.dataset.base_dataset import BaseDataset
from diffusion_policy.model.common.normalizer import LinearNormalizer


class ReplayBufferDataset(BaseDataset):
    """Windows over a replay buffer in memory, of the episodes chosen for training or of the others.

    A subclass loads the buffer and says in `transform` how its windows become samples, and in `fitted_data`
    what the normalizer is fitted on, unless that is every key of the samples.

    Args:
        replay_buffer: the demonstrations, as numpy arrays.
        horizon: steps T of a window.
        pad_before: steps that a window may begin before its episode (the first step is repeated).
        pad_after: steps that a window may end after its episode (the last step is repeated).
        seed: of the choice of episodes.
        val_ratio: share of the episodes kept for validation.
        max_train_episodes: at most so many of the others are trained on.
    """

    validates_on_the_rest = True
    """Whether what `max_train_episodes` leaves is validation too."""

    action_key = "action"
    """Array of the replay buffer with the actions `(N, Da)`."""

    def __init__(
        self,
        replay_buffer: ReplayBuffer,
        *,
        horizon: int,
        pad_before: int,
        pad_after: int,
        seed: int,
        val_ratio: float,
        max_train_episodes: int | None,
    ) -> None:
        super().__init__()
        self.replay_buffer = replay_buffer
        self.horizon, self.pad_before, self.pad_after = horizon, pad_before, pad_after
        not_validation = ~get_val_mask(n_episodes=replay_buffer.n_episodes, val_ratio=val_ratio, seed=seed)
        self.train_mask = downsample_mask(mask=not_validation, max_n=max_train_episodes, seed=seed)
        self.validation_mask = ~self.train_mask if self.validates_on_the_rest else ~not_validation
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
        validation.train_mask = self.validation_mask
        validation.sampler = self._make_sampler(validation.train_mask)
        return validation

    def fitted_data(self) -> dict[str, Tensor]:
        """What the normalizer is fitted on: all the data `(N, D)`, by key of the normalizer."""
        return self.transform({key: torch.from_numpy(value) for key, value in self.replay_buffer.items()})

    def get_normalizer(self, mode: str = "limits", **kwargs: Any) -> LinearNormalizer:
        """Fitted on `fitted_data`; arguments as for `LinearNormalizer.fit`."""
        normalizer = LinearNormalizer()
        normalizer.fit(self.fitted_data(), last_n_dims=1, mode=mode, **kwargs)
        return normalizer

    def get_all_actions(self) -> Tensor:
        return torch.from_numpy(self.replay_buffer[self.action_key])


def observed_steps(keys: Iterable[str], n_obs_steps: int | None, horizon: int) -> dict[str, int]:
    """`first_steps` of a dataset whose observations `keys` are read for To steps of a window; for None, all T.

    Raises:
        ValueError: a window has not so many steps.
    """
    if n_obs_steps is None:
        return {}
    if not 1 <= n_obs_steps <= horizon:
        raise ValueError(f"n_obs_steps is {n_obs_steps}, expected 1 to {horizon}, the horizon")
    return dict.fromkeys(keys, n_obs_steps)


@contextmanager
def download_hint(name: str) -> Iterator[None]:
    """Says how to get the published data where what the block opens is not there.

    Args:
        name: what `download_dataset` calls them.
    """
    try:
        yield
    except FileNotFoundError as error:
        error.add_note(f"The published data: python -m diffusion_policy.scripts.download_dataset {name}")
        raise
