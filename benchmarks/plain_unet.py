"""The U-Net computed the plain way: its modules one after the other, channels first, with torch's convolutions.

Benchmarks and tests hold the fast way against it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from diffusion_policy.model.diffusion.conditional_unet1d import ConditionalUnet1D


class PlainUnet(nn.Module):
    """Shares the modules of a `ConditionalUnet1D`, and is called like it."""

    def __init__(self, unet: ConditionalUnet1D) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        local_cond: Tensor | None = None,
        global_cond: Tensor | None = None,
    ) -> Tensor:
        unet: Any = self.unet
        steps = torch.as_tensor(timestep, device=sample.device).expand(len(sample))
        cond = unet.diffusion_step_encoder(steps)
        if global_cond is not None:
            cond = torch.cat((cond, global_cond), dim=-1)
        x = sample.transpose(1, 2)
        skips = []
        for level, (resnet, resnet2, downsample) in enumerate(unet.down_modules):
            x = resnet(x, cond)
            if level == 0 and local_cond is not None:
                x = x + unet.local_cond_encoder[0](local_cond.transpose(1, 2), cond)
            x = resnet2(x, cond)
            skips.append(x)
            x = downsample(x)
        for resnet in unet.mid_modules:
            x = resnet(x, cond)
        for resnet, resnet2, upsample in unet.up_modules:
            x = torch.cat((x, skips.pop()), dim=1)
            x = upsample(resnet2(resnet(x, cond), cond))
        return unet.final_conv(x).transpose(1, 2)
