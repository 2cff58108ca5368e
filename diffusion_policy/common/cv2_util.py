"""Image sizes, and marks on images."""

from collections.abc import Callable
from math import ceil, floor

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Color = tuple[int, int, int]
Size = tuple[int, int]  # width, height (px)

WHITE: Color = (255, 255, 255)
BLACK: Color = (0, 0, 0)


def get_image_transform(
    input_res: Size = (1280, 720), output_res: Size = (640, 480), bgr_to_rgb: bool = False
) -> Callable[[Image], Image]:
    """A function that scales an image to cover `output_res`, then cuts out its middle.

    Args:
        input_res: width and height of the images it will get, `(H, W, 3)`.
        output_res: width and height of those it returns.
        bgr_to_rgb: reverse the order of the channels.
    """
    (in_width, in_height), (out_width, out_height) = input_res, output_res
    if in_width * out_height >= out_width * in_height:
        size = ceil(out_height / in_height * in_width), out_height
        enlarges = out_height > in_height
    else:
        size = out_width, ceil(out_width / in_width * in_height)
        enlarges = out_width > in_width
    interpolation = cv2.INTER_LINEAR if enlarges else cv2.INTER_AREA
    left, top = (size[0] - out_width) // 2, (size[1] - out_height) // 2

    def transform(img: Image) -> Image:
        if img.shape != (in_height, in_width, 3):
            raise ValueError(f"got an image of shape {img.shape}, expected {(in_height, in_width, 3)}")
        scaled = img if size == input_res else cv2.resize(img, size, interpolation=interpolation)
        middle = scaled[top : top + out_height, left : left + out_width]
        return np.asarray(cv2.cvtColor(middle, cv2.COLOR_BGR2RGB) if bgr_to_rgb else middle, np.uint8)

    return transform


def optimal_row_cols(
    n_cameras: int, in_wh_ratio: float, max_resolution: Size = (1920, 1080)
) -> tuple[int, int, int, int]:
    """Lays `n_cameras` images of width / height `in_wh_ratio` out in the grid that fills `max_resolution` best.

    Returns:
        width and height (px) of each image, columns and rows of the grid.
    """
    if n_cameras < 1:
        raise ValueError(f"n_cameras is {n_cameras}, expected at least 1")
    max_width, max_height = max_resolution
    max_ratio = max_width / max_height

    def columns(rows: int) -> int:
        return ceil(n_cameras / rows)

    def grid_ratio(rows: int) -> float:
        return in_wh_ratio * (columns(rows) / rows)

    rows = min(range(1, n_cameras + 1), key=lambda rows: abs(grid_ratio(rows) - max_ratio))
    if grid_ratio(rows) >= max_ratio:
        width = floor(max_width / columns(rows))
        height = floor(width / in_wh_ratio)
    else:
        height = floor(max_height / rows)
        width = floor(height * in_wh_ratio)
    return width, height, columns(rows), rows


def draw_reticle(img: Image, u: float, v: float, label_color: Color) -> None:
    """Draws a crosshair in `label_color`, edged in white, at column `u` and row `v` (px) of `img` `(H, W, 3)`."""
    center = round(u), round(v)
    for radius, color in ((10, label_color), (11, WHITE), (12, label_color)):
        cv2.circle(img, center, radius, color, 1)
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        start, end = [(center[0] + r * dx, center[1] + r * dy) for r in (3, 18)]
        cv2.line(img, start, end, WHITE, 3)
        cv2.line(img, start, end, label_color, 1)


def draw_text(
    img: Image,
    *,
    text: str,
    uv_top_left: tuple[float, float],
    color: Color = WHITE,
    fontScale: float = 0.5,
    thickness: int = 1,
    fontFace: int = cv2.FONT_HERSHEY_SIMPLEX,
    outline_color: Color | None = BLACK,
    line_spacing: float = 1.5,
) -> None:
    """Writes the lines of `text` onto `img` `(H, W, 3)`, down from `uv_top_left` (column and row, px).

    Args:
        outline_color: edge of the letters; None for none.
        line_spacing: from line to line, in heights of a line.
    """
    u, v = uv_top_left
    for line in text.splitlines():
        (_, height), _ = cv2.getTextSize(line or " ", fontFace, fontScale, thickness)
        origin = round(u), round(v + height)
        if outline_color is not None:
            cv2.putText(img, line, origin, fontFace, fontScale, outline_color, thickness * 3, cv2.LINE_AA)
        cv2.putText(img, line, origin, fontFace, fontScale, color, thickness, cv2.LINE_AA)
        v += height * line_spacing
