"""Training of policies that see one step at a time and remember the episode."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from diffusion_policy.policy.base_policy import as_obs_dict
from diffusion_policy.workspace.train_workspace import TrainWorkspace


class RecurrentWorkspace(TrainWorkspace):
    """Judges sampling on whole windows, shown step by step."""

    def sampled_and_demonstrated(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        obs, n_steps = as_obs_dict(batch["obs"]), batch["action"].shape[1]
        self.policy.reset()
        steps = [{key: value[:, t : t + 1] for key, value in obs.items()} for t in range(n_steps)]
        actions = [self.policy.predict_action(step)["action"] for step in steps]
        self.policy.reset()
        return torch.cat(actions, dim=1), batch["action"]
