import numpy as np
import pytest
import shapely

from diffusion_policy.real_world.sim import tee
from diffusion_policy.real_world.sim.operator_policy import END, OperatorPolicy, Phase
from diffusion_policy.real_world.sim.push_planner import PushPlanner
from diffusion_policy.real_world.sim.pusht_world import GOAL, TOOL_RADIUS, PushTWorld
from diffusion_policy.real_world.sim.way_around import way_around


def push_to_goal(seed: int) -> tuple[float, float, np.ndarray]:
    """Coverage, seconds, where the tool is at the end; of an arm that follows commands of 10 Hz late."""
    world, policy = PushTWorld(), OperatorPolicy()
    target = np.array([0.44, 0.27])
    world.step(0, [*target, 0.03, 0, 0, 0])
    world.reset(seed)
    velocity, delayed, t = np.zeros(2), [target] * 14, 0.0
    for n in range(1, 80 * 125):
        t = n / 125
        if n % 6 == 0:
            velocity = policy.act(t, world.tool_pose[:2], world.block_pose)
            if policy.phase is Phase.DONE:
                break
        if n % 12 == 0:
            speed = velocity
        target = target + (speed if n >= 12 else 0) / 125
        delayed = [*delayed[1:], target]
        tool = world.tool_pose[:2] + (delayed[0] - world.tool_pose[:2]) * 0.08
        world.step(t, [*tool, 0.03, 0, 0, 0])
    return world.coverage(), t, world.tool_pose[:2]


@pytest.mark.parametrize("seed", [100, 101, 102])
def test_block_is_pushed_to_its_goal(seed: int) -> None:
    coverage, seconds, tool = push_to_goal(seed)
    assert coverage > 0.9
    assert seconds < 60
    assert np.allclose(tool, END, atol=0.02)


def test_planned_push_does_what_was_expected() -> None:
    world, planner = PushTWorld(5), PushPlanner()
    pose = world.block_pose
    push = planner.pushes([0.44, 0.27], pose)[0]
    assert push.error < planner.error(pose)
    for i, tool in enumerate(np.linspace(push.start, push.end, 100)):
        world.step(i * 0.008, [*tool, 0.02, 0, 0, 0])
    assert np.allclose(world.block_pose, push.block_pose, atol=0.01)
    assert planner.error(GOAL) == 0
    assert planner.pushes([0.44, 0.27], GOAL) == []


def test_ways_keep_off_the_block() -> None:
    pose = np.array([0.5, 0.0, 0.7])
    rng = np.random.default_rng(0)
    keep_off = tee.polygon(pose).buffer(TOOL_RADIUS + 0.01)
    n_ways = 0
    while n_ways < 30:
        start, end = rng.uniform((0.26, -0.44), (0.76, 0.39), (2, 2))
        if keep_off.buffer(0.02).intersects(shapely.MultiPoint([start, end])):
            continue
        way = way_around(start, end, pose)
        assert np.allclose(way[-1], end)
        assert not keep_off.intersects(shapely.LineString([start, *way]))
        n_ways += 1
    touching = tee.placed(tee.OUTLINE, pose)[0] + [0, -TOOL_RADIUS]
    way = way_around(touching, [0.3, 0.3], pose)
    assert keep_off.distance(shapely.Point(way[0])) > 0
    assert way_around([0.3, 0.3], pose[:2], pose) is None  # onto the block
