import math

import numpy as np
import pytest
import shapely

from diffusion_policy.real_world.sim import tee
from diffusion_policy.real_world.sim.pusht_world import GOAL, TOOL_RADIUS, PushTWorld

LOW, HIGH = tee.HEIGHT / 2, tee.HEIGHT * 1.5


def drive(world: PushTWorld, start: tuple[float, float], end: tuple[float, float], z: float = LOW) -> None:
    """At 0.2 m/s, 125 Hz."""
    n = round(math.dist(start, end) / 0.2 * 125)
    begin = 0.0 if world.time is None else world.time + 1
    for i, x, y in zip(
        range(n + 1), np.linspace(start[0], end[0], n + 1), np.linspace(start[1], end[1], n + 1), strict=True
    ):
        world.step(begin + i / 125, [x, y, z, 0, 0, 0])


def gap(world: PushTWorld) -> float:
    return tee.polygon(world.block_pose).distance(shapely.Point(world.tool_pose[:2])) - TOOL_RADIUS


@pytest.fixture
def world() -> PushTWorld:
    world = PushTWorld()
    world.block_pose = [0.5, 0, 0]
    return world


def test_push_through_the_centre_moves_the_block_along(world: PushTWorld) -> None:
    drive(world, (0.35, 0), (0.49, 0))
    x, y, angle = world.block_pose
    assert abs(gap(world)) < 5e-4
    assert x > 0.5
    assert (abs(y), abs(angle)) < (1e-6, 1e-6)
    before = world.block_pose
    drive(world, (0.49, 0), (0.49, 0))
    drive(world, (0.49, 0), (0.35, 0))
    assert np.allclose(world.block_pose, before, atol=1e-5)  # what is not pushed does not move


def test_push_off_the_centre_turns_the_block(world: PushTWorld) -> None:
    drive(world, (0.42, -0.2), (0.42, 0.04))  # against the bar's left end
    assert world.block_pose[2] < -0.2
    assert abs(gap(world)) < 5e-4


def test_lifted_tool_passes_over_the_block(world: PushTWorld) -> None:
    drive(world, (0.35, 0), (0.65, 0), z=HIGH)
    assert np.allclose(world.block_pose, [0.5, 0, 0])
    world.step(world.time + 1, [0.7, 0, LOW, 0, 0, 0])
    world.step(world.time + 0.008, [0.3, 0, LOW, 0, 0, 0])  # put elsewhere, as by a simulator's reset
    assert np.allclose(world.block_pose, [0.5, 0, 0])


def test_slow_and_fast_pushes_end_alike(world: PushTWorld) -> None:
    poses = []
    for speed in (0.05, 0.25):
        world.step(0.0, [0.3, 0, HIGH, 0, 0, 0])
        world.block_pose, world.time = [0.5, 0, 0.3], None
        for i in range(round(0.15 / speed * 125) + 1):
            world.step(i / 125, [0.37 + i / 125 * speed, 0.03, LOW, 0, 0, 0])
        poses.append(world.block_pose)
    assert np.allclose(*poses, atol=2e-3)


def test_reset_depends_on_the_seed_alone_and_keeps_off_the_tool(world: PushTWorld) -> None:
    world.step(0.0, [0.5, 0, LOW, 0, 0, 0])
    poses = []
    for seed in range(50):
        world.reset(seed)
        poses.append(world.block_pose)
        assert gap(world) > 0.02
        assert world.coverage() < 0.5
    assert len(np.unique(np.round(poses, 4), axis=0)) == 50
    world.reset(3)
    assert (world.block_pose == poses[3]).all()


def test_coverage(world: PushTWorld) -> None:
    world.block_pose = GOAL
    assert world.coverage() == pytest.approx(1)
    world.block_pose = np.add(GOAL, [0.004, 0, 0])
    assert 0.93 < world.coverage() < 0.98
    world.block_pose = np.add(GOAL, [0.3, 0, 0])
    assert world.coverage() == 0
    assert tee.polygon([0, 0, 0]).area == pytest.approx(tee.AREA)
    with pytest.raises(ValueError, match="finite"):
        world.block_pose = [0, math.nan, 0]


def test_frames_of_block_and_robot() -> None:
    points = np.array([(0.1, 0.0), (0.0, 0.2)])
    assert np.allclose(tee.placed(points, [1, 2, math.pi / 2]), [(1, 2.1), (0.8, 2)])
