"""What every policy offers to the training loop, the runners, the robot and the server."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffusion_policy.model.common.module_attr_mixin import ModuleAttrMixin
from diffusion_policy.model.common.normalizer import LinearNormalizer

Generators = torch.Generator | Sequence[torch.Generator] | None
"""Source of randomness: the global generator (None), one for the batch, or one for each row of it."""


def as_obs_dict(obs: Any) -> Mapping[str, Any]:
    """A batch's observations as `predict_action` takes them: those on vectors have the one key `obs`."""
    return obs if isinstance(obs, Mapping) else {"obs": obs}


class BasePolicy(ModuleAttrMixin, ABC):
    """A visuomotor policy with its normalizer inside."""

    normalizer: LinearNormalizer

    @abstractmethod
    def predict_action(self, obs_dict: Mapping[str, Any], generator: Generators = None) -> dict[str, Tensor]:
        """Chooses actions.

        Args:
            obs_dict: observations `(B, To, ...)` by key, in the units of the dataset.
            generator: source of randomness; one for each row makes a row's action independent of the batch
                it is in.

        Returns:
            `action` `(B, Ta, Da)` to execute, and what else the method predicts.
        """

    @abstractmethod
    def compute_loss(self, batch: Mapping[str, Any]) -> Tensor:
        """Training loss, a scalar, of a batch as the dataset gives it."""

    def warmup(self, batch_size: int = 1) -> None:
        """Does beforehand what the first prediction for a batch of this size would take its time for."""

    def reset(self) -> None:
        """Forgets the past at the start of an episode; nothing to do for a stateless policy."""

    def set_normalizer(self, normalizer: LinearNormalizer) -> None:
        """Takes over the scale and offset of every field."""
        self.normalizer.load_state_dict(normalizer.state_dict())
