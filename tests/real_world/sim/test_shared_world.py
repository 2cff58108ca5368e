import multiprocessing
import time
from collections.abc import Iterator

import numpy as np
import pytest

from diffusion_policy.real_world.sim.pusht_world import GOAL
from diffusion_policy.real_world.sim.shared_world import SharedWorld


def tick(world: SharedWorld) -> None:
    """Drives the tool along x at 0.1 m/s."""
    start, n = time.monotonic(), 0
    while True:
        n += 1
        time.sleep(max(start + n * 0.008 - time.monotonic(), 0))
        now = time.monotonic()
        world.on_tick(now, [0.3 + 0.1 * (now - start), -0.4, 0.02, 0, 0, 0])


@pytest.fixture
def world() -> Iterator[SharedWorld]:
    world = SharedWorld(seed=1)
    with pytest.raises(RuntimeError, match="not ticked yet"):
        world.state()
    process = multiprocessing.Process(target=tick, args=(world,), daemon=True)
    process.start()
    time.sleep(0.5)
    yield world
    process.kill()
    process.join()


def test_states_of_times_that_have_just_passed(world: SharedWorld) -> None:
    now = time.time()
    latest, earlier = world.state_at(now), world.state_at(now - 0.2)
    assert 0 <= now - latest.time < 0.1
    assert 0 <= now - 0.2 - earlier.time < 0.1
    assert np.isclose(latest.tool_pose[0] - earlier.tool_pose[0], 0.1 * (latest.time - earlier.time), atol=2e-3)


def test_block_is_put_elsewhere_from_another_process(world: SharedWorld) -> None:
    state = world.reset(5)
    assert state.n_resets == 1
    assert (world.reset(6).block_pose != state.block_pose).all()
    assert np.allclose(world.reset(5).block_pose, state.block_pose)
    assert world.put_block(GOAL).coverage() == pytest.approx(1)
    with pytest.raises(ValueError, match="finite"):
        world.put_block([0, np.nan, 0])


def test_without_a_robot_nothing_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    world = SharedWorld()
    world.on_tick(0.0, np.zeros(6))
    monkeypatch.setattr("diffusion_policy.real_world.sim.shared_world.RESET_TIMEOUT", 0.05)
    with pytest.raises(TimeoutError, match="not running"):
        world.reset(1)
