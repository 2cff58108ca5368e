"""PyAV, loaded after OpenCV.

Both bring libraries of X with them, some under the same name. OpenCV's windows hang with those of PyAV, so hers come
first: `from diffusion_policy.common.pyav import av`.
"""

import cv2  # noqa: F401 isort: skip
import av

__all__ = ["av"]
