"""Behavior Transformers (Shafiullah et al. 2022) on low-dimensional observations."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_policy.common.draws import Generators
from diffusion_policy.model.bet.action_ae.discretizers.k_means import KMeansDiscretizer
from diffusion_policy.model.bet.latent_generators.mingpt import MinGPT
from diffusion_policy.model.common.normalizer import LinearNormalizer
from diffusion_policy.policy.base_lowdim_policy import BaseLowdimPolicy
from diffusion_policy.policy.base_policy import check_steps

UNSEEN = -2.0
"""What stands in the place of observations, normalised to [-1, 1], that are not made yet."""


class BETLowdimPolicy(BaseLowdimPolicy):
    """Draws for each step a bin of actions, and adds the offset that is predicted in it.

    Args:
        action_ae: bins of normalised actions; `fit_action_ae` finds them.
        obs_encoding_net: makes features `(B, T, Df)` of normalised observations `(B, T, Do)`.
        state_prior: predicts bins and offsets from the features.
        horizon: predicted steps T.
        n_action_steps: executed steps Ta, from the last observed one on.
        n_obs_steps: observed steps To.
    """

    def __init__(
        self,
        action_ae: KMeansDiscretizer,
        obs_encoding_net: nn.Module,
        state_prior: MinGPT,
        horizon: int,
        n_action_steps: int,
        n_obs_steps: int,
    ) -> None:
        check_steps(horizon, n_obs_steps, n_action_steps)
        super().__init__()
        self.normalizer = LinearNormalizer()
        self.action_ae = action_ae
        self.obs_encoding_net = obs_encoding_net
        self.state_prior = state_prior
        self.horizon = horizon
        self.n_action_steps = n_action_steps
        self.n_obs_steps = n_obs_steps

    def fit_action_ae(self, input_actions: Tensor) -> None:
        """Finds the bins of normalised actions `(N, Da)`, on the device where these are."""
        self.action_ae.fit_discretizer(input_actions)

    def get_optimizer(
        self, weight_decay: float, learning_rate: float, betas: tuple[float, float]
    ) -> torch.optim.Optimizer:
        """AdamW in which only the matrices of linear layers decay."""
        optimizer = self.state_prior.get_optimizer(weight_decay, learning_rate, betas)
        encoder = [parameter for parameter in self.obs_encoding_net.parameters() if parameter.requires_grad]
        if encoder:
            optimizer.add_param_group({"params": encoder, "weight_decay": weight_decay})
        return optimizer

    def compute_loss(self, batch: Mapping[str, Any]) -> Tensor:
        return self.compute_losses(batch)["loss"]

    def compute_losses(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Focal loss of the bins, `loss_class`, and weighted squared error of the offsets, `loss_offset`."""
        self._refuse_valid_mask(batch)
        latents = self.action_ae.encode_into_latent(self.normalizer["action"].normalize(batch["action"]))
        features = self._features(batch)
        _, loss, parts = self.state_prior.get_latent_and_loss(features, latents, return_loss_components=True)
        return {"loss": loss, **{f"loss_{name}": parts[name] for name in ("offset", "class") if name in parts}}

    @torch.no_grad()
    def predict_action(self, obs_dict: Mapping[str, Any], generator: Generators = None) -> dict[str, Tensor]:
        """Predicts actions from `obs` `(B, >= To, Do)`, of which the first To steps are used.

        Returns:
            `action` `(B, Ta, Da)` to execute and `action_pred` `(B, T, Da)`.
        """
        self._refuse_past_action(obs_dict)
        with self.inference_precision():
            latents = self.state_prior.generate_latents(self._features(obs_dict), generator)
        action_pred = self.normalizer["action"].unnormalize(self.action_ae.decode_actions(latents))
        start = self.n_obs_steps - 1
        return {"action": action_pred[:, start : start + self.n_action_steps], "action_pred": action_pred}

    def _features(self, obs_dict: Mapping[str, Any]) -> Tensor:
        """What is known of each step, `(B, T, Df)`: observations, as far as they are made."""
        obs = self._normalized(obs_dict, self.n_obs_steps)
        padded = F.pad(obs, (0, 0, 0, self.horizon - self.n_obs_steps), value=UNSEEN)
        features: Tensor = self.obs_encoding_net(padded)
        return features
