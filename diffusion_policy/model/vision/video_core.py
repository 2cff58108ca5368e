"""Encoder of clips over space and time: a residual network of 3-D convolutions (Tran et al. 2018, R3D)."""

from torch import Tensor, nn
from torchvision.models.video import resnet

from diffusion_policy.model.vision.group_norm import batch_norm_to_group_norm

LAYERS = {
    18: (resnet.BasicBlock, [2, 2, 2, 2]),
    34: (resnet.BasicBlock, [3, 4, 6, 3]),
    50: (resnet.Bottleneck, [3, 4, 6, 3]),
    101: (resnet.Bottleneck, [3, 4, 23, 3]),
}


class VideoResNet(resnet.VideoResNet):
    """torchvision's R3D with group norm and without its classifier.

    `(B, C, T, H, W)` to `(B, D, T/8, H/16, W/16)`, rounded up; D is 512, or 2048 from depth 50 on.

    Args:
        norm_groups: groups of each group norm.
        input_channel: C.
        model_depth: 18, 34, 50 or 101.
    """

    def __init__(self, norm_groups: int = 8, input_channel: int = 3, model_depth: int = 50) -> None:
        if model_depth not in LAYERS:
            raise ValueError(f"model_depth must be one of {sorted(LAYERS)}, got {model_depth}")
        block, layers = LAYERS[model_depth]

        def stem() -> nn.Module:
            basic = resnet.BasicStem()
            if input_channel != basic[0].in_channels:
                basic[0] = nn.Conv3d(input_channel, 64, (3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3), bias=False)
            return basic

        super().__init__(block, [resnet.Conv3DSimple] * 4, layers, stem, num_classes=1)
        del self.avgpool, self.fc
        batch_norm_to_group_norm(self, norm_groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))


class VideoCore(nn.Module):
    """Features `(B, D)` of a clip `(B, To, C, H, W)`.

    Args:
        backbone: `(B, C, To, H, W)` to `(B, D, ...)`.
        pool: reduces what remains of time and space, e.g. `AdaptiveAvgPool3d(1)`.
    """

    def __init__(self, backbone: nn.Module, pool: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.pool = pool

    def forward(self, clip: Tensor) -> Tensor:
        return self.pool(self.backbone(clip.transpose(1, 2))).flatten(1)
