"""robomimic's encoder of cameras and sensors, as its BC-RNN on images uses it (Mandlekar et al. 2021).

A ResNet-18, a spatial softmax over 32 keypoints and a linear layer make 64 features of each camera; sensors are
appended as they are, all in the order of `shape_meta.obs`.
"""

import contextlib
import copy
import io
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from diffusion_policy.common.shape_meta import ShapeMeta, naming_camera
from diffusion_policy.model.vision.crop_randomizer import CropRandomizer
from diffusion_policy.model.vision.group_norm import batch_norm_to_group_norm

VISUAL_CORE: dict[str, Any] = {
    "feature_dimension": 64,
    "flatten": True,
    "backbone_class": "ResNet18Conv",
    "backbone_kwargs": {"pretrained": False, "input_coord_conv": False},
    "pool_class": "SpatialSoftmax",
    "pool_kwargs": {
        "num_kp": 32,
        "learnable_temperature": False,
        "temperature": 1.0,
        "noise_std": 0.0,
        "output_variance": False,
    },
}


def make_robomimic_obs_encoder(
    shape_meta: ShapeMeta, crop_shape: Sequence[int] | None, group_norm: bool, eval_fixed_crop: bool
) -> nn.Module:
    """Builds the encoder: `{key: (N, ...)}` to `(N, Df)`.

    Args:
        shape_meta: cameras and sensors.
        crop_shape: height and width of the crops of each camera; None for whole images.
        group_norm: in place of batch norm.
        eval_fixed_crop: evaluate on the middle of the images, else on random crops too.

    Raises:
        ValueError: a crop does not fit a camera, which is named.
    """
    crops = make_crops(shape_meta, crop_shape, random_in_eval=not eval_fixed_crop)
    with quiet_robomimic():
        encoder = _library_encoder(shape_meta, crops)
    return batch_norm_to_group_norm(encoder) if group_norm else encoder


def make_crops(
    shape_meta: ShapeMeta, crop_shape: Sequence[int] | None, random_in_eval: bool
) -> dict[str, CropRandomizer]:
    """What crops each camera's images, by key; nothing if there is no shape of crops.

    Raises:
        ValueError: a crop does not fit a camera, which is named.
    """
    crops = {}
    if crop_shape is not None:
        height, width = crop_shape
        for key in shape_meta.rgb_keys:
            with naming_camera(key):
                crops[key] = CropRandomizer(shape_meta.obs[key], height, width, random_in_eval)
    return crops


@contextlib.contextmanager
def quiet_robomimic() -> Iterator[None]:
    """Hides what robomimic says of its macros, and torchvision of an argument of it: nothing a user can act on."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def tell_modalities(shape_meta: ShapeMeta) -> None:
    """Tells robomimic, which keeps it globally, which observations are images."""
    from robomimic.utils import obs_utils

    modalities = {"rgb": list(shape_meta.rgb_keys), "low_dim": list(shape_meta.low_dim_keys)}
    obs_utils.initialize_obs_modality_mapping_from_dict(modalities)


def _library_encoder(shape_meta: ShapeMeta, crops: dict[str, CropRandomizer]) -> nn.Module:
    from robomimic.models.obs_nets import ObservationEncoder

    tell_modalities(shape_meta)
    encoder = ObservationEncoder()
    for key, shape in shape_meta.obs.items():
        if key in shape_meta.rgb_keys:
            input_shape = crops[key].output_shape_in() if key in crops else list(shape)
            core = {**copy.deepcopy(VISUAL_CORE), "input_shape": input_shape}
            encoder.register_obs_key(key, shape, net_class="VisualCore", net_kwargs=core)
        else:
            encoder.register_obs_key(key, shape)
    encoder.make()
    # Put in afterwards, as the encoder takes randomizers of robomimic's own class only: its 0.3 crops the middle in
    # evaluation, where 0.2, with which policies without eval_fixed_crop were trained and scored, crops at random.
    encoder.obs_randomizers.update(crops)
    return encoder
