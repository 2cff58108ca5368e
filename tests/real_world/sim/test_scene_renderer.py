import time

import cv2
import numpy as np
import pytest

from diffusion_policy.real_world.sim import tee
from diffusion_policy.real_world.sim.pusht_world import GOAL
from diffusion_policy.real_world.sim.scene_renderer import (
    BLOCK_COLOR,
    GOAL_COLOR,
    LEFT,
    RIGHT,
    TOOL_COLOR,
    TOP,
    PinholeCamera,
    SceneRenderer,
)

RESOLUTION = (640, 360)
FAR = [0.3, 0.3, 0.02, 0, 0, 0]


def centre(image: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """Mean pixel (column, row) of what has `color`."""
    return np.argwhere((image == color).all(axis=-1)).mean(axis=0)[::-1]


@pytest.mark.parametrize("camera", [LEFT, RIGHT])
def test_projection_is_opencvs(camera: PinholeCamera) -> None:
    points = np.random.default_rng(0).uniform((0.3, -0.3, 0), (0.7, 0.3, 0.1), (20, 3))
    rotation = camera.rotation()
    expected, _ = cv2.projectPoints(
        points,
        cv2.Rodrigues(rotation)[0],
        -rotation @ np.array(camera.position),
        camera.intrinsics(RESOLUTION).matrix(),
        None,
    )
    projected = SceneRenderer(camera, RESOLUTION, GOAL).project(points)
    assert np.allclose(projected, expected[:, 0], atol=1e-6)
    middle = SceneRenderer(camera, RESOLUTION, GOAL).project(np.array([camera.target]))
    assert np.allclose(middle, [320, 180])


def test_things_are_drawn_where_they_are() -> None:
    renderer = SceneRenderer(TOP, RESOLUTION, GOAL)
    image = renderer.render(FAR, [0.5, 0.15, 0.4])
    (block,) = renderer.project(np.array([[0.5, 0.15, tee.HEIGHT]]))
    (goal,) = renderer.project(np.array([[*GOAL[:2], 0]]))
    assert np.allclose(centre(image, BLOCK_COLOR), block, atol=6)
    assert np.allclose(centre(image, GOAL_COLOR), goal, atol=6)
    moved = renderer.render(FAR, [0.55, 0.15, 0.4])
    (expected,) = renderer.project(np.array([[0.55, 0.15, tee.HEIGHT]])) - block
    assert np.allclose(centre(moved, BLOCK_COLOR) - centre(image, BLOCK_COLOR), expected, atol=2)


def test_block_hides_a_tool_behind_it_and_not_one_before() -> None:
    renderer = SceneRenderer(RIGHT, RESOLUTION, GOAL)
    block = np.array([0.5, 0, 0])
    towards_camera = np.array(RIGHT.position[:2]) - block[:2]
    towards_camera /= np.linalg.norm(towards_camera)
    n_visible = {}
    for place, distance in (("before", 0.12), ("behind", -0.12)):
        tip = [*(block[:2] + distance * towards_camera), 0.01, 0, 0, 0]
        image = renderer.render(tip, block)
        alone = renderer.render(tip, [0.3, -0.3, 0])
        n_visible[place] = [(picture == TOOL_COLOR).all(axis=-1).sum() for picture in (image, alone)]
    with_block, alone = n_visible["before"]
    assert with_block == alone
    with_block, alone = n_visible["behind"]
    assert with_block < 0.9 * alone


def test_views_differ_and_nothing_is_lost_at_the_edge() -> None:
    pose = [0.6, -0.2, 1.0]
    assert not (
        SceneRenderer(LEFT, RESOLUTION, GOAL).render(FAR, pose)
        == SceneRenderer(RIGHT, RESOLUTION, GOAL).render(FAR, pose)
    ).all()
    for tool in ([5.0, 5, 5], [-3.0, 0, -1], [1.06, 0.52, 0.62]):  # far away, below, in the camera
        image = SceneRenderer(LEFT, RESOLUTION, GOAL).render([*tool, 0, 0, 0], [3.0, 3.0, 0])
        assert image.shape == (360, 640, 3)


def test_fast_enough_for_thirty_frames_a_second() -> None:
    renderer = SceneRenderer(LEFT, (1280, 720), GOAL)
    times = []
    for _ in range(20):
        start = time.thread_time()
        renderer.render(FAR, [0.5, 0.1, 0.3])
        times.append(time.thread_time() - start)
    assert np.median(times) < 0.006
