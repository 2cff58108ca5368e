"""Crops of images: random ones to train on, the middle to evaluate on (Chi et al. 2023, section III.C)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.transforms.functional import center_crop

from diffusion_policy.common.draws import Generators, draw


class CropRandomizer(nn.Module):
    """Crops `(..., C, H, W)` to `(..., C, crop_height, crop_width)`, each image of the batch where chance wants.

    Args:
        input_shape: `(C, H, W)`.
        crop_height: height of the crop, at most H.
        crop_width: width of the crop, at most W.
        random_in_eval: crop at random in evaluation too, as robomimic 0.2 did.

    Attributes:
        generators: where random crops are drawn from; one for each image makes them independent of the others.
    """

    generators: Generators = None

    def __init__(
        self, input_shape: Sequence[int], crop_height: int, crop_width: int, random_in_eval: bool = False
    ) -> None:
        super().__init__()
        channels, height, width = input_shape
        if not (0 < crop_height <= height and 0 < crop_width <= width):
            raise ValueError(
                f"a crop of {crop_height} x {crop_width} does not fit an image of {height} x {width}: choose a "
                "smaller crop_shape (or null for none), or larger images"
            )
        self.input_shape = (channels, height, width)
        self.crop_height = crop_height
        self.crop_width = crop_width
        self.random_in_eval = random_in_eval

    def output_shape_in(self, input_shape: Sequence[int] | None = None) -> list[int]:
        """Shape of a crop; robomimic's encoders ask for it."""
        return [self.input_shape[0], self.crop_height, self.crop_width]

    def output_shape_out(self, input_shape: Sequence[int]) -> list[int]:
        """Shape of an image's features, which cropping leaves alone."""
        return list(input_shape)

    def forward_in(self, inputs: Tensor) -> Tensor:
        """The crops, on their way into an encoder."""
        if tuple(inputs.shape[-3:]) != self.input_shape:
            raise ValueError(f"got images {tuple(inputs.shape[-3:])}, expected {self.input_shape}")
        if self.training or self.random_in_eval:
            crops = sample_random_image_crops(inputs, self.crop_height, self.crop_width, self.generators)
        else:
            crops = center_crop(inputs, [self.crop_height, self.crop_width])
        if crops.is_cuda and crops.ndim == 4:  # the layout of its fast convolutions, which then pass it on
            crops = crops.contiguous(memory_format=torch.channels_last)
        return crops

    def forward_out(self, inputs: Tensor) -> Tensor:
        """Features on their way out of an encoder: as they are."""
        return inputs

    def forward(self, inputs: Tensor) -> Tensor:
        return self.forward_in(inputs)

    def extra_repr(self) -> str:
        return f"input_shape={self.input_shape}, crop_size=[{self.crop_height}, {self.crop_width}]"


def crop_image_from_indices(images: Tensor, crop_indices: Tensor, crop_height: int, crop_width: int) -> Tensor:
    """Crops each image at a place of its own, all in one gather on the images' device.

    Args:
        images: `(..., C, H, W)`.
        crop_indices: `(..., 2)` int64, top and left of each crop.

    Returns:
        `(..., C, crop_height, crop_width)`.
    """
    flat = images.flatten(end_dim=-4)
    top, left = crop_indices.flatten(end_dim=-2).unbind(-1)
    rows = top[:, None] + torch.arange(crop_height, device=images.device)
    columns = left[:, None] + torch.arange(crop_width, device=images.device)
    n = torch.arange(len(flat), device=images.device)[:, None, None, None]
    channels = torch.arange(flat.shape[1], device=images.device)[:, None, None]
    crops = flat[n, channels, rows[:, None, :, None], columns[:, None, None, :]]
    return crops.unflatten(0, images.shape[:-3])


def sample_random_image_crops(
    images: Tensor, crop_height: int, crop_width: int, generator: Generators = None
) -> Tensor:
    """A random crop of each image `(..., C, H, W)`, drawn from the generator of their device if there is no other."""
    height, width = images.shape[-2:]
    # The last offset is never drawn, and all rows are drawn before all columns: as in the original, so that a seed
    # gives the same crops.
    top, left = (
        (draw(torch.rand, images.shape[:-3], generator, images.device) * room).long()
        for room in (height - crop_height, width - crop_width)
    )
    return crop_image_from_indices(images, torch.stack((top, left), dim=-1), crop_height, crop_width)
