import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pusht_policies import ImagePusher, Replay
from runner_log import video_sizes

from diffusion_policy.env_runner.pusht_image_runner import PushTImageRunner


@pytest.fixture
def make_runner(make_pusht: Callable[..., PushTImageRunner]) -> Callable[..., PushTImageRunner]:
    return functools.partial(make_pusht, PushTImageRunner)


def test_policy_sees_images_and_positions(make_runner: Callable[..., PushTImageRunner]) -> None:
    policy = ImagePusher()
    log = make_runner(render_size=64, fps=5).run(policy)
    first = policy.seen[0]
    assert set(first) == {"image", "agent_pos"}
    assert first["image"].shape == (4, 2, 3, 64, 64)
    assert first["agent_pos"].shape == (4, 2, 2)
    assert first["image"].dtype == first["agent_pos"].dtype == torch.float32
    assert 0 <= first["image"].min() < 0.6
    assert first["image"].max() == 1
    assert len(policy.seen) == 3
    # fewer frames a second than steps: every second one is shown
    assert video_sizes(log) == {"train/sim_video_0": (64, 64, 10), "test/sim_video_10000": (64, 64, 10)}


def test_past_actions_on_request(make_runner: Callable[..., PushTImageRunner]) -> None:
    policy = ImagePusher()
    make_runner(past_action=True, n_obs_steps=3).run(policy)
    assert "past_action" not in policy.seen[0]
    assert policy.seen[1]["past_action"].shape == (4, 2, 2)


def test_episodes_go_as_in_the_original(make_runner: Callable[..., PushTImageRunner], compat: Path) -> None:
    settings = {"legacy_test": True, "n_test": 5, "test_start_seed": 100000, "max_steps": 10, "n_action_steps": 5}
    original = json.loads((compat / "numerics" / "m_pusht.json").read_text())["pinned_stack"]["data"]
    with np.load(compat / "numerics" / "m_pusht.npz") as arrays:
        policy = Replay(arrays["out/actions"])
    for row, rollout in enumerate(make_runner(**settings).rollouts(policy)):
        expected = original[f"image/legacy/seed{rollout.episode.seed}"]
        np.testing.assert_allclose(rollout.rewards, [step["reward"] for step in expected["steps"]], atol=1e-9)
        for obs, moments in ((policy.seen[0], [expected["reset"]] * 2), (policy.seen[1], expected["steps"][3:5])):
            assert np.allclose(obs["agent_pos"][row], [moment["agent_pos"] for moment in moments], atol=1e-3)
            means = obs["image"][row].mean((1, 2, 3))
            assert np.allclose(means, [moment["image_mean"] for moment in moments], atol=1e-5)
