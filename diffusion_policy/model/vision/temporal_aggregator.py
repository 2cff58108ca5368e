"""Encoder of a short history of sensors by convolutions over time."""

from collections.abc import Sequence

from torch import Tensor, nn

from diffusion_policy.model.diffusion.conv1d_components import Conv1dBlock


class TemporalAggregator(nn.Module):
    """Features `(B, D)` of a sequence `(B, To, in_channels)`: blocks of convolutions, then the mean over time.

    Args:
        in_channels: channels of the sequence.
        channel_mults: channels of each level, in units of `in_channels`.
        n_blocks_per_level: blocks of a level.
        kernel_size: of the convolutions over time; odd.
        n_groups: of the group norms; divides the channels of each level.
    """

    def __init__(
        self,
        in_channels: int,
        channel_mults: Sequence[int] = (1, 1),
        n_blocks_per_level: int = 1,
        kernel_size: int = 3,
        n_groups: int = 8,
    ) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        channels = in_channels
        for mult in channel_mults:
            if in_channels * mult % n_groups:
                raise ValueError(f"{n_groups} groups do not divide {in_channels * mult} channels: set ta_n_groups=1")
            for _ in range(n_blocks_per_level):
                blocks.append(Conv1dBlock(channels, in_channels * mult, kernel_size, n_groups))
                channels = in_channels * mult
        self.blocks = nn.Sequential(*blocks)
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x.transpose(1, 2)).mean(dim=-1)
