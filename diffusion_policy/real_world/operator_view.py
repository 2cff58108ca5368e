"""What the operator sees: one camera, and what is going on, in words."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from diffusion_policy.common.cv2_util import draw_text
from diffusion_policy.real_world.display import has_display, is_window_open

Image = NDArray[np.uint8]

TITLE = "Diffusion Policy"


class OperatorView:
    """A window; without a display nothing is shown, and nothing is closed.

    A context manager closes it.
    """

    def __init__(self) -> None:
        self._is_enabled = has_display()
        self._is_shown = self._was_closed = False

    @property
    def is_closed(self) -> bool:
        """Whether the operator has closed the window."""
        self._was_closed = self._was_closed or (self._is_shown and not is_window_open(TITLE))
        return self._was_closed

    def show(self, image: Image, lines: Sequence[str]) -> None:
        """Shows an image `(H, W, 3)` RGB with text on it."""
        if not self._is_enabled or self.is_closed:
            return
        cv2.imshow(TITLE, drawn(image, lines))
        cv2.pollKey()
        self._is_shown = True

    def __enter__(self) -> "OperatorView":
        return self

    def __exit__(self, exc_type: object, exc_val: object, exc_tb: object) -> None:
        if self._is_shown and not self.is_closed:
            cv2.destroyWindow(TITLE)
            cv2.pollKey()


def drawn(image: Image, lines: Sequence[str]) -> Image:
    """A copy of an image `(H, W, 3)` RGB as OpenCV shows it, BGR, with text in its corner."""
    canvas = np.ascontiguousarray(image[..., ::-1])
    scale = max(image.shape[0] / 720, 0.5)
    draw_text(canvas, text="\n".join(lines), uv_top_left=(10, 10), fontScale=scale, thickness=max(1, round(2 * scale)))
    return canvas
