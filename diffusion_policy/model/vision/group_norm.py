"""Group norm in place of batch norm, whose running statistics a moving average of weights does not fit."""

from torch import nn

from diffusion_policy.common.pytorch_util import replace_submodules

CHANNELS_PER_GROUP = 16


def batch_norm_to_group_norm(module: nn.Module, n_groups: int | None = None) -> nn.Module:
    """Replaces every batch norm in `module` (Chi et al. 2023, section III.C); returns what to use in its place.

    Args:
        n_groups: of each norm; one for 16 channels if None.
    """

    def group_norm(norm: nn.Module) -> nn.Module:
        channels = int(norm.num_features)  # type: ignore[arg-type]
        return nn.GroupNorm(n_groups or channels // CHANNELS_PER_GROUP, channels)

    return replace_submodules(module, lambda m: isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d), group_norm)
