"""Group norm in place of batch norm, whose running statistics a moving average of weights does not fit."""

import torch
from torch import Tensor, nn

from diffusion_policy.common.device import has_triton
from diffusion_policy.common.pytorch_util import replace_submodules

CHANNELS_PER_GROUP = 16


class GroupNorm(nn.GroupNorm):
    """torch's group norm, which on a GPU keeps the layout of images that are channels-last, and their dtype."""

    def forward(self, input: Tensor) -> Tensor:
        """Maps `(N, C, H, W)` to the same shape."""
        is_channels_last = input.ndim == 4 and input.is_contiguous(memory_format=torch.channels_last)
        if not (input.is_cuda and is_channels_last and has_triton()) or torch.compiler.is_compiling():
            return super().forward(input)
        from diffusion_policy.model.vision.group_norm_kernels import channels_last_group_norm

        return channels_last_group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


def batch_norm_to_group_norm(module: nn.Module, n_groups: int | None = None) -> nn.Module:
    """Replaces every batch norm in `module` (Chi et al. 2023, section III.C); returns what to use in its place.

    Args:
        n_groups: of each norm; one for 16 channels if None.
    """

    def group_norm(norm: nn.Module) -> nn.Module:
        channels = int(norm.num_features)  # type: ignore[arg-type]
        return GroupNorm(n_groups or channels // CHANNELS_PER_GROUP, channels)

    return replace_submodules(module, lambda m: isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d), group_norm)
