from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cloudpickle
import numpy as np
import pytest
import torch
from runner_log import scores
from torch import Tensor

from diffusion_policy.env_runner.base_lowdim_runner import BaseLowdimRunner
from diffusion_policy.env_runner.pusht_keypoints_runner import PushTKeypointsRunner

SMALL = {"n_train": 1, "n_train_vis": 1, "n_test": 3, "n_test_vis": 1, "max_steps": 20, "n_obs_steps": 2}


class Pusher:
    """Pushes through the middle of the block's keypoints, with noise."""

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
        now = obs_dict["obs"][:, -1]
        block, agent = now[:, :18].reshape(-1, 9, 2).mean(1), now[:, -2:]
        noise = torch.stack([torch.randn(8, 2, generator=g) for g in generator])
        return {"action": (block + (block - agent) / 2)[:, None] + 20 * noise}


@pytest.fixture
def make_runner(tmp_path: Path, closed_at_end: Callable[[Any], Any]) -> Callable[..., PushTKeypointsRunner]:
    return lambda **kwargs: closed_at_end(PushTKeypointsRunner(tmp_path, **{**SMALL, **kwargs}))


def test_log_and_videos(make_runner: Callable[..., PushTKeypointsRunner], tmp_path: Path) -> None:
    runner = make_runner()
    assert isinstance(runner, BaseLowdimRunner)
    policy = Pusher()
    log = runner.run(policy)
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
    videos = {key: value._path for key, value in log.items() if "sim_video" in key}
    assert set(videos) == {"train/sim_video_0", "test/sim_video_10000"}
    for path in videos.values():
        assert Path(path).parent == tmp_path / "media"
        with av.open(path) as container:
            codec = container.streams.video[0].codec_context
            assert (codec.name, codec.profile, codec.pix_fmt) == ("h264", "High", "yuv420p")
            assert (codec.width, codec.height) == (96, 96)
            assert len(list(container.decode(video=0))) == 20


def test_policy_sees_positions_and_mask(make_runner: Callable[..., PushTKeypointsRunner]) -> None:
    policy = Pusher()
    make_runner(keypoint_visible_rate=0.5).run(policy)
    first = policy.seen[0]
    assert first["obs"].shape == first["obs_mask"].shape == (4, 2, 20)
    assert first["obs_mask"].dtype == torch.bool
    assert 0.2 < first["obs_mask"][..., :18].float().mean() < 0.8
    assert first["obs_mask"][..., 18:].all()
    assert len(policy.seen) == 3


class Replay(Pusher):
    """Takes the given actions `(T, 2)`, five at a time, in all episodes."""

    def __init__(self, actions: np.ndarray) -> None:
        super().__init__()
        self.actions = torch.from_numpy(actions)

    def predict_action(
        self, obs_dict: dict[str, Tensor], generator: list[torch.Generator] | None = None
    ) -> dict[str, Tensor]:
        chunk = self.actions[5 * len(self.seen) :][:5]
        self.seen.append(obs_dict)
        return {"action": chunk.expand(len(obs_dict["obs"]), -1, -1)}


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


def test_scores_do_not_depend_on_the_number_of_workers(
    make_runner: Callable[..., PushTKeypointsRunner],
) -> None:
    expected = scores(make_runner().run(Pusher()))
    assert scores(make_runner(n_envs=1).run(Pusher())) == expected
    assert scores(make_runner(n_envs=3).run(Pusher())) == expected


def test_agent_keypoints_and_latency(make_runner: Callable[..., PushTKeypointsRunner]) -> None:
    policy = Pusher()
    make_runner(agent_keypoints=True, n_latency_steps=2, n_action_steps=6).run(policy)
    assert policy.seen[0]["obs"].shape == (4, 2, 24)
    assert len(policy.seen) == 4


def test_workers_do_not_load_torch(make_runner: Callable[..., PushTKeypointsRunner]) -> None:
    runner = make_runner(n_envs=1, max_steps=1)
    runner.run(Pusher())

    def loads_torch(env: Any) -> bool:
        import sys

        return "torch" in sys.modules

    assert runner._envs is not None
    assert runner._envs.call("run_dill_function", cloudpickle.dumps(loads_torch)) == (False,)


def test_no_episodes_are_refused(make_runner: Callable[..., PushTKeypointsRunner]) -> None:
    with pytest.raises(ValueError, match="n_train"):
        make_runner(n_train=0, n_test=0)
