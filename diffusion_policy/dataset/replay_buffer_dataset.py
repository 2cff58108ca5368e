"""What all datasets over the episodes of a replay buffer share."""

import copy
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from diffusion_policy.common.distributed import is_first
from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.common.sampler import SequenceSampler, downsample_mask, get_val_mask
from diffusion_policy.common.stored_array import StoredArray
from diffusion_policy.dataset.base_dataset import BaseDataset
from diffusion_policy.dataset.data_checks import step_and_episode
from diffusion_policy.model.common.normalizer import LinearNormalizer

BLOCK_BYTES = 64e6
"""What of data in a store is held at a time to fit a normalizer on them."""


class ReplayBufferDataset(BaseDataset):
    """Windows over a replay buffer, of the episodes chosen for training or of the others.

    A subclass loads the buffer and says in `transform` how its windows become samples, and in `fitted_data`
    what the normalizer is fitted on, unless that is every key of the samples.

    Args:
        replay_buffer: the demonstrations, as numpy arrays or, what is large, StoredArrays.
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
        return self._fitted_rows(slice(None))

    def _fitted_rows(self, rows: slice) -> dict[str, Tensor]:
        return self.transform({key: torch.from_numpy(value[rows]) for key, value in self.replay_buffer.items()})

    def get_normalizer(self, mode: str = "limits", **kwargs: Any) -> LinearNormalizer:
        """Fitted on `fitted_data`; arguments as for `LinearNormalizer.fit`."""
        normalizer = LinearNormalizer()
        if isinstance(self.replay_buffer[self.action_key], StoredArray):
            normalizer.fit_blocks(self._fitted_blocks(), last_n_dims=1, mode=mode, **kwargs)
        else:
            normalizer.fit(self.fitted_data(), last_n_dims=1, mode=mode, **kwargs)
        return normalizer

    def _fitted_blocks(self) -> Iterator[dict[str, Tensor]]:
        """The data that the normalizer is fitted on, a part of them at a time, checked."""
        arrays = [array for _, array in self.replay_buffer.items()]
        n_steps, n_chunk = self.replay_buffer.n_steps, max(array.chunks[0] for array in arrays)
        n_bytes = n_chunk * sum(array.dtype.itemsize * math.prod(array.shape[1:]) for array in arrays)
        size = n_chunk * max(1, int(BLOCK_BYTES / n_bytes))
        title = "Statistics of the data"
        with tqdm(total=n_steps, desc=title, unit="step", leave=False, mininterval=1, disable=not is_first()) as bar:
            for start in range(0, n_steps, size):
                rows = slice(start, min(start + size, n_steps))
                block = self._fitted_rows(rows)
                for key, values in block.items():
                    finite = torch.isfinite(values).flatten(1).all(dim=1)
                    if not finite.all():
                        where = step_and_episode(start + int(finite.int().argmin()), self.replay_buffer.episode_ends)
                        raise ValueError(f"{key!r} has NaN or infinite values, first at {where}: mend that episode")
                yield block
                bar.update(rows.stop - rows.start)

    def get_all_actions(self) -> Tensor:
        return torch.from_numpy(self.replay_buffer[self.action_key][:])


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
