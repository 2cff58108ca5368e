"""robomimic's BC-RNN-GMM (Mandlekar et al. 2021, section 4), whatever is observed."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_policy.common.draws import Generators
from diffusion_policy.common.shape_meta import ShapeMeta
from diffusion_policy.model.common.normalizer import LinearNormalizer
from diffusion_policy.model.common.rnn_gmm import RNN_HORIZON, State, make_rnn_gmm, predict_mixture
from diffusion_policy.policy.base_policy import BasePolicy, as_obs_dict

HUMAN_DATASETS = ("ph", "mh", "paired")


class BaseRobomimicPolicy(BasePolicy):
    """A recurrent network that sees one step at a time and draws one action of a mixture of Gaussians.

    What it remembers, of each row of a batch, goes with `reset()`, and every 10 steps.

    Args:
        shape_meta: cameras, sensors and action.
        algo_name: "bc_rnn".
        obs_type: "low_dim" or "image", on which the size of the network depends.
        dataset_type: "ph", "mh" or "paired": demonstrations of people, for which the settings are those of the paper.
        crop_shape: height and width of the crops of each camera; None for whole images.
    """

    def __init__(
        self,
        shape_meta: ShapeMeta,
        algo_name: str,
        obs_type: str,
        dataset_type: str,
        crop_shape: Sequence[int] | None = None,
    ) -> None:
        if algo_name != "bc_rnn":
            raise ValueError(f"algo_name must be bc_rnn, the only algorithm of robomimic that is here, got {algo_name}")
        if dataset_type not in HUMAN_DATASETS:
            raise ValueError(f"dataset_type must be one of {', '.join(HUMAN_DATASETS)}, got {dataset_type}")
        super().__init__()
        self.nets = nn.ModuleDict({"policy": make_rnn_gmm(shape_meta, obs_type, crop_shape)})
        self.normalizer = LinearNormalizer()
        self.memory: tuple[State, int] | None = None  # with the number of steps seen

    @abstractmethod
    def _observe(self, obs_dict: Mapping[str, Any], n_steps: int) -> dict[str, Tensor]:
        """The first steps `(B, n_steps, ...)` of observations by key, checked and normalised."""

    def get_optimizer(self, learning_rate: float = 1e-4, weight_decay: float = 0.0) -> torch.optim.Optimizer:
        """Adam, with the paper's learning rate."""
        return torch.optim.Adam(self.nets.parameters(), lr=learning_rate, weight_decay=weight_decay)

    def reset(self) -> None:
        """Forgets the episode."""
        self.memory = None

    def compute_loss(self, batch: Mapping[str, Any]) -> Tensor:
        """Negative log-likelihood of the actions.

        In evaluation mode of the narrow mixture that actions are drawn from, as in the original: a large number.
        """
        self._refuse_valid_mask(batch)
        action = self.normalizer["action"].normalize(batch["action"])
        mixture, _ = predict_mixture(self.nets["policy"], self._observe(as_obs_dict(batch["obs"]), action.shape[1]))
        return -mixture.log_prob(action).mean()

    @torch.no_grad()
    def predict_action(self, obs_dict: Mapping[str, Any], generator: Generators = None) -> dict[str, Tensor]:
        """Draws an action given observations `(B, 1, ...)` by key and what is remembered of those before.

        Returns:
            `action` `(B, 1, Da)` to execute.
        """
        self._refuse_past_action(obs_dict)
        obs = self._observe(obs_dict, 1)
        if any(obs_dict[key].shape[1] != 1 for key in obs):
            steps = ", ".join(f"{key}: {obs_dict[key].shape[1]}" for key in obs)
            raise ValueError(f"{type(self).__name__} sees one step at a time, got {steps}; set n_obs_steps=1")
        batch_size = len(next(iter(obs.values())))
        state, n_seen = self.memory or (None, 0)
        if n_seen % RNN_HORIZON == 0:
            state = None
        if state is not None and state[0].shape[1] != batch_size:
            raise ValueError(
                f"got observations of {batch_size} episodes after those of {state[0].shape[1]}: call reset() "
                "when other episodes start"
            )
        with self.inference_precision():
            mixture, state = predict_mixture(self.nets["policy"], obs, state)
        self.memory = (state, n_seen + 1)
        return {"action": self.normalizer["action"].unnormalize(mixture.sample(generator))}
