"""Pictures of the Push-T table, as cameras beside it see it."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray

from diffusion_policy.real_world.cameras.frame_source import Intrinsics
from diffusion_policy.real_world.sim import tee
from diffusion_policy.real_world.sim.pusht_world import TOOL_RADIUS, WORKSPACE

FloatArray = NDArray[np.float64]
Image = NDArray[np.uint8]
Color = tuple[int, int, int]  # blue, green, red

TABLE: FloatArray = np.array([(0.05, -0.75), (1.05, -0.75), (1.05, 0.70), (0.05, 0.70)])
FLOOR_COLOR: Color = (92, 84, 78)
TABLE_COLOR: Color = (214, 218, 220)
WORKSPACE_COLOR: Color = (196, 201, 203)
GOAL_COLOR: Color = (96, 186, 96)
BLOCK_COLOR: Color = (186, 122, 84)
TOOL_COLOR: Color = (70, 70, 206)
ARM_COLOR: Color = (168, 162, 158)
_SUBPIXEL = 4  # bits
_SHOULDER = np.array([0.0, 0.0, 0.24])
_UPPER_ARM, _FOREARM = 0.425, 0.392  # m, of a UR5
_TOOL_LENGTH = 0.13  # m
_CIRCLE = np.array([(math.cos(a), math.sin(a)) for a in np.linspace(0, 2 * math.pi, 12, endpoint=False)])


@dataclass(frozen=True)
class PinholeCamera:
    """A camera at `position` that looks at `target` (m, in the robot's base frame).

    Args:
        field_of_view: horizontal (degrees).
    """

    position: tuple[float, float, float]
    target: tuple[float, float, float]
    field_of_view: float = 66.0

    def intrinsics(self, resolution: tuple[int, int]) -> Intrinsics:
        """For images of that width and height (px)."""
        width, height = resolution
        f = width / 2 / math.tan(math.radians(self.field_of_view) / 2)
        return Intrinsics(f, f, width / 2, height / 2)

    def rotation(self) -> FloatArray:
        """(3, 3): its rows are the camera's right, down and ahead in the base frame."""
        ahead = np.subtract(self.target, self.position)
        ahead /= np.linalg.norm(ahead)
        right = np.cross(ahead, (0, 0, 1))
        right /= np.linalg.norm(right)
        return np.stack([right, np.cross(ahead, right), ahead])


LEFT = PinholeCamera((1.06, 0.52, 0.62), (0.51, 0.0, 0.0))
RIGHT = PinholeCamera((1.06, -0.56, 0.62), (0.51, -0.04, 0.0))
FRONT = PinholeCamera((1.25, -0.02, 0.55), (0.50, -0.02, 0.0))
TOP = PinholeCamera((0.66, -0.02, 1.15), (0.51, -0.02, 0.0))
VIEWS = (LEFT, RIGHT, FRONT, TOP)


class SceneRenderer:
    """Draws the scene for one camera.

    Args:
        camera: where it stands.
        resolution: width and height (px).
        goal: x, y, angle where the block should go.
    """

    def __init__(self, camera: PinholeCamera, resolution: tuple[int, int], goal: ArrayLike) -> None:
        model = camera.intrinsics(resolution)
        self._rotation = camera.rotation()
        self._position = np.array(camera.position)
        self._matrix = model.matrix() @ self._rotation
        self._width, self._height = resolution
        self._background = self._draw_background(np.asarray(goal, np.float64))
        self._focal_length = model.fx

    def project(self, points: FloatArray) -> FloatArray:
        """Pixels (N, 2) of `points` (N, 3) of the base frame (m)."""
        homogeneous = (points - self._position) @ self._matrix.T
        return homogeneous[:, :2] / np.maximum(homogeneous[:, 2:], 1e-3)

    def render(self, tool_pose: ArrayLike, block_pose: ArrayLike) -> Image:
        """Image (H, W, 3) uint8 BGR with the tool's tip at `tool_pose` (6,) and the block at `block_pose` (3,)."""
        tip = np.asarray(tool_pose, np.float64)[:3]
        block = np.asarray(block_pose, np.float64)
        image = self._background.copy()
        parts = [lambda: self._draw_block(image, block), lambda: self._draw_tool(image, tip)]
        if self._is_behind(tip, block):
            parts.reverse()
        for draw in parts:
            draw()
        self._draw_arm(image, tip)
        return image

    def _is_behind(self, tip: FloatArray, block: FloatArray) -> bool:
        """Whether the block is between the camera and the tool."""
        return tee.polygon(block).intersects(shapely.LineString([self._position[:2], tip[:2]]))

    def _draw_background(self, goal: FloatArray) -> Image:
        image = np.full((self._height, self._width, 3), FLOOR_COLOR, np.uint8)
        self._fill(image, _raised(TABLE, 0), TABLE_COLOR)
        (x0, x1), (y0, y1) = WORKSPACE
        self._fill(image, _raised(np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]), 0), WORKSPACE_COLOR)
        self._fill(image, _raised(tee.placed(tee.OUTLINE, goal), 0), GOAL_COLOR)
        return image

    def _fill(self, image: Image, points: FloatArray, color: Color) -> None:
        pixels = np.rint(self.project(points) * (1 << _SUBPIXEL)).astype(np.int32)
        cv2.fillPoly(image, [pixels], color, lineType=cv2.LINE_8, shift=_SUBPIXEL)

    def _draw_block(self, image: Image, pose: FloatArray) -> None:
        corners = tee.placed(tee.OUTLINE, pose)
        sides = []
        for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            dx, dy = end - start
            outwards, middle = np.array([dy, -dx]), (start + end) / 2
            if outwards @ (self._position[:2] - middle) > 0:
                distance = float(np.linalg.norm(self._position[:2] - middle))
                brightness = 0.62 + 0.18 * float(outwards @ (0.8, 0.6)) / math.hypot(dx, dy)
                sides.append((distance, np.stack([start, end]), brightness))
        for _, side, brightness in sorted(sides, key=lambda side: -side[0]):
            quad = np.concatenate([_raised(side, 0), _raised(side[::-1], tee.HEIGHT)])
            self._fill(image, quad, _shade(BLOCK_COLOR, brightness))
        self._fill(image, _raised(corners, tee.HEIGHT), BLOCK_COLOR)

    def _draw_tool(self, image: Image, tip: FloatArray) -> None:
        ring = tip[:2] + TOOL_RADIUS * _CIRCLE
        bottom, top = _raised(ring, tip[2]), _raised(ring, tip[2] + _TOOL_LENGTH)
        silhouette = cv2.convexHull(self.project(np.concatenate([bottom, top])).astype(np.float32))
        pixels = np.rint(silhouette * (1 << _SUBPIXEL)).astype(np.int32)
        cv2.fillConvexPoly(image, pixels, TOOL_COLOR, lineType=cv2.LINE_8, shift=_SUBPIXEL)

    def _draw_arm(self, image: Image, tip: FloatArray) -> None:
        """Two links from the shoulder to the wrist above the tool, elbow up."""
        wrist = tip + np.array([0, 0, _TOOL_LENGTH])
        elbow = _elbow(wrist)
        joints = np.stack([_SHOULDER * (1, 1, 0), _SHOULDER, elbow, wrist])
        depths = (joints - self._position) @ self._rotation[2]
        pixels = np.rint(np.clip(self.project(joints), -4000, 4000)).astype(int).tolist()
        for i, color in ((0, 0.7), (1, 0.85), (2, 1.0)):
            thickness = max(1, round(0.09 * self._focal_length / max((depths[i] + depths[i + 1]) / 2, 0.2)))
            cv2.line(image, pixels[i], pixels[i + 1], _shade(ARM_COLOR, color), thickness)


def _elbow(wrist: FloatArray) -> FloatArray:
    reach = wrist - _SHOULDER
    distance = min(float(np.linalg.norm(reach)), 0.999 * (_UPPER_ARM + _FOREARM))
    ahead = reach / max(float(np.linalg.norm(reach)), 1e-6)
    up = np.array([0, 0, 1.0]) - ahead * ahead[2]
    up /= max(float(np.linalg.norm(up)), 1e-6)
    along = (_UPPER_ARM**2 - _FOREARM**2 + distance**2) / (2 * distance)
    return _SHOULDER + along * ahead + math.sqrt(max(_UPPER_ARM**2 - along**2, 0)) * up


def _raised(points: FloatArray, z: float) -> FloatArray:
    return np.column_stack([points, np.full(len(points), z)])


def _shade(color: Color, brightness: float) -> Color:
    blue, green, red = (round(min(value * brightness, 255)) for value in color)
    return blue, green, red
