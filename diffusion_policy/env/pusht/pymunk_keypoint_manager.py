"""Keypoints fixed to the bodies of a Push-T scene."""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import pygame
import pymunk
from numpy.typing import ArrayLike, NDArray
from pymunk import Vec2d
from pymunk.space_debug_draw_options import SpaceDebugColor

from diffusion_policy.env.pusht.pymunk_override import DrawOptions

if TYPE_CHECKING:
    from diffusion_policy.env.pusht.pusht_env import PushTEnv

FloatArray = NDArray[np.float64]

# Matplotlib's ten colours "tab10"
PALETTE = np.frombuffer(
    bytes.fromhex("1f77b4ff7f0e2ca02cd627289467bd8c564be377c27f7f7fbcbd2217becf"), dtype=np.uint8
).reshape(10, 3)
WHITE = SpaceDebugColor(255, 255, 255, 255)


class RigidTransform(NamedTuple):
    """Rotation (2, 2) and translation (2,) from a body's frame to the workspace: call it with points (N, 2)."""

    rotation: FloatArray
    translation: FloatArray

    def __call__(self, points: ArrayLike) -> FloatArray:
        return np.asarray(points) @ self.rotation.T + self.translation


class PymunkKeypointManager:
    """Where the keypoints of each named body are in the workspace, and how they are drawn.

    Args:
        local_keypoint_map: name to keypoints (N, 2) in the body's own frame, px.
        color_map: name to r, g, b in [0, 255]; None for a palette.
    """

    def __init__(
        self, local_keypoint_map: dict[str, FloatArray], color_map: dict[str, ArrayLike] | None = None
    ) -> None:
        if color_map is None:
            color_map = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(local_keypoint_map)}
        self.local_keypoint_map = local_keypoint_map
        self.color_map = color_map

    @property
    def kwargs(self) -> dict[str, Any]:
        """The constructor's arguments, which `PushTKeypointsEnv` takes too."""
        return {"local_keypoint_map": self.local_keypoint_map, "color_map": self.color_map}

    @classmethod
    def create_from_pusht_env(
        cls, env: "PushTEnv", n_block_kps: int = 9, n_agent_kps: int = 3, seed: int = 0, **kwargs: Any
    ) -> "PymunkKeypointManager":
        """Spreads keypoints over the drawn shapes of `env`'s block and agent.

        Each is moved within its pixel at random. The default arguments give those of the published dataset.
        """
        rng = np.random.default_rng(seed)
        local_keypoint_map = {}
        for name, body, n_points in (("block", env.block, n_block_kps), ("agent", env.agent, n_agent_kps)):
            pixels = _drawn_pixels(body, env.window_size)
            spread = farthest_point_sampling(pixels, n_points, init_idx=int(rng.choice(len(pixels))))
            local_keypoint_map[name] = spread + rng.random(spread.shape)
        return cls(local_keypoint_map, **kwargs)

    @staticmethod
    def get_tf_img(pose: ArrayLike) -> RigidTransform:
        """From the frame of a body at `pose` (x, y, angle) to the workspace."""
        x, y, angle = np.asarray(pose, dtype=np.float64).tolist()
        cos, sin = math.cos(angle), math.sin(angle)
        return RigidTransform(np.array([[cos, -sin], [sin, cos]]), np.array([x, y]))

    @classmethod
    def get_tf_img_obj(cls, obj: pymunk.Body) -> RigidTransform:
        """From the frame of the body `obj` to the workspace."""
        return cls.get_tf_img((*obj.position, obj.angle))

    def get_keypoints_global(self, pose_map: dict[str, Any], is_obj: bool = False) -> dict[str, FloatArray]:
        """Keypoints (N, 2) in the workspace of each body of `pose_map`: its pose (3,), or itself with `is_obj`."""
        transform = self.get_tf_img_obj if is_obj else self.get_tf_img
        return {name: transform(pose)(self.local_keypoint_map[name]) for name, pose in pose_map.items()}

    def draw_keypoints(
        self, img: NDArray[np.uint8], kps_map: dict[str, FloatArray], radius: int = 1
    ) -> NDArray[np.uint8]:
        """Draws keypoints (N, 2) of the 512 px workspace into `img` (H, W, 3), which is returned."""
        scale = np.array([img.shape[1], img.shape[0]]) / 512
        for name, keypoints in kps_map.items():
            color = np.asarray(self.color_map[name]).tolist()
            for x, y in (keypoints * scale).astype(int).tolist():
                cv2.circle(img, (x, y), radius, color, -1)
        return img

    def draw_keypoints_pose(
        self, img: NDArray[np.uint8], pose_map: dict[str, Any], is_obj: bool = False, **kwargs: Any
    ) -> NDArray[np.uint8]:
        """Draws the keypoints of the bodies of `pose_map`, see `get_keypoints_global`, into `img` (H, W, 3)."""
        return self.draw_keypoints(img, self.get_keypoints_global(pose_map, is_obj), **kwargs)


def farthest_point_sampling(points: ArrayLike, n_points: int, init_idx: int) -> NDArray[Any]:
    """`n_points` of `points` (N, D): `points[init_idx]`, then again and again the farthest from those chosen."""
    points = np.asarray(points)
    chosen = [init_idx]
    distances = np.full(len(points), np.inf)
    while len(chosen) < n_points:
        distances = np.minimum(distances, np.linalg.norm(points - points[chosen[-1]], axis=1))
        chosen.append(int(distances.argmax()))
    return points[chosen]


def _drawn_pixels(body: pymunk.Body, size: int) -> NDArray[np.intp]:
    """Pixels (N, 2) that a drawing of `body` covers, row by row, counted from its origin."""
    surface = pygame.Surface((size, size), depth=32)
    options = DrawOptions(surface)
    origin = Vec2d(size // 2, size // 2)
    for shape in body.shapes:
        if isinstance(shape, pymunk.Circle):
            options.draw_circle(origin + shape.offset, 0, shape.radius, WHITE, WHITE)
        elif isinstance(shape, pymunk.Poly):
            options.draw_polygon([origin + v for v in shape.get_vertices()], shape.radius, WHITE, WHITE)
    rows, columns = np.nonzero(pygame.surfarray.pixels2d(surface).T)
    return np.stack([columns, rows], axis=1) - size // 2
