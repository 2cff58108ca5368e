"""What a robot observes as a policy was trained to see it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from diffusion_policy.common.cv2_util import get_image_transform
from diffusion_policy.common.shape_meta import ShapeMeta
from diffusion_policy.real_world.recorded_dataset import wanted_columns


def get_real_obs_dict(env_obs: Mapping[str, np.ndarray], shape_meta: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The observations of `shape_meta`: images `(To, C, H, W)` float32 in [0, 1], others `(To, D)`.

    Args:
        env_obs: of RealEnv, by key: images `(To, H, W, C)` of any size, bytes or floats in [0, 1], and poses `(To, 6)`.
            Images are scaled to cover the wanted size, of which the middle is taken; of a pose, where two numbers are
            wanted, x and y are.

    Raises:
        KeyError: the robot does not observe a key.
        ValueError: an observation has another shape.
    """
    wanted = ShapeMeta.parse(shape_meta)
    result = {}
    for key, shape in wanted.obs.items():
        if key not in env_obs:
            raise KeyError(f"the policy needs {key!r}, which the robot lacks; it has {sorted(env_obs)}")
        values = np.asarray(env_obs[key])
        if key in wanted.rgb_keys:
            result[key] = _images(key, values, *shape)
        else:
            values = values[..., wanted_columns(key, shape)]
            if values.shape[1:] != shape:
                raise ValueError(f"{key!r} has steps of shape {values.shape[1:]}, the policy needs {shape}")
            result[key] = values
    return result


def get_real_obs_resolution(shape_meta: Mapping[str, Any]) -> tuple[int, int]:
    """Width and height (px) of the images that a policy sees.

    Raises:
        ValueError: it sees none, or of several sizes.
    """
    wanted = ShapeMeta.parse(shape_meta)
    sizes = {key: wanted.obs[key][:0:-1] for key in wanted.rgb_keys}
    if len(set(sizes.values())) != 1:
        raise ValueError(f"expected cameras of one size (width, height) in shape_meta, got {sizes}")
    width, height = next(iter(sizes.values()))
    return width, height


def _images(key: str, images: np.ndarray, channels: int, height: int, width: int) -> np.ndarray:
    if images.ndim != 4 or images.shape[-1] != channels:
        raise ValueError(f"{key!r} has shape {images.shape}, expected images (To, H, W, {channels})")
    if images.shape[1:3] != (height, width):
        transform = get_image_transform(input_res=images.shape[2:0:-1], output_res=(width, height), bgr_to_rgb=False)
        images = np.stack([transform(image) for image in images])
    if images.dtype == np.uint8:
        images = images.astype(np.float32) / 255
    return np.ascontiguousarray(np.moveaxis(images, -1, 1), dtype=np.float32)
