"""Implicit behavioural cloning with derivative-free optimisation (Florence et al. 2021), whatever is observed."""

from abc import abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_policy.common.draws import Generators, draw, draw_indices
from diffusion_policy.model.common.normalizer import LinearNormalizer
from diffusion_policy.policy.base_policy import BasePolicy, as_obs_dict, check_steps

HIDDEN_DIM = 1024
POSITIVE_NOISE = 1e-4
"""Standard deviation of what is added to normalised demonstrated actions in training."""
RESAMPLING_NOISE = 0.03
"""Standard deviation of what is added to normalised candidates when they are resampled."""


class BaseIbcPolicy(BasePolicy):
    """Learns how well actions go with observations, and searches among random ones for those that do.

    Args:
        obs_feature_dim: numbers that the observations of To steps make.
        action_dim: length Da of an action.
        horizon: steps T of the windows that are trained on.
        n_action_steps: executed steps Ta, from the last observed one on; they are chosen as one.
        n_obs_steps: observed steps To.
        dropout: of hidden features.
        train_n_neg: random actions that each demonstrated one is told from in training.
        pred_n_iter: times that the candidates are rated.
        pred_n_samples: candidates for an action.
        kevin_inference: candidates stay within the bounds of the data, and the best one is taken; else one is drawn.
        encoders: modules that make features of observations, by attribute; before the others in `parameters()`.
    """

    def __init__(
        self,
        obs_feature_dim: int,
        action_dim: int,
        horizon: int,
        n_action_steps: int,
        n_obs_steps: int,
        dropout: float,
        train_n_neg: int,
        pred_n_iter: int,
        pred_n_samples: int,
        kevin_inference: bool,
        encoders: Mapping[str, nn.Module] = MappingProxyType({}),
    ) -> None:
        check_steps(horizon, n_obs_steps, n_action_steps)
        counts = {"train_n_neg": train_n_neg, "pred_n_iter": pred_n_iter, "pred_n_samples": pred_n_samples}
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        super().__init__()
        for name, encoder in encoders.items():
            self.add_module(name, encoder)
        self.dense0 = nn.Linear(obs_feature_dim + n_action_steps * action_dim, HIDDEN_DIM)
        self.dense1 = nn.Linear(HIDDEN_DIM, HIDDEN_DIM)
        self.dense2 = nn.Linear(HIDDEN_DIM, HIDDEN_DIM)
        self.dense3 = nn.Linear(HIDDEN_DIM, HIDDEN_DIM)
        self.dense4 = nn.Linear(HIDDEN_DIM, 1)
        self.dropout = nn.Dropout(dropout)
        self.normalizer = LinearNormalizer()
        self.obs_feature_dim = obs_feature_dim
        self.action_dim = action_dim
        self.horizon = horizon
        self.n_action_steps = n_action_steps
        self.n_obs_steps = n_obs_steps
        self.train_n_neg = train_n_neg
        self.pred_n_iter = pred_n_iter
        self.pred_n_samples = pred_n_samples
        self.kevin_inference = kevin_inference

    @abstractmethod
    def _features(self, obs_dict: Mapping[str, Any]) -> Tensor:
        """Features `(B, To, Df)` of the first To steps of observations by key."""

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """How well candidates go with observations: logits, the negative of the paper's energy.

        Args:
            obs: normalised observations or features `(B, To, Df)`.
            action: normalised candidates `(B, N, Ta, Da)`.

        Returns:
            `(B, N)`.
        """
        obs, action = obs.flatten(1), action.flatten(2)
        # What tells candidates apart is too fine for half precision where it enters and where it leaves. Observations
        # are the same for all candidates, so their part of the first layer is computed once.
        with torch.autocast(obs.device.type, enabled=False):
            of_obs, of_action = self.dense0.weight.split((self.obs_feature_dim, action.shape[-1]), dim=1)
            hidden = F.linear(action.float(), of_action)
            hidden += F.linear(obs.float(), of_obs, self.dense0.bias)[:, None]
        if torch.is_autocast_enabled(obs.device.type):
            hidden = hidden.to(torch.get_autocast_dtype(obs.device.type))
        hidden = self.dropout(F.relu(hidden, inplace=True))
        for dense in (self.dense1, self.dense2, self.dense3):
            hidden = self.dropout(F.relu(dense(hidden), inplace=True))
        with torch.autocast(obs.device.type, enabled=False):
            logits: Tensor = self.dense4(hidden.float())
        return logits.squeeze(-1)

    def compute_loss(self, batch: Mapping[str, Any]) -> Tensor:
        """InfoNCE: cross-entropy of the demonstrated actions among random ones (Florence et al. 2021, equation 2)."""
        self._refuse_valid_mask(batch)
        features = self._features(as_obs_dict(batch["obs"]))
        start = self.n_obs_steps - 1
        action = self.normalizer["action"].normalize(batch["action"])[:, start : start + self.n_action_steps]
        positive = action + POSITIVE_NOISE * torch.randn_like(action)
        negative = self._random_candidates(len(action), self.train_n_neg)
        logits = self(features, torch.cat((positive[:, None], negative), dim=1))
        return F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.int64))

    @torch.no_grad()
    def predict_action(self, obs_dict: Mapping[str, Any], generator: Generators = None) -> dict[str, Tensor]:
        """Searches for actions given observations `(B, >= To, ...)` by key, of which the first To steps are used.

        Returns:
            `action` `(B, Ta, Da)` to execute.
        """
        self._refuse_past_action(obs_dict)
        with self.inference_precision():
            action = self._search(self._features(obs_dict), generator)
        return {"action": self.normalizer["action"].unnormalize(action)}

    def get_naction_stats(self) -> dict[str, Tensor]:
        """min, max, mean and std `(Da,)` of the normalised actions of the data."""
        stats: dict[str, Tensor] = self.normalizer["action"].get_output_stats()
        return stats

    def _search(self, features: Tensor, generator: Generators) -> Tensor:
        """Normalised actions `(B, Ta, Da)` by iterated resampling (Florence et al. 2021, algorithm 1).

        As in the original, the noise does not shrink from one iteration to the next.
        """
        samples = self._random_candidates(len(features), self.pred_n_samples, generator)
        stats = self.get_naction_stats()
        for _ in range(self.pred_n_iter if self.kevin_inference else self.pred_n_iter - 1):
            chosen = draw_indices(self(features, samples).softmax(dim=-1), self.pred_n_samples, generator)
            noise = draw(torch.randn, samples.shape, generator, samples.device)
            samples = _rows(samples, chosen) + RESAMPLING_NOISE * noise
            if self.kevin_inference:
                samples = samples.clamp(stats["min"], stats["max"])
        logits = self(features, samples)
        if self.kevin_inference:
            best = logits.argmax(dim=-1, keepdim=True)
        else:
            best = draw_indices(logits.softmax(dim=-1), 1, generator)
        return _rows(samples, best).squeeze(1)

    def _random_candidates(self, batch_size: int, n: int, generator: Generators = None) -> Tensor:
        """Candidates `(B, N, Ta, Da)`, uniform within the bounds of the normalised actions of the data."""
        stats = self.get_naction_stats()
        shape = (batch_size, n, self.n_action_steps, self.action_dim)
        return stats["min"] + (stats["max"] - stats["min"]) * draw(torch.rand, shape, generator, self.device)


def _rows(samples: Tensor, index: Tensor) -> Tensor:
    """Of samples `(B, N, Ta, Da)` those `(B, n, Ta, Da)` of an index `(B, n)`."""
    return samples.gather(1, index[..., None, None].expand(*index.shape, *samples.shape[2:]))
