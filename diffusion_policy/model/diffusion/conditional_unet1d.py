"""Temporal U-Net with FiLM conditioning: the CNN-based denoiser of Diffusion Policy.

Chi et al. 2023, section IV.A ("CNN-based Diffusion Policy"); the U-Net is that of Janner et al. 2022.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_policy.common.device import has_triton
from diffusion_policy.model.common.transient_dict import TransientDict
from diffusion_policy.model.diffusion.conv1d_components import Conv1dBlock, Downsample1d, Upsample1d
from diffusion_policy.model.diffusion.positional_embedding import SinusoidalPosEmb
from diffusion_policy.model.diffusion.unet_ops import TorchOps, UnetOps, cast_weights
from diffusion_policy.model.diffusion.unet_sampler import UnetSampler


class ConditionalResidualBlock1D(nn.Module):
    """Two convolution blocks with a residual path, modulated between them by a condition (FiLM).

    Perez et al. 2018, equation 1. With `cond_predict_scale` the condition predicts a scale and a bias per
    channel (`scale * x + bias`), else only a bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        cond_dim: int,
        kernel_size: int = 3,
        n_groups: int = 8,
        cond_predict_scale: bool = False,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            [
                Conv1dBlock(in_channels, out_channels, kernel_size, n_groups),
                Conv1dBlock(out_channels, out_channels, kernel_size, n_groups),
            ]
        )
        self.cond_predict_scale = cond_predict_scale
        film_dim = out_channels * 2 if cond_predict_scale else out_channels
        self.cond_encoder = nn.Sequential(nn.Mish(), nn.Linear(cond_dim, film_dim), nn.Unflatten(-1, (-1, 1)))
        self.residual_conv: nn.Module = (
            nn.Conv1d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()
        )

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """Maps `(B, Cin, T)` and `(B, cond_dim)` to `(B, Cout, T)`."""
        out = self.blocks[0](x)
        film = self.cond_encoder(cond)
        if self.cond_predict_scale:
            scale, bias = film.chunk(2, dim=1)
            out = scale * out + bias
        else:
            out = out + film
        return self.blocks[1](out) + self.residual_conv(x)


class ConditionalUnet1D(nn.Module):
    """Predicts the noise (or the clean sample) of an action sequence.

    Args:
        input_dim: channels of the sequence, `Da` or `Da + Do`.
        local_cond_dim: channels of a condition given for each step, None for none.
        global_cond_dim: length of one condition for the whole sequence, None for none.
        diffusion_step_embed_dim: length of the embedding of the diffusion step.
        down_dims: channels of each level; the time axis is halved between levels.
        kernel_size: of the convolutions over time; odd.
        n_groups: of the group norms.
        cond_predict_scale: FiLM with scale and bias instead of bias alone.
    """

    def __init__(
        self,
        input_dim: int,
        local_cond_dim: int | None = None,
        global_cond_dim: int | None = None,
        diffusion_step_embed_dim: int = 256,
        down_dims: Sequence[int] = (256, 512, 1024),
        kernel_size: int = 3,
        n_groups: int = 8,
        cond_predict_scale: bool = False,
    ) -> None:
        super().__init__()
        dims = [input_dim, *down_dims]
        levels = list(pairwise(dims))
        embed_dim = diffusion_step_embed_dim
        cond_dim = embed_dim + (global_cond_dim or 0)

        def resnet(in_channels: int, out_channels: int) -> ConditionalResidualBlock1D:
            return ConditionalResidualBlock1D(
                in_channels, out_channels, cond_dim, kernel_size, n_groups, cond_predict_scale
            )

        # The order of construction fixes the initial weights of a seed, the order of assignment fixes the
        # order of parameters in optimizer states. Both are those of published checkpoints, hence differ.
        step_encoder = nn.Sequential(
            SinusoidalPosEmb(embed_dim),
            nn.Linear(embed_dim, embed_dim * 4),
            nn.Mish(),
            nn.Linear(embed_dim * 4, embed_dim),
        )
        local_encoder = None
        if local_cond_dim is not None:
            first_dim = down_dims[0]
            local_encoder = nn.ModuleList([resnet(local_cond_dim, first_dim), resnet(local_cond_dim, first_dim)])
        self.mid_modules = nn.ModuleList([resnet(dims[-1], dims[-1]), resnet(dims[-1], dims[-1])])
        down_modules = nn.ModuleList()
        for level, (dim_in, dim_out) in enumerate(levels, start=1):
            resnets = [resnet(dim_in, dim_out), resnet(dim_out, dim_out)]
            sampling = Downsample1d(dim_out) if level < len(levels) else nn.Identity()
            down_modules.append(nn.ModuleList([*resnets, sampling]))
        up_modules = nn.ModuleList()
        for dim_in, dim_out in reversed(levels[1:]):
            up_modules.append(nn.ModuleList([resnet(dim_out * 2, dim_in), resnet(dim_in, dim_in), Upsample1d(dim_in)]))
        # The last group norm has 8 groups whatever n_groups is: published checkpoints were trained so.
        final_conv = nn.Sequential(
            Conv1dBlock(down_dims[0], down_dims[0], kernel_size), nn.Conv1d(down_dims[0], input_dim, 1)
        )
        self.diffusion_step_encoder = step_encoder
        self.local_cond_encoder = local_encoder
        self.up_modules = up_modules
        self.down_modules = down_modules
        self.final_conv = final_conv
        self.weight_layouts = TransientDict()  # of its samplers

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        local_cond: Tensor | None = None,
        global_cond: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Denoises one step.

        Args:
            sample: `(B, T, input_dim)`; T divisible by `2 ** (len(down_dims) - 1)`.
            timestep: diffusion step, a number or `(B,)`.
            local_cond: `(B, T, local_cond_dim)`.
            global_cond: `(B, global_cond_dim)`.

        Returns:
            Prediction `(B, T, input_dim)`.
        """
        self._check_length(sample.shape[1])
        film = F.linear(F.mish(self._condition(sample, timestep, global_cond)), *self.film_weights())
        return self.denoise(training_ops(self, sample), sample, film, local_cond)

    def film_weights(self) -> tuple[Tensor, Tensor]:
        """Weight `(N, cond_dim)` and bias `(N,)` that make the FiLM of all residual blocks, in order of use."""
        layers = self._film_layers()
        return torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])

    def _film_layers(self) -> list[nn.Linear]:
        return [cast(Any, block).cond_encoder[1] for block in self._residual_blocks()]

    def denoise(self, ops: UnetOps, sample: Tensor, film: Tensor, local_cond: Tensor | None = None) -> Tensor:
        """What `forward` does once FiLM is known.

        Args:
            ops: how the layers are computed.
            sample: as for `forward`.
            film: `(B, N)` what the `film_weights` made of the condition.
            local_cond: as for `forward`.
        """
        self._check_length(sample.shape[1])
        sizes = [layer.out_features for layer in self._film_layers()]
        films = dict(zip(self._residual_blocks(), film.split(sizes, dim=-1), strict=True))

        def residual_block(block: Any, x: Any) -> Tensor:
            first, second = block.blocks
            out = ops.block(first, x, film=films[block])
            projection = block.residual_conv
            residual = x if isinstance(projection, nn.Identity) else ops.conv(projection, x)
            return ops.block(second, out, residual=residual)

        x: Any = sample
        skips: list[Tensor] = []
        for level, modules in enumerate(self.down_modules):
            resnet, resnet2, downsample = cast(nn.ModuleList, modules)
            x = residual_block(resnet, x)
            if level == 0 and local_cond is not None and self.local_cond_encoder is not None:
                # The second local encoder has weights but was never used in training by the original, whose
                # checkpoints would change their output if its features were added on the way up.
                x = x + residual_block(self.local_cond_encoder[0], local_cond)
            x = residual_block(resnet2, x)
            skips.append(x)
            if not isinstance(downsample, nn.Identity):
                x = ops.conv(cast(Downsample1d, downsample).conv, x)
        for resnet in self.mid_modules:
            x = residual_block(resnet, x)
        for modules in self.up_modules:
            resnet, resnet2, upsample = cast(nn.ModuleList, modules)
            x = residual_block(resnet2, residual_block(resnet, ops.join(x, skips.pop())))
            if not isinstance(upsample, nn.Identity):
                x = ops.upsample(cast(Upsample1d, upsample).conv, x)
        block, projection = cast(Any, self.final_conv)
        return ops.conv(projection, ops.block(block, x)).to(sample.dtype)

    def sampler(
        self, timesteps: Sequence[int], batch_size: int, horizon: int, dtype: torch.dtype = torch.float32
    ) -> UnetSampler:
        """The network made ready to denoise at these diffusion steps; see `UnetSampler`."""
        return UnetSampler(self, timesteps, batch_size, horizon, dtype)

    def _residual_blocks(self) -> Iterator[nn.Module]:
        """In the order in which `denoise` uses them."""
        for level, modules in enumerate(self.down_modules):
            resnet, resnet2, _ = cast(nn.ModuleList, modules)
            yield resnet
            if level == 0 and self.local_cond_encoder is not None:
                yield self.local_cond_encoder[0]
            yield resnet2
        yield from self.mid_modules
        for modules in self.up_modules:
            yield from list(cast(nn.ModuleList, modules))[:2]

    def _condition(self, sample: Tensor, timestep: Tensor | float, global_cond: Tensor | None) -> Tensor:
        steps = torch.as_tensor(timestep, device=sample.device).expand(sample.shape[0])
        cond = self.diffusion_step_encoder(steps)
        return cond if global_cond is None else torch.cat((cond, global_cond), dim=-1)

    def _check_length(self, length: int) -> None:
        factor = 2 ** (len(self.down_modules) - 1)
        if length % factor:
            raise ValueError(
                f"the sequence has {length} steps; a U-Net of {len(self.down_modules)} levels needs a multiple of "
                f"{factor}: change horizon or the number of down_dims"
            )


def training_ops(unet: nn.Module, x: Tensor) -> UnetOps:
    """The fastest operations there are for gradients on the device of `x`."""
    if x.is_cuda and has_triton() and not torch.compiler.is_compiling():
        from diffusion_policy.model.diffusion.unet_cuda_ops import CudaOps

        dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
        return CudaOps(dtype, cast_weights(unet, dtype))
    return TorchOps()
