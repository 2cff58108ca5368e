"""What a page of requests is made of: images, sensors' values, and charts of actions."""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from diffusion_policy.serving.images import JPEG_START, decode_jpeg
from diffusion_policy.serving.limits import RequestError

MAX_SIDE = 320  # px, of images as they are shown
MAX_PIXELS = 1 << 25
WIDTH, HEIGHT, MARGIN = 320, 90, 6  # px, of charts
BEYOND = 0.05
"""Part of the training range by which a value may lie outside before it is marked."""

Range = tuple[Sequence[float], Sequence[float]] | None
"""Least and largest values in training of each dimension, where they are known."""


@dataclass
class Picture:
    """An image, if it is one, and what is said of it."""

    name: str
    caption: str
    uri: str | None = None


@dataclass
class Numbers:
    """Values of a sensor, which of them lie outside what they were in training, and what that was."""

    name: str
    values: list[float]
    is_outside: list[bool]
    training: str


@dataclass
class Chart:
    """One dimension of the actions: a line over the steps, and the training range as a band from y, so high."""

    name: str
    points: str
    band: tuple[float, float] | None
    caption: str


def received(name: str, array: np.ndarray) -> Iterator[Picture]:
    """Whatever a client has sent under a name."""
    if array.dtype == np.uint8 and array.ndim == 1 and array[:3].tobytes() == JPEG_START:
        try:
            image = decode_jpeg(array.tobytes(), MAX_PIXELS)
        except RequestError as error:
            yield Picture(name, str(error))
        else:
            yield picture(f"{name}, JPEG of {len(array)} bytes", image)
    elif array.ndim == 4 and len(array) <= 8:
        yield from (picture(f"{name}, step {i + 1} of {len(array)}", each) for i, each in enumerate(array))
    elif array.ndim == 3:
        yield picture(name, array)
    else:
        yield Picture(name, f"{array.shape} {array.dtype}")


def picture(name: str, image: np.ndarray) -> Picture:
    """An image `(H, W, C)` uint8 or `(C, H, W)` float32 in [0, 1]; of anything else shape and dtype."""
    described = f"{image.shape} {image.dtype}"
    if image.size > MAX_PIXELS * 3 or not np.isfinite(image).all():
        return Picture(name, described)
    caption = f"{described}, {image.min():.3g} to {image.max():.3g}, mean {image.mean():.3g}"
    if image.dtype == np.float32:
        image = np.moveaxis((255 * image.clip(0, 1)).round().astype(np.uint8), 0, -1)
    if image.dtype != np.uint8 or image.shape[2] not in (1, 3):
        return Picture(name, caption)
    shrink = min(MAX_SIDE / max(image.shape[:2]), 1)
    if shrink < 1:
        size = [max(round(n * shrink), 1) for n in image.shape[1::-1]]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], -1)
    _, png = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
    return Picture(name, caption, "data:image/png;base64," + base64.b64encode(png.tobytes()).decode())


def numbers(name: str, values: np.ndarray, training: Range) -> Numbers:
    """The values `(D,)` of a sensor."""
    if training is None or len(training[0]) != len(values):
        return Numbers(name, values.tolist(), [False] * len(values), "unknown")
    low, high = map(np.asarray, training)
    spare = BEYOND * (high - low)
    is_outside = (values < low - spare) | (values > high + spare)
    shown = ", ".join(f"{a:.4g} to {b:.4g}" for a, b in zip(low, high, strict=True))
    return Numbers(name, values.tolist(), is_outside.tolist(), shown)


def charts(actions: np.ndarray, training: Range) -> Iterator[Chart]:
    """A chart of each dimension of actions `(Ta, Da)`."""
    for dim, values in enumerate(actions.T):
        known = training is not None and len(training[0]) == actions.shape[1]
        limits = [training[0][dim], training[1][dim]] if training is not None and known else []
        low, high = min(values.min(), *limits), max(values.max(), *limits)
        y = HEIGHT - MARGIN - (np.array([*values, *limits]) - low) * (HEIGHT - 2 * MARGIN) / ((high - low) or 1)
        x = np.linspace(MARGIN, WIDTH - MARGIN, len(values))
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y[: len(values)], strict=True))
        caption = f"{values.min():.4g} to {values.max():.4g}"
        if limits:
            caption += f", in training {limits[0]:.4g} to {limits[1]:.4g}"
        yield Chart(f"dimension {dim}", points, (y[-1], y[-2] - y[-1]) if limits else None, caption)
