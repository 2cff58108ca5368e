import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from runner_log import scores
from torch import Tensor

from diffusion_policy.env_runner.base_image_runner import BaseImageRunner
from diffusion_policy.env_runner.pusht_image_runner import PushTImageRunner

SMALL = {"n_train": 1, "n_train_vis": 1, "n_test": 3, "n_test_vis": 1, "max_steps": 20, "n_obs_steps": 2}


class Looker:
    """Goes where the block is, which it sees in the image, with noise."""

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self) -> None:
        self.seen: list[dict[str, Tensor]] = []

    def reset(self) -> None:
        pass

    def predict_action(
        self, obs_dict: dict[str, Tensor], generator: list[torch.Generator] | None = None
    ) -> dict[str, Tensor]:
        assert generator is not None
        self.seen.append(obs_dict)
        image = obs_dict["image"][:, -1]
        slate_gray = torch.tensor([119, 136, 153])[:, None, None] / 255
        is_block = ((image - slate_gray).abs().amax(1) < 0.15).float()
        pixels = torch.linspace(0, 512, image.shape[-1])
        where = torch.stack([(is_block.sum(1) * pixels).sum(1), (is_block.sum(2) * pixels).sum(1)], dim=1)
        block = where / is_block.sum((1, 2))[:, None]
        noise = torch.stack([torch.randn(8, 2, generator=g) for g in generator])
        agent = obs_dict["agent_pos"][:, -1]
        return {"action": (block + (block - agent) / 2)[:, None] + 20 * noise}


@pytest.fixture
def make_runner(tmp_path: Path, closed_at_end: Callable[[Any], Any]) -> Callable[..., PushTImageRunner]:
    return lambda **kwargs: closed_at_end(PushTImageRunner(tmp_path, **{**SMALL, **kwargs}))


def _video_sizes(log: dict[str, Any]) -> dict[str, tuple[int, int, int]]:
    """Width, height and number of frames of each video."""
    sizes = {}
    for key, value in log.items():
        if "sim_video" in key:
            with av.open(value._path) as container:
                codec = container.streams.video[0].codec_context
                sizes[key] = (codec.width, codec.height, len(list(container.decode(video=0))))
    return sizes


def test_log_and_videos(make_runner: Callable[..., PushTImageRunner]) -> None:
    runner = make_runner()
    assert isinstance(runner, BaseImageRunner)
    log = runner.run(Looker())
    assert set(scores(log)) == {
        "train/sim_max_reward_0",
        "train/mean_score",
        "train/success_rate",
        *(f"test/sim_max_reward_{seed}" for seed in (10000, 10001, 10002)),
        "test/mean_score",
        "test/success_rate",
    }
    assert all(0 <= score <= 1 for score in scores(log).values())
    assert len({log[f"test/sim_max_reward_{seed}"] for seed in (10000, 10001, 10002)}) > 1
    assert _video_sizes(log) == {"train/sim_video_0": (96, 96, 20), "test/sim_video_10000": (96, 96, 20)}


def test_policy_sees_images_and_positions(make_runner: Callable[..., PushTImageRunner]) -> None:
    policy = Looker()
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
    assert _video_sizes(log) == {"train/sim_video_0": (64, 64, 10), "test/sim_video_10000": (64, 64, 10)}


def test_past_actions_on_request(make_runner: Callable[..., PushTImageRunner]) -> None:
    policy = Looker()
    make_runner(past_action=True, n_obs_steps=3).run(policy)
    assert "past_action" not in policy.seen[0]
    assert policy.seen[1]["past_action"].shape == (4, 2, 2)


class Replay(Looker):
    """Takes the given actions `(T, 2)`, five at a time, in all episodes."""

    def __init__(self, actions: np.ndarray) -> None:
        super().__init__()
        self.actions = torch.from_numpy(actions)

    def predict_action(
        self, obs_dict: dict[str, Tensor], generator: list[torch.Generator] | None = None
    ) -> dict[str, Tensor]:
        chunk = self.actions[5 * len(self.seen) :][:5]
        self.seen.append(obs_dict)
        return {"action": chunk.expand(len(obs_dict["image"]), -1, -1)}


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


def test_scores_do_not_depend_on_the_number_of_workers(make_runner: Callable[..., PushTImageRunner]) -> None:
    expected = scores(make_runner().run(Looker()))
    assert scores(make_runner(n_envs=1).run(Looker())) == expected
    assert scores(make_runner(n_envs=3).run(Looker())) == expected
