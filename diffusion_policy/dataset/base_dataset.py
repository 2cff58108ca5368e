"""Datasets of sampled windows of demonstrations."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from diffusion_policy.common.pytorch_util import dict_apply
from diffusion_policy.common.sampler import SequenceSampler
from diffusion_policy.model.common.normalizer import LinearNormalizer


class BaseDataset(Dataset, ABC):
    """Windows of episodes as samples.

    A subclass builds `sampler` and says in `transform` how windows become samples; single samples and whole
    batches both come from that one definition. A batch can be made in two steps, `get_windows` where the data
    are and `transform` where the batch is wanted, so that images travel to the device as bytes.

    Attributes:
        sampler: gives the windows.
        first_steps: for some keys of the sampler, how many steps of a window are read (the others: all T).
    """

    sampler: SequenceSampler
    first_steps: Mapping[str, int] = MappingProxyType({})

    @abstractmethod
    def transform(self, windows: Mapping[str, Tensor]) -> dict[str, Any]:
        """Makes samples of windows, on whatever device these are.

        Args:
            windows: `(B, T, ...)` by key of the replay buffer, or fewer steps where `first_steps` says so.

        Returns:
            Tensors `(B, ...)`, by key or nested.
        """

    @abstractmethod
    def get_normalizer(self, **kwargs: Any) -> LinearNormalizer:
        """A normalizer fitted on all the data, those of validation included."""

    @abstractmethod
    def get_validation_dataset(self) -> Self:
        """The windows of the episodes that are not trained on."""

    @abstractmethod
    def get_all_actions(self) -> Tensor:
        """All actions of the data, `(N, Da)`."""

    def get_windows(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """The windows of the samples `indices`, `(B, T, ...)` by key, on the CPU and in the dtypes stored."""
        windows = self.sampler.sample_sequences(np.asarray(indices), self.first_steps)
        return {key: torch.from_numpy(value) for key, value in windows.items()}

    def get_batch(self, indices: Sequence[int]) -> dict[str, Any]:
        """The samples of `indices`, stacked."""
        return self.transform(self.get_windows(indices))

    def __len__(self) -> int:
        return len(self.sampler)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        return dict_apply(self.get_batch([range(len(self))[idx]]), lambda x: x[0])


class BaseLowdimDataset(BaseDataset):
    """Samples have `obs` `(T, Do)` and `action` `(T, Da)`."""


class BaseImageDataset(BaseDataset):
    """Samples have `obs`, a dict by camera and sensor, and `action` `(T, Da)`.

    Images are `(To, C, H, W)` float32 in [0, 1], other observations `(To, Do)`.
    """
