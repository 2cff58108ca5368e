"""Images of any size as a policy was trained to see them."""

import io
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from diffusion_policy.common.cv2_util import get_image_transform
from diffusion_policy.serving.limits import RequestError

JPEG_START = b"\xff\xd8\xff"


def decode_jpeg(data: bytes, max_pixels: int) -> np.ndarray:
    """The image `(H, W, 3)` uint8, red first. Its size is known, and bounded, before a pixel is decoded.

    Raises:
        RequestError: it is no JPEG, damaged or too large.
    """
    if not data.startswith(JPEG_START):
        raise RequestError(f"{len(data)} bytes that are no JPEG")
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as header:
            width, height = header.size
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise RequestError(f"a JPEG of {len(data)} bytes whose header is damaged") from None
    check_pixels((height, width), max_pixels)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None or pixels.shape[:2] != (height, width):
        raise RequestError(f"a JPEG of {len(data)} bytes that is damaged")
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def check_pixels(size: Sequence[int], max_pixels: int) -> None:
    """Refuses an image that is too large.

    Raises:
        RequestError: saying how large it may be.
    """
    height, width = size
    if height * width > max_pixels:
        raise RequestError(f"an image of {height} x {width}, more than {max_pixels} pixels: send it smaller")


def as_trained(image: np.ndarray, shape: tuple[int, ...], max_pixels: int) -> np.ndarray:
    """What of an image `(H, W, C)` uint8 a policy sees: its middle, of `shape` `(C, h, w)`, uint8 still.

    It is resized, keeping its proportions, to cover the height and width that the policy wants, and cut to them.

    Raises:
        RequestError: it has other channels, or is too narrow to be resized in bounded memory.
    """
    channels, height, width = shape
    given_height, given_width, given_channels = image.shape
    check_pixels((given_height, given_width), max_pixels)
    if given_channels != channels:
        raise RequestError(f"an image of shape {image.shape}, expected (H, W, {channels})")
    if (given_height, given_width) != (height, width):
        if channels != 3:
            raise RequestError(f"an image of shape {image.shape}, expected {(height, width, channels)}: not resized")
        scale = max(height / given_height, width / given_width)
        check_pixels((round(given_height * scale), round(given_width * scale)), max_pixels)
        image = get_image_transform((given_width, given_height), (width, height))(image)
    return np.stack(cv2.split(image))


def unit_scaled(values: np.ndarray) -> np.ndarray:
    """Images of bytes as float32 in [0, 1]; others as they are."""
    return values.astype(np.float32) / 255 if values.dtype == np.uint8 else values
