"""Encoder of several cameras and sensors with any torchvision-style backbone."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms import Resize

from diffusion_policy.common.shape_meta import ShapeMeta, naming_camera
from diffusion_policy.model.common.module_attr_mixin import ModuleAttrMixin
from diffusion_policy.model.vision.crop_randomizer import CropRandomizer
from diffusion_policy.model.vision.group_norm import batch_norm_to_group_norm

Size = Sequence[int] | Mapping[str, Sequence[int]] | None
SHARED = "rgb"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class MultiImageObsEncoder(ModuleAttrMixin):
    """Concatenates the features of every camera, by sorted key, and the values of every sensor, by sorted key.

    Args:
        shape_meta: the config's, with cameras of type `rgb` and sensors of type `low_dim`.
        rgb_model: backbone `(N, C, H, W)` to `(N, D)`; a mapping gives each camera its own.
        resize_shape: height and width that images are resized to; a mapping says it for each camera.
        crop_shape: height and width of the crops, after resizing; a mapping says it for each camera.
        random_crop: crop at random in training and the middle in evaluation. False does not crop at all, whatever
            `crop_shape` is.
        use_group_norm: in place of batch norm, unless the backbone is shared.
        share_rgb_model: one backbone for all cameras, which must then have one shape; else each has a copy.
        imagenet_norm: shift and scale images by ImageNet's mean and deviation.
        use_state_input: False leaves the sensors out.

    Raises:
        ValueError: naming the camera that something does not fit.
    """

    def __init__(
        self,
        shape_meta: Mapping[str, Any],
        rgb_model: nn.Module | Mapping[str, nn.Module],
        resize_shape: Size = None,
        crop_shape: Size = None,
        random_crop: bool = True,
        use_group_norm: bool = False,
        share_rgb_model: bool = False,
        imagenet_norm: bool = False,
        use_state_input: bool = True,
    ) -> None:
        super().__init__()
        meta = ShapeMeta.parse(shape_meta)
        self.obs_shapes = meta.obs
        self.rgb_keys = sorted(meta.rgb_keys)
        self.low_dim_keys = sorted(meta.low_dim_keys) if use_state_input else []
        self.share_rgb_model = share_rgb_model
        if not self.rgb_keys and not self.low_dim_keys:
            raise ValueError("nothing to encode: shape_meta has no camera and use_state_input is false")
        self.key_model_map = nn.ModuleDict()
        if share_rgb_model:
            if not isinstance(rgb_model, nn.Module):
                raise ValueError("share_rgb_model=True needs one rgb_model, not one for each camera")
            # As given: published checkpoints with a shared backbone keep its batch norm whatever use_group_norm is.
            self.key_model_map[SHARED] = rgb_model
        else:
            # In the order of the config, which is that of parameters in published optimizer states.
            for key in meta.rgb_keys:
                model = copy.deepcopy(_of_camera(rgb_model, key, "rgb_model"))
                self.key_model_map[key] = batch_norm_to_group_norm(model) if use_group_norm else model
        self.key_transform_map = nn.ModuleDict()
        for key in meta.rgb_keys:
            with naming_camera(key):
                self.key_transform_map[key] = _transform(
                    meta.obs[key],
                    _of_camera(resize_shape, key, "resize_shape"),
                    # No crop of the middle either: encoders published with random_crop=False saw the whole image.
                    _of_camera(crop_shape, key, "crop_shape") if random_crop else None,
                    imagenet_norm,
                )

    def forward(self, obs_dict: Mapping[str, Tensor]) -> Tensor:
        """Features `(N, Df)` of observations `(N, C, H, W)` and `(N, D)` by key."""
        obs = {key: self._checked(obs_dict, key) for key in (*self.rgb_keys, *self.low_dim_keys)}
        images = {key: self.key_transform_map[key](obs[key]) for key in self.rgb_keys}
        features = self._shared(images) if self.share_rgb_model else self._separate(images)
        return torch.cat([*features, *(obs[key] for key in self.low_dim_keys)], dim=-1)

    def output_shape(self) -> list[int]:
        """`[Df]`."""
        # A copy that evaluates, as training would move the statistics of batch norm. Its crops are random all the
        # same: like the original's they are drawn from the generator, which gives a seed the same run.
        encoder = copy.deepcopy(self).eval()
        encoder.key_transform_map.train(self.training)
        obs = {key: torch.zeros(1, *shape, device=self.device) for key, shape in self.obs_shapes.items()}
        with torch.no_grad():
            return list(encoder(obs).shape[1:])

    def _shared(self, images: Mapping[str, Tensor]) -> list[Tensor]:
        """Features `(N, D)` of each camera, in one pass."""
        if not images:
            return []
        shapes = {key: tuple(image.shape[1:]) for key, image in images.items()}
        if len(set(shapes.values())) > 1:
            raise ValueError(
                f"cameras that share a backbone must have one shape, got {shapes}: set resize_shape or crop_shape"
            )
        features = self.key_model_map[SHARED](torch.cat(list(images.values())))
        return list(features.chunk(len(images)))

    def _separate(self, images: Mapping[str, Tensor]) -> list[Tensor]:
        return [self.key_model_map[key](image) for key, image in images.items()]

    def _checked(self, obs_dict: Mapping[str, Tensor], key: str) -> Tensor:
        if key not in obs_dict:
            raise KeyError(f"the observation lacks {key!r}; it has {sorted(obs_dict)}")
        if tuple(obs_dict[key].shape[1:]) != self.obs_shapes[key]:
            raise ValueError(
                f"{key!r} has the shape {tuple(obs_dict[key].shape)}, expected (N, *{self.obs_shapes[key]})"
            )
        return obs_dict[key]


class _ImagenetNorm(nn.Module):
    """Images `(N, 3, H, W)` shifted and scaled; torchvision's waits for the GPU each time to check its constants."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, values in {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}.items():
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


def _of_camera(value: Any, key: str, name: str) -> Any:
    """What holds for camera `key`: the value itself, or its entry where there is one for each camera."""
    if not isinstance(value, Mapping):
        return value
    if key not in value:
        raise ValueError(f"{name} has no entry for camera {key!r}; it has {sorted(map(str, value))}")
    return value[key]


def _transform(
    image_shape: Sequence[int], resize_shape: Sequence[int] | None, crop_shape: Sequence[int] | None, norm: bool
) -> nn.Sequential:
    steps: list[nn.Module] = []
    shape = tuple(image_shape)
    if resize_shape is not None:
        shape = (shape[0], *resize_shape)
        # Without antialiasing, as torchvision did on tensors when the published checkpoints were trained.
        steps.append(Resize(tuple(resize_shape), antialias=False))
    if crop_shape is not None:
        height, width = crop_shape
        steps.append(CropRandomizer(shape, height, width))
    if norm:
        # On images that the policy has already scaled to [-1, 1]: so were the published checkpoints trained.
        steps.append(_ImagenetNorm())
    return nn.Sequential(*steps)
