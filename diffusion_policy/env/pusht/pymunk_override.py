"""Drawing of a pymunk space as the published Push-T images show it.

The look is part of the data, since image policies were trained on it. Shapes have a lighter inside and a rim of their
own colour; polygons are filled by the rule of pygame 2.1, which rendered the published images.
"""

import math
from collections.abc import Sequence

import numpy as np
import pygame
import pymunk
from numpy.typing import NDArray
from pymunk import Vec2d
from pymunk.space_debug_draw_options import SpaceDebugColor

# Push-T's y axis points down, as pygame's does; True flips what is drawn.
positive_y_is_up = False

POLYGON_RIM_RADIUS = 2  # px
CIRCLE_RIM_WIDTH = 4  # px


class DrawOptions(pymunk.SpaceDebugDrawOptions):
    """Draws a space on `surface` when given to `pymunk.Space.debug_draw`, each shape in its `color`."""

    def __init__(self, surface: pygame.Surface) -> None:
        super().__init__()
        self.surface = surface

    def draw_circle(
        self,
        pos: Vec2d,
        angle: float,
        radius: float,
        outline_color: SpaceDebugColor,
        fill_color: SpaceDebugColor,
    ) -> None:
        center = to_pygame(pos, self.surface)
        inside = light_color(fill_color).as_int()
        pygame.draw.circle(self.surface, fill_color.as_int(), center, round(radius))
        pygame.draw.circle(self.surface, inside, center, round(radius - CIRCLE_RIM_WIDTH))

    def draw_segment(self, a: Vec2d, b: Vec2d, color: SpaceDebugColor) -> None:
        ends = to_pygame(a, self.surface), to_pygame(b, self.surface)
        pygame.draw.aalines(self.surface, color.as_int(), False, ends)

    def draw_fat_segment(
        self,
        a: Vec2d,
        b: Vec2d,
        radius: float,
        outline_color: SpaceDebugColor,
        fill_color: SpaceDebugColor,
    ) -> None:
        start, end = to_pygame(a, self.surface), to_pygame(b, self.surface)
        color = fill_color.as_int()
        pygame.draw.line(self.surface, color, start, end, max(1, round(2 * radius)))
        for cap in (start, end):
            pygame.draw.circle(self.surface, color, cap, round(radius))
        width, height = abs(end[0] - start[0]), abs(end[1] - start[1])
        if width == 0 and height == 0:
            return
        # Perpendicular to the segment only where it rises to the right: the published images have it so.
        dx = round(radius * height / math.hypot(width, height))
        dy = round(radius * width / math.hypot(width, height))
        if width == 0 or height == 0:
            corner = min(start[0], end[0]) - dx, min(start[1], end[1]) - dy
            pygame.draw.rect(self.surface, color, (corner, (width + 2 * dx + 1, height + 2 * dy + 1)))
            return
        outline = [(start[0] - dx, start[1] - dy), (start[0] + dx, start[1] + dy)]
        outline += [(end[0] + dx, end[1] + dy), (end[0] - dx, end[1] - dy)]
        fill_convex_polygon(self.surface, color, outline)

    def draw_polygon(
        self,
        verts: Sequence[Vec2d],
        radius: float,
        outline_color: SpaceDebugColor,
        fill_color: SpaceDebugColor,
    ) -> None:
        corners = [to_pygame(v, self.surface) for v in verts]
        fill_convex_polygon(self.surface, light_color(fill_color).as_int(), corners)
        for i in range(len(verts)):
            self.draw_fat_segment(verts[i - 1], verts[i], POLYGON_RIM_RADIUS, fill_color, fill_color)

    def draw_dot(self, size: float, pos: Vec2d, color: SpaceDebugColor) -> None:
        pygame.draw.circle(self.surface, color.as_int(), to_pygame(pos, self.surface), round(size))


def fill_convex_polygon(
    surface: pygame.Surface, color: pygame.Color | Sequence[int], corners: Sequence[tuple[int, int]]
) -> None:
    """Fills each row from edge to edge, where an edge's crossing is cut, not rounded, towards its upper corner.

    `pygame.draw.polygon` did so until 2.1. It rounds since, which changes some 30 of the 9216 pixels of an image.

    Args:
        surface: of 32 bits a pixel.
        color: r, g, b in [0, 255], and more that is ignored.
        corners: in the order of the outline, pixels that may lie outside of the surface; not all in one row.
    """
    width, height = surface.get_size()
    sides = zip(corners, [*corners[1:], corners[0]], strict=True)
    edges = [(*a, *b) if a[1] < b[1] else (*b, *a) for a, b in sides if a[1] != b[1]]
    x1, y1, x2, y2 = np.array(edges, dtype=np.int32).T[..., None]
    top, bottom = min(y for _, y in corners), max(y for _, y in corners)
    y_range = max(top, 0), max(min(bottom + 1, height), 0)
    y = np.arange(*y_range, dtype=np.int32)
    crossing = x1 + ((y - y1) * (x2 - x1) / (y2 - y1)).astype(np.int32)
    crossed = (y1 <= y) & (y < y2 + (y2 == bottom))
    left = crossing.min(axis=0, where=crossed, initial=width)
    right = crossing.max(axis=0, where=crossed, initial=-1)
    x_range = max(left.min(initial=width), 0), max(min(right.max(initial=-1) + 1, width), 0)
    x = np.arange(*x_range, dtype=np.int32)[:, None]
    pixels = pygame.surfarray.pixels2d(surface)[slice(*x_range), slice(*y_range)]
    pixels[(left <= x) & (x <= right)] = surface.map_rgb(color) & 0xFFFFFFFF


def surface_over(pixels: NDArray[np.uint8]) -> pygame.Surface:
    """A surface that shares the memory of `pixels` (H, W, 4)."""
    return pygame.image.frombuffer(pixels.data, pixels.shape[1::-1], "RGBX")


def get_mouse_pos(surface: pygame.Surface) -> tuple[int, int]:
    """Position of the mouse over `surface` in pymunk's coordinates."""
    return from_pygame(pygame.mouse.get_pos(), surface)


def to_pygame(p: tuple[float, float], surface: pygame.Surface) -> tuple[int, int]:
    """A point of pymunk's coordinates as a pixel of `surface`."""
    x, y = round(p[0]), round(p[1])
    return (x, surface.get_height() - y) if positive_y_is_up else (x, y)


def from_pygame(p: tuple[float, float], surface: pygame.Surface) -> tuple[int, int]:
    """A pixel of `surface` as a point of pymunk's coordinates."""
    return to_pygame(p, surface)


def light_color(color: SpaceDebugColor) -> SpaceDebugColor:
    """The colour of a shape's inside, a fifth lighter than its rim."""
    r, g, b, a = color
    return SpaceDebugColor(min(1.2 * r, 255), min(1.2 * g, 255), min(1.2 * b, 255), a)
