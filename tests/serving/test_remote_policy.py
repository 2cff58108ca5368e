"""A closed loop with Push-T: a served policy plays as it does in this process."""

import numpy as np
import pytest
import torch
from tiny_policies import ROOT, SHAPE_META, observation, served

from diffusion_policy.common.shape_meta import ShapeMeta
from diffusion_policy.env_runner.pusht_keypoints_runner import PushTKeypointsRunner
from diffusion_policy.serving.client import PolicyClient
from diffusion_policy.serving.images import unit_scaled
from diffusion_policy.serving.observation_reader import ObservationReader
from diffusion_policy.serving.policy_spec import PolicySpec
from diffusion_policy.serving.remote_policy import RemotePolicy


@pytest.mark.slow
def test_push_t_served_reaches_the_score_of_this_process(tmp_path):
    options = {"n_train": 0, "n_test": 2, "n_test_vis": 0, "test_start_seed": 100_000, "legacy_test": True}
    runner = PushTKeypointsRunner(str(tmp_path), n_obs_steps=2, max_steps=64, n_envs=1, **options)
    with served(ROOT / "assets" / "pusht_demo.ckpt", max_batch=1) as (port, policy, _):
        here = runner.run(policy)
        remote = RemotePolicy(lambda: PolicyClient("127.0.0.1", port))
        there = runner.run(remote)
        runner.close()
        remote.close()
    assert here == there
    assert here["test/mean_score"] > 0.1


@pytest.fixture
def batch(image_checkpoint):
    """Three observations as a runner gives them, the policy, and a remote one."""
    with served(image_checkpoint, max_batch=1) as (port, policy, _):
        reader = ObservationReader(PolicySpec(ShapeMeta.parse(SHAPE_META), 1, 4, 8), 10**6)
        rows = [reader.read(observation(seed)) for seed in range(3)]
        obs = {key: torch.from_numpy(unit_scaled(np.stack([row[key] for row in rows]))) for key in rows[0]}
        remote = RemotePolicy(lambda: PolicyClient("127.0.0.1", port))
        yield obs, policy, remote
        remote.close()


def generators(seed):
    return [torch.Generator().manual_seed(seed + row) for row in range(3)]


def rows_alone(policy, obs, generators):
    """As the server answers: one row at a time."""
    rows = [
        policy.predict_action({key: value[i : i + 1] for key, value in obs.items()}, [generators[i]]) for i in range(3)
    ]
    return torch.cat([row["action"] for row in rows])


def test_rows_draw_from_their_generators(batch):
    obs, policy, remote = batch
    here, there = generators(0), generators(0)
    for _ in range(3):
        assert torch.equal(rows_alone(policy, obs, here), remote.predict_action(obs, there)["action"])
    here, there = generators(7), generators(7)
    remote.reset()
    assert torch.equal(rows_alone(policy, obs, here), remote.predict_action(obs, there)["action"])


def test_without_generators_the_server_draws_as_it_likes(batch):
    obs, _, remote = batch
    first, second = (remote.predict_action(obs)["action"] for _ in range(2))
    assert first.shape == (3, 4, 2)
    assert not torch.equal(first, second)
