"""Training of Behavior Transformers (Shafiullah et al. 2022) on low-dimensional observations."""

from typing import Any

from torch.optim.lr_scheduler import LRScheduler

from diffusion_policy.model.common.lr_scheduler import get_scheduler
from diffusion_policy.model.common.normalizer import LinearNormalizer, SingleFieldLinearNormalizer
from diffusion_policy.workspace.train_workspace import TrainWorkspace


class TrainBETLowdimWorkspace(TrainWorkspace):
    """Finds the bins of the actions before it trains. The learning rate is constant, whatever the config says of it.

    So it is in the original, whose checkpoints name the model `policy`: that is this workspace's model, too.
    """

    def make_lr_scheduler(self, n_updates: int) -> LRScheduler:
        return get_scheduler("constant", self.optimizer)

    def make_normalizer(self, dataset: Any) -> LinearNormalizer:
        if self.cfg.training.enable_normalizer:
            return super().make_normalizer(dataset)
        normalizer = LinearNormalizer()
        normalizer["obs"] = SingleFieldLinearNormalizer.create_identity()
        normalizer["action"] = SingleFieldLinearNormalizer.create_identity()
        return normalizer

    def fit_to_data(self, dataset: Any) -> None:
        actions = self.model.normalizer["action"].normalize(dataset.get_all_actions())
        self.model.fit_action_ae(actions)
