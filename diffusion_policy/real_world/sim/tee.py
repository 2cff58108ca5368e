"""The T-shaped block of the table, and where it should go. Lengths in m, angles in rad, in the robot's base frame."""

import math

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

UNIT = 0.05  # width of bar and stem
HEIGHT = 0.05

# A bar of 4 x 1 and below it a stem of 1 x 3, in units; then moved so that the origin is the centre of mass.
_BAR = np.array([(-2, -1), (2, -1), (2, 0), (-2, 0)], dtype=np.float64)
_STEM = np.array([(-0.5, -4), (0.5, -4), (0.5, -1), (-0.5, -1)], dtype=np.float64)
_OUTLINE = np.array([(-0.5, -4), (0.5, -4), (0.5, -1), (2, -1), (2, 0), (-2, 0), (-2, -1), (-0.5, -1)])
_CENTER = (4 * _BAR.mean(axis=0) + 3 * _STEM.mean(axis=0)) / 7

BAR: FloatArray = (_BAR - _CENTER) * UNIT
STEM: FloatArray = (_STEM - _CENTER) * UNIT
OUTLINE: FloatArray = (_OUTLINE - _CENTER) * UNIT  # (8, 2), counter-clockwise
AREA = 7 * UNIT**2


def placed(points: FloatArray, pose: ArrayLike) -> FloatArray:
    """`points` (N, 2) of the block's frame, for a block at `pose` (x, y, angle)."""
    x, y, angle = np.asarray(pose, np.float64).tolist()
    cos, sin = math.cos(angle), math.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]]) + (x, y)


def polygon(pose: ArrayLike) -> shapely.Polygon:
    """The block seen from above."""
    return shapely.Polygon(placed(OUTLINE, pose))


def coverage(pose: ArrayLike, goal: ArrayLike) -> float:
    """Part of the goal's area, 0 to 1, that a block at `pose` covers."""
    return float(shapely.intersection(polygon(pose), polygon(goal)).area / AREA)
