import math

import numpy as np
import pygame
import pymunk
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymunk.space_debug_draw_options import SpaceDebugColor

from diffusion_policy.env.pusht import pymunk_override
from diffusion_policy.env.pusht.pymunk_override import DrawOptions, fill_convex_polygon, light_color, surface_over

SIZE = 64


def blank(size=SIZE):
    pixels = np.zeros((size, size, 4), dtype=np.uint8)
    return pixels, surface_over(pixels)


def rows_by_hand(corners):
    """First and last pixel of each row, each crossing cut towards its edge's upper corner."""
    bottom = max(y for _, y in corners)
    rows = {}
    for (xa, ya), (xb, yb) in zip(corners, corners[1:] + corners[:1], strict=True):
        (x1, y1), (x2, y2) = sorted([(xa, ya), (xb, yb)], key=lambda p: p[1])
        for y in range(y1, y2 + (y2 == bottom and y1 != y2)):
            x = x1 + math.trunc((y - y1) * (x2 - x1) / (y2 - y1))
            first, last = rows.get(y, (x, x))
            rows[y] = min(first, x), max(last, x)
    return rows


@given(
    origin=st.tuples(st.integers(-30, SIZE + 30), st.integers(-30, SIZE + 30)),
    u=st.tuples(st.integers(-40, 40), st.integers(1, 40)),
    v=st.tuples(st.integers(-40, 40), st.integers(-40, 40)),
)
def test_parallelograms_fill_as_in_the_published_images(origin, u, v):
    """Wherever they lie, also partly or wholly outside of the surface."""
    (x, y), (ux, uy), (vx, vy) = origin, u, v
    corners = [(x, y), (x + ux, y + uy), (x + ux + vx, y + uy + vy), (x + vx, y + vy)]
    pixels, surface = blank()
    fill_convex_polygon(surface, (255, 20, 3), corners)

    expected = np.zeros((SIZE, SIZE), dtype=bool)
    for row, (first, last) in rows_by_hand(corners).items():
        if 0 <= row < SIZE:
            expected[row, max(first, 0) : max(last + 1, 0)] = True
    np.testing.assert_array_equal(pixels.any(axis=-1), expected)
    assert (pixels[expected, :3] == (255, 20, 3)).all()


def test_space_is_drawn_with_rims_and_lighter_insides():
    space = pymunk.Space()
    body = pymunk.Body(1, 1)
    body.position = 32, 32
    box = pymunk.Poly.create_box(body, (20, 20))
    box.color = (100, 150, 250, 255)
    space.add(body, box)
    pixels, surface = blank()
    space.debug_draw(DrawOptions(surface))
    assert pixels[32, 32, :3].tolist() == [120, 180, 255]
    assert pixels[32, 20:25, :3].tolist() == 5 * [[100, 150, 250]]
    assert not pixels[32, :20].any()


def test_dots_and_joints_are_drawn():
    space = pymunk.Space()
    bodies = [pymunk.Body(1, 1), pymunk.Body(1, 1)]
    bodies[0].position, bodies[1].position = (10, 10), (50, 10)
    space.add(*bodies, pymunk.PinJoint(*bodies))
    pixels, surface = blank()
    space.debug_draw(DrawOptions(surface))
    drawn = pixels.any(axis=-1)
    assert drawn[10, 8:53].all()
    assert drawn[8:13, 10].all()
    assert not drawn[20:].any()


def test_light_color_stays_a_color():
    assert light_color(SpaceDebugColor(10, 100, 250, 255)) == (12, 120, 255, 255)


@pytest.mark.parametrize(("up", "pixel"), [(False, (3, 10)), (True, (3, SIZE - 10))])
def test_direction_of_y(monkeypatch, up, pixel):
    monkeypatch.setattr(pymunk_override, "positive_y_is_up", up)
    _, surface = blank()
    assert pymunk_override.to_pygame((2.6, 9.7), surface) == pixel
    assert pymunk_override.from_pygame(pixel, surface) == (3, 10)


def test_mouse_is_read_over_the_surface():
    pygame.display.init()
    pygame.display.set_mode((SIZE, SIZE))
    _, surface = blank()
    assert pymunk_override.get_mouse_pos(surface) == pygame.mouse.get_pos()
    pygame.display.quit()
