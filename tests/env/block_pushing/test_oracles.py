from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from diffusion_policy.env.block_pushing.block_pushing import BlockPush, BlockTaskVariant
from diffusion_policy.env.block_pushing.oracles.multimodal_push_oracle import MultimodalOrientedPushOracle
from diffusion_policy.env.block_pushing.oracles.oriented_push_oracle import OrientedPushOracle

Make = Callable[..., Any]


def demonstrate(env: Any, oracle: OrientedPushOracle, seed: int) -> tuple[float, dict[str, int], int]:
    """Sum of rewards, last info and number of steps of an episode."""
    obs, info = env.reset(seed=seed)
    oracle.reset()
    total, n_steps, terminated = 0.0, 0, False
    while not terminated and n_steps < 350:
        obs, reward, terminated, _, info = env.step(oracle.action(obs))
        total, n_steps = total + reward, n_steps + 1
    return total, info, n_steps


@pytest.mark.parametrize(("abs_action", "noise"), [(False, 0.0), (True, 0.003)])
def test_oracle_brings_both_blocks_to_targets_in_many_ways(make_env: Make, abs_action: bool, noise: float) -> None:
    env = make_env(abs_action=abs_action)
    oracle = MultimodalOrientedPushOracle(env, action_noise_std=noise, seed=1)
    ways = set()
    for seed in range(100, 104):
        total, info, n_steps = demonstrate(env, oracle, seed)
        assert total == 1.0
        assert n_steps < 200
        assert env.goal_distance < 0.06
        done = {key: step for key, step in info.items() if key.startswith("TARGET") and step > 0}
        ways.add(tuple(sorted(done, key=done.__getitem__)))
    assert len(ways) >= 3


def test_oracle_pushes_one_block(make_env: Make) -> None:
    env = make_env(BlockPush)
    total, _, _ = demonstrate(env, OrientedPushOracle(env), seed=0)
    assert total == 1.0
    assert env.goal_distance < 0.01
    env.set_goal_dist_tolerance(0.0)
    assert not env.succeeded


def test_other_tasks_are_refused(make_env: Make) -> None:
    with pytest.raises(ValueError, match=r"BlockTaskVariant\.PUSH"):
        make_env(BlockPush, task=BlockTaskVariant.INSERT)


def test_angles(make_env: Make) -> None:
    oracle = OrientedPushOracle(make_env(BlockPush))
    assert oracle.get_theta_from_vector((0, 2)) == pytest.approx(np.pi / 2)
    np.testing.assert_allclose(oracle.rotate(np.pi / 2, (1, 0)), (0, 1), atol=1e-12)
    np.testing.assert_allclose(
        oracle.theta_to_rotation2d(0.3) @ oracle.theta_to_rotation2d(-0.3), np.eye(2), atol=1e-12
    )
