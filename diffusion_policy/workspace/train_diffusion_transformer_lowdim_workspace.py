"""Training of the transformer-based diffusion policy on low-dimensional observations."""

from typing import Any

from torch.optim import Optimizer

from diffusion_policy.workspace.train_workspace import TrainWorkspace


class TrainDiffusionTransformerLowdimWorkspace(TrainWorkspace):
    """The policy makes its own optimizer, in which not all parameters decay."""

    def make_optimizer(self) -> Optimizer:
        arguments: dict[Any, Any] = {**self.cfg.optimizer}
        return self.model.get_optimizer(**arguments)
