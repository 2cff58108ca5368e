"""robomimic's BC-RNN-GMM (Mandlekar et al. 2021) on low-dimensional observations."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from diffusion_policy.common.shape_meta import ShapeMeta
from diffusion_policy.policy.base_lowdim_policy import BaseLowdimPolicy
from diffusion_policy.policy.base_robomimic_policy import BaseRobomimicPolicy


class RobomimicLowdimPolicy(BaseRobomimicPolicy, BaseLowdimPolicy):
    """A recurrent network on one vector.

    Args:
        action_dim: length Da of an action.
        obs_dim: length Do of an observation.
        task_name: not read: robomimic's settings are the same for all tasks.
        For the others see BaseRobomimicPolicy.
    """

    def __init__(
        self,
        action_dim: int,
        obs_dim: int,
        algo_name: str = "bc_rnn",
        obs_type: str = "low_dim",
        task_name: str = "square",
        dataset_type: str = "ph",
    ) -> None:
        shape_meta = ShapeMeta.parse({"obs": {"obs": {"shape": [obs_dim]}}, "action": {"shape": [action_dim]}})
        super().__init__(shape_meta, algo_name, obs_type, dataset_type)
        self.obs_dim = obs_dim

    def _observe(self, obs_dict: Mapping[str, Any], n_steps: int) -> dict[str, Tensor]:
        return {"obs": self._normalized(obs_dict, n_steps)}
