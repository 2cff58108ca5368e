"""Which entries of a trajectory `[action | obs]` are given when it is denoised by inpainting."""

import torch
from torch import Tensor

from diffusion_policy.model.common.module_attr_mixin import ModuleAttrMixin


class LowdimMaskGenerator(ModuleAttrMixin):
    """Marks the observations of the first steps, and on request the actions before the last of them.

    Args:
        action_dim: leading channels.
        obs_dim: trailing channels; 0 if observations condition the model otherwise.
        max_n_obs_steps: observed steps.
        fix_obs_steps: else each sample draws between 1 and `max_n_obs_steps` observed steps.
        action_visible: actions of the steps before the last observed one are known too.
    """

    def __init__(
        self,
        action_dim: int,
        obs_dim: int,
        max_n_obs_steps: int = 2,
        fix_obs_steps: bool = True,
        action_visible: bool = False,
    ) -> None:
        super().__init__()
        self.action_dim = action_dim
        self.obs_dim = obs_dim
        self.max_n_obs_steps = max_n_obs_steps
        self.fix_obs_steps = fix_obs_steps
        self.action_visible = action_visible

    @torch.no_grad()
    def forward(self, shape: tuple[int, int, int], seed: int | None = None) -> Tensor:
        """Mask `(B, T, Da + Do)` of booleans, true where the trajectory is given."""
        batch, horizon, dim = shape
        if dim != self.action_dim + self.obs_dim:
            raise ValueError(f"the trajectory has {dim} channels, expected {self.action_dim} + {self.obs_dim}")
        obs_steps = self._obs_steps(batch, seed)
        steps = torch.arange(horizon, device=self.device)
        is_obs = torch.arange(dim, device=self.device) >= self.action_dim
        mask = (steps < obs_steps[:, None])[:, :, None] & is_obs
        if self.action_visible:
            mask = mask | ((steps < obs_steps[:, None] - 1)[:, :, None] & ~is_obs)
        return mask

    def _obs_steps(self, batch: int, seed: int | None) -> Tensor:
        if self.fix_obs_steps:
            return torch.full((batch,), self.max_n_obs_steps, device=self.device)
        generator = None if seed is None else torch.Generator(self.device).manual_seed(seed)
        return torch.randint(1, self.max_n_obs_steps + 1, (batch,), generator=generator, device=self.device)
