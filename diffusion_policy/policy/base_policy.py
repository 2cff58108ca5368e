"""What every policy offers to the training loop, the runners, the robot and the server."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from diffusion_policy.common.draws import Generators
from diffusion_policy.model.common.module_attr_mixin import ModuleAttrMixin
from diffusion_policy.model.common.normalizer import LinearNormalizer


def as_obs_dict(obs: Any) -> Mapping[str, Any]:
    """A batch's observations as `predict_action` takes them: those on vectors have the one key `obs`."""
    return obs if isinstance(obs, Mapping) else {"obs": obs}


def check_steps(horizon: int, n_obs_steps: int, n_action_steps: int) -> None:
    """Refuses numbers of steps that do not fit each other.

    Raises:
        ValueError: saying which.
    """
    for name, value in {"horizon": horizon, "n_obs_steps": n_obs_steps, "n_action_steps": n_action_steps}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    needed = n_obs_steps + n_action_steps - 1
    if horizon < needed:
        raise ValueError(
            f"horizon={horizon} is shorter than n_obs_steps + n_action_steps - 1 = {needed}: the prediction "
            f"begins with the observed steps; set horizon to at least {needed}"
        )


class BasePolicy(ModuleAttrMixin, ABC):
    """A visuomotor policy with its normalizer inside.

    Attributes:
        inference_dtype: what networks compute in while predicting; `torch.bfloat16` is faster and less exact.
        memory: what it has kept of the episode so far. Put aside and given back, it lets one policy act in several
            episodes in turns; None at the start of one, and always of a stateless policy.
    """

    normalizer: LinearNormalizer
    inference_dtype: torch.dtype = torch.float32
    memory: Any = None

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

    def compute_losses(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Scalars to log of a batch, by name: the training loss as `loss`, and its parts where a method has any."""
        return {"loss": self.compute_loss(batch)}

    def warmup(self, batch_size: int = 1) -> None:
        """Does beforehand what the first prediction for a batch of this size would take its time for."""

    def reset(self) -> None:
        """Forgets the past at the start of an episode; nothing to do for a stateless policy."""

    def _refuse_past_action(self, obs_dict: Mapping[str, Any]) -> None:
        if "past_action" in obs_dict:
            raise ValueError(f"{type(self).__name__} takes no past_action: set past_action_visible=False")

    def _refuse_valid_mask(self, batch: Mapping[str, Any]) -> None:
        if "valid_mask" in batch:
            raise ValueError(f"the batch has a valid_mask, which {type(self).__name__} does not support")

    def inference_precision(self) -> torch.autocast:
        """Has networks compute in `inference_dtype` within a `with` block."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.inference_dtype == torch.bfloat16)

    def set_normalizer(self, normalizer: LinearNormalizer) -> None:
        """Takes over the scale and offset of every field."""
        self.normalizer.load_state_dict(normalizer.state_dict())
