"""Several clients' actions at once are those that each would get alone."""

import threading
import time

import numpy as np
import pytest
import torch
from fixtures import Fixture
from tiny_policies import observation

from diffusion_policy.model.common.normalizer import LinearNormalizer
from diffusion_policy.policy.base_policy import BasePolicy
from diffusion_policy.policy.policy_loading import load_policy
from diffusion_policy.policy.robomimic_lowdim_policy import RobomimicLowdimPolicy
from diffusion_policy.serving.batcher import Batcher
from diffusion_policy.serving.engine import DeviceError, EpisodeState, InferenceEngine, Query, is_device_error
from diffusion_policy.serving.images import unit_scaled
from diffusion_policy.serving.metrics import Metrics
from diffusion_policy.serving.observation_reader import ObservationReader
from diffusion_policy.serving.policy_spec import PolicySpec

TOLERANCE = 1e-4  # of float32 in batches of other sizes; actions are of the order of 1


def seeded(seed):
    return EpisodeState(torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def loaded(image_checkpoint):
    policy, cfg = load_policy(image_checkpoint, "cpu")
    return policy, PolicySpec.of(policy, cfg)


def queries(spec, n):
    reader = ObservationReader(spec, 10**6)
    return [Query(reader.read(observation(seed)), seeded(seed)) for seed in range(n)]


def test_one_client_gets_what_the_policy_says(loaded):
    policy, spec = loaded
    (query,) = queries(spec, 1)
    obs = {key: torch.from_numpy(unit_scaled(value))[None] for key, value in query.obs.items()}
    expected = policy.predict_action(obs, [torch.Generator().manual_seed(0)])["action"][0].numpy()
    assert np.array_equal(InferenceEngine(policy, spec, 1).predict([query])[0], expected)


def test_batches_are_what_each_would_get_alone(loaded):
    engine = InferenceEngine(*loaded, 8)
    alone = [engine.predict([query])[0] for query in queries(loaded[1], 5)]
    engine.seconds = {1: 1.0, 8: 1.0}  # five are padded to eight
    together = engine.predict(queries(loaded[1], 5))
    assert len(together) == 5
    np.testing.assert_allclose(together, alone, rtol=0, atol=TOLERANCE)
    assert np.abs(alone[0] - alone[1]).max() > 0.01
    mixed = queries(loaded[1], 2)
    mixed[1].obs = {key: unit_scaled(value) for key, value in mixed[1].obs.items()}
    np.testing.assert_allclose(engine.predict(mixed), alone[:2], rtol=0, atol=TOLERANCE)


def test_clients_are_answered_together_where_that_is_faster(loaded):
    engine = InferenceEngine(*loaded, 16)
    engine.seconds = {1: 1.0, 2: 1.1, 4: 1.2, 8: 3.0}
    assert [engine.batch_size(n) for n in (1, 2, 3, 4, 5, 8, 20)] == [1, 2, 3, 4, 4, 4, 4]
    engine.seconds = {1: 1.0}
    assert engine.batch_size(9) == 1


def test_warming_up_times_sizes_as_long_as_they_pay(loaded):
    engine = InferenceEngine(*loaded, 4)
    engine.warm_up()
    assert set(engine.seconds) in ({1}, {1, 2}, {1, 2, 4})
    assert all(seconds > 0 for seconds in engine.seconds.values())


@pytest.mark.parametrize("name", ["unet_lowdim_4steps", "image_multi", "bet_lowdim"])
def test_checkpoints_of_the_original_are_served(compat, name):
    policy, cfg = load_policy(compat / "ckpt" / f"{name}.ckpt", "cpu")
    spec = PolicySpec.of(policy, cfg)
    assert (spec.n_obs_steps, spec.horizon) == (cfg.n_obs_steps, cfg.horizon)
    engine = InferenceEngine(policy, spec, 2)
    inputs = Fixture(compat / "ckpt" / f"{name}.npz").tensors("in/")
    row = {key: value[0, : spec.n_obs_steps].numpy() for key, value in inputs.items()}
    expected = policy.predict_action(
        {key: torch.from_numpy(value)[None] for key, value in row.items()}, [torch.Generator().manual_seed(5)]
    )
    (alone,) = engine.predict([Query(row, seeded(5))])
    assert np.array_equal(alone, expected["action"][0].numpy())
    assert alone.shape == (spec.n_action_steps, spec.meta.action_dim)
    together = engine.predict([Query(row, seeded(5)), Query(row, seeded(6))])
    np.testing.assert_allclose(together[0], alone, rtol=0, atol=0.05)  # px


def test_recurrent_policies_remember_each_client():
    torch.manual_seed(0)
    policy = RobomimicLowdimPolicy(action_dim=2, obs_dim=3)
    normalizer = LinearNormalizer()
    normalizer.fit({"obs": torch.rand(9, 3), "action": torch.rand(9, 2)})
    policy.set_normalizer(normalizer)
    policy.eval()
    cfg = {"policy": {}, "obs_dim": 3, "action_dim": 2}
    engine = InferenceEngine(policy, PolicySpec.of(policy, cfg), 4)
    engine.warm_up()
    assert list(engine.seconds) == [1]
    steps = np.random.default_rng(0).random((2, 3, 1, 3), dtype=np.float32)  # client, step

    def episode(client, state):
        for step in steps[client]:
            yield engine.predict([Query({"obs": step}, state)])[0]

    alone = [list(episode(client, seeded(client))) for client in (0, 1)]
    in_turns = list(zip(episode(0, seeded(0)), episode(1, seeded(1)), strict=True))
    assert np.array_equal(np.swapaxes(alone, 0, 1), in_turns)


class Recorder:
    """A policy that notes its batches, fails at a negative observation, and its GPU at one above 100."""

    device = torch.device("cpu")
    memory = None
    reset = BasePolicy.reset

    def __init__(self):
        self.batches = []
        self.may_go = threading.Event()

    def predict_action(self, obs_dict, generator):
        assert self.may_go.wait(10)
        values = obs_dict["obs"][:, 0, 0]
        self.batches.append(values.tolist())
        draws = torch.stack([torch.rand(1, 1, generator=each) for each in generator])
        if (values > 100).any():
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")
        if (values < 0).any():
            raise ArithmeticError("negative")
        return {"action": draws / (values[:, None, None] != 50)}


@pytest.fixture
def recorder():
    """A batcher of the policy above, which answers up to three together, and what ended it."""
    policy = Recorder()
    spec = PolicySpec.of(policy, {"policy": {}, "obs_dim": 1, "action_dim": 1})
    engine = InferenceEngine(policy, spec, 4)
    engine.seconds = {1: 1.0, 2: 1.0, 4: 1.0}
    failures = []
    batcher = Batcher(engine, 0.0, lambda: 1, Metrics(), failures.append)
    yield policy, batcher, failures
    policy.may_go.set()
    batcher.stop()


def query(value, seed=0):
    return Query({"obs": np.full((1, 1), value, np.float32)}, seeded(seed))


def waiting_behind(batcher, values):
    """Answers of queries that came while the policy was busy with another."""
    first = batcher.submit(query(1))
    time.sleep(0.05)
    answers = [batcher.submit(query(value)) for value in values]
    return first, answers


def drawn(seed):
    return torch.rand(1, 1, generator=torch.Generator().manual_seed(seed)).item()


def test_those_who_wait_are_answered_together(recorder):
    policy, batcher, _ = recorder
    first, answers = waiting_behind(batcher, [2, 3, 4])
    policy.may_go.set()
    assert first.result(10).batch_size == 1
    assert [answer.result(10).batch_size for answer in answers] == [3, 3, 3]
    assert policy.batches == [[1], [2, 3, 4, 2]]


def test_who_fails_fails_alone(recorder):
    policy, batcher, failures = recorder
    _, answers = waiting_behind(batcher, [2, -1, 3, 50])
    policy.may_go.set()
    with pytest.raises(ArithmeticError, match="negative"):
        answers[1].result(10)
    with pytest.raises(FloatingPointError, match="not finite"):
        answers[3].result(10)
    # What the failed attempt has drawn does not count.
    assert [answers[i].result(10).actions.item() for i in (0, 2)] == [drawn(0), drawn(0)]
    assert not failures


def test_who_has_gone_is_not_computed_for(recorder):
    policy, batcher, _ = recorder
    _, (gone, there) = waiting_behind(batcher, [2, 3])
    assert gone.cancel()
    policy.may_go.set()
    assert there.result(10).batch_size == 1
    assert policy.batches == [[1], [3]]


def test_a_failed_gpu_ends_it_for_all(recorder):
    policy, batcher, failures = recorder
    _, answers = waiting_behind(batcher, [101, 2, 3, 4, 5])
    policy.may_go.set()
    for answer in answers:
        with pytest.raises(
            DeviceError, match=r"^the GPU failed: CUDA error: an illegal memory access was encountered$"
        ):
            answer.result(10)
    assert len(failures) == 1
    with pytest.raises(DeviceError):
        batcher.submit(query(1))


def test_errors_of_a_gpu_are_told_from_others():
    assert is_device_error(torch.AcceleratorError("unspecified launch failure"))
    assert is_device_error(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_device_error(RuntimeError("CUDA error: device-side assert triggered"))
    assert not is_device_error(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_the_first_waits_for_others_only_if_there_are_any(loaded):
    engine = InferenceEngine(*loaded, 4)
    engine.seconds = {1: 1.0, 2: 1.0}
    n_clients = 1
    batcher = Batcher(engine, 5.0, lambda: n_clients, Metrics(), lambda error: None)
    first, second, third = queries(loaded[1], 3)
    assert batcher.submit(first).result(4).batch_size == 1
    n_clients = 2
    answers = [batcher.submit(second)]
    time.sleep(0.1)
    assert not answers[0].done()
    answers.append(batcher.submit(third))
    assert [answer.result(4).batch_size for answer in answers] == [2, 2]
    batcher.stop()
