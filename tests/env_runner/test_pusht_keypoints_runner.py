import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pusht_policies import KeypointsPusher, Replay

from diffusion_policy.env_runner.pusht_keypoints_runner import PushTKeypointsRunner


@pytest.fixture
def make_runner(make_pusht: Callable[..., PushTKeypointsRunner]) -> Callable[..., PushTKeypointsRunner]:
    return functools.partial(make_pusht, PushTKeypointsRunner)


def test_policy_sees_positions_and_mask(make_runner: Callable[..., PushTKeypointsRunner]) -> None:
    policy = KeypointsPusher()
    make_runner(keypoint_visible_rate=0.5).run(policy)
    first = policy.seen[0]
    assert first["obs"].shape == first["obs_mask"].shape == (4, 2, 20)
    assert first["obs_mask"].dtype == torch.bool
    assert 0.2 < first["obs_mask"][..., :18].float().mean() < 0.8
    assert first["obs_mask"][..., 18:].all()
    assert len(policy.seen) == 3


def test_episodes_go_as_in_the_original(make_runner: Callable[..., PushTKeypointsRunner], compat: Path) -> None:
    settings = {"legacy_test": True, "n_test": 5, "test_start_seed": 100000, "max_steps": 10, "n_action_steps": 5}
    with np.load(compat / "numerics" / "m_pusht.npz") as original:
        policy = Replay(original["out/actions"])
        log = make_runner(**settings).run(policy)
        for row, (prefix, seed) in enumerate([("train/", 0), *(("test/", 100000 + i) for i in range(5))]):
            key = f"out/kp/legacy/seed{seed}"
            assert log[f"{prefix}sim_max_reward_{seed}"] == pytest.approx(original[f"{key}/reward"].max(), abs=1e-9)
            start = original[f"{key}/reset_obs"][:20]
            assert np.allclose(policy.seen[0]["obs"][row], [start, start], atol=1e-3)
            assert np.allclose(policy.seen[1]["obs"][row], original[f"{key}/obs"][3:5, :20], atol=1e-3)


def test_agent_keypoints_and_latency(make_runner: Callable[..., PushTKeypointsRunner]) -> None:
    policy = KeypointsPusher()
    make_runner(agent_keypoints=True, n_latency_steps=2, n_action_steps=6).run(policy)
    assert policy.seen[0]["obs"].shape == (4, 2, 24)
    assert len(policy.seen) == 4


def test_no_episodes_are_refused(make_runner: Callable[..., PushTKeypointsRunner]) -> None:
    with pytest.raises(ValueError, match="n_train"):
        make_runner(n_train=0, n_test=0)
