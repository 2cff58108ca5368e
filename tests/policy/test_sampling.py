"""How actions are sampled: as one CUDA graph where there is a GPU, in half precision on request."""

import copy
import logging
import pickle

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from plain_unet import PlainUnet

from diffusion_policy.model.common.normalizer import LinearNormalizer
from diffusion_policy.model.diffusion.conditional_unet1d import ConditionalUnet1D
from diffusion_policy.model.diffusion.transformer_for_diffusion import TransformerForDiffusion
from diffusion_policy.policy.diffusion_transformer_lowdim_policy import DiffusionTransformerLowdimPolicy
from diffusion_policy.policy.diffusion_unet_lowdim_policy import DiffusionUnetLowdimPolicy

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
SHAPE = {"horizon": 8, "obs_dim": 3, "action_dim": 2, "n_action_steps": 4, "n_obs_steps": 2}


@pytest.fixture(autouse=True)
def _float32_means_float32():
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield


def _scheduler(kind=DDIMScheduler, **kwargs):
    return kind(num_train_timesteps=20, beta_schedule="squaredcos_cap_v2", **kwargs)


def _policy(scheduler=None, how="global", steps=5):
    torch.manual_seed(0)
    scheduler = scheduler or _scheduler()
    if how == "transformer":
        sizes = {"n_layer": 1, "n_head": 2, "n_emb": 16, "causal_attn": True}
        model = TransformerForDiffusion(2, 2, horizon=8, n_obs_steps=2, cond_dim=3, obs_as_cond=True, **sizes)
        policy = DiffusionTransformerLowdimPolicy(
            model, scheduler, **SHAPE, num_inference_steps=steps, obs_as_cond=True
        )
    else:
        kwargs = {"global": {"global_cond_dim": 6}, "local": {"local_cond_dim": 3}, "inpaint": {}}[how]
        input_dim = 5 if how == "inpaint" else 2
        model = ConditionalUnet1D(input_dim, diffusion_step_embed_dim=16, down_dims=[16, 32], **kwargs)
        conditions = {"obs_as_global_cond": how == "global", "obs_as_local_cond": how == "local"}
        policy = DiffusionUnetLowdimPolicy(model, scheduler, **SHAPE, num_inference_steps=steps, **conditions)
    normalizer = LinearNormalizer()
    normalizer.fit({"obs": torch.randn(99, 3), "action": torch.randn(99, 2)})
    policy.set_normalizer(normalizer)
    return policy.to(DEVICE).eval()


def _obs(batch_size=2, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return {"obs": torch.randn(batch_size, 2, 3, generator=generator).to(DEVICE)}


def _sample(policy, obs=None, seed=7):
    torch.manual_seed(seed)
    return policy.predict_action(_obs() if obs is None else obs)["action_pred"]


def _plain(policy):
    """The same policy one operation after the other: a model with a hook is run as it stands, and so is a scheduler
    that is not known to be linear."""
    plain = copy.deepcopy(policy)
    if isinstance(plain.model, ConditionalUnet1D):
        plain.model = PlainUnet(plain.model).eval()
    kind = type(plain.noise_scheduler)
    plain.noise_scheduler = type(f"My{kind.__name__}", (kind,), {}).from_config(plain.noise_scheduler.config)
    return plain


@pytest.mark.parametrize("kind", [DDPMScheduler, DDIMScheduler])
@pytest.mark.parametrize("how", ["global", "local", "inpaint", "transformer"])
def test_sampling_equals_the_plain_way(kind, how):
    policy = _policy(_scheduler(kind), how)
    for obs in (_obs(2), _obs(3, seed=6), _obs(2, seed=8)):
        torch.testing.assert_close(_sample(policy, obs), _sample(_plain(policy), obs), rtol=0, atol=1e-4)


@pytest.mark.parametrize("how", ["global", "transformer"])
def test_half_precision_comes_close_and_only_on_request(how):
    policy = _policy(how=how)
    expected = _sample(policy)
    policy.inference_dtype = torch.bfloat16
    half = _sample(policy)
    assert half.dtype == torch.float32
    assert not torch.equal(half, expected)
    span = policy.normalizer["action"].get_input_stats()
    assert (half - expected).abs().max() < 0.05 * (span["max"] - span["min"]).max()
    policy.inference_dtype = torch.float32
    torch.testing.assert_close(_sample(policy), expected, rtol=0, atol=0)


@pytest.mark.parametrize("how", ["global", "transformer"])
def test_changed_weights_schedulers_and_steps_count(how):
    policy = _policy(how=how)
    _sample(policy)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1.2)
    torch.testing.assert_close(_sample(policy), _sample(_plain(policy)), rtol=0, atol=1e-4)
    for parameter in policy.model.parameters():
        parameter.data = parameter.data.clone() * 0.9  # elsewhere, as a flat buffer or `.to()` moves them
    torch.testing.assert_close(_sample(policy), _sample(_plain(policy)), rtol=0, atol=1e-4)
    state = {key: value * 0.9 for key, value in policy.model.state_dict().items()}
    policy.model.load_state_dict(state, assign=True)
    policy.model.requires_grad_(False)
    torch.testing.assert_close(_sample(policy), _sample(_plain(policy)), rtol=0, atol=1e-4)
    policy.num_inference_steps = 3
    torch.testing.assert_close(_sample(policy), _sample(_plain(policy)), rtol=0, atol=1e-4)
    policy.noise_scheduler = _scheduler(prediction_type="sample")
    torch.testing.assert_close(_sample(policy), _sample(_plain(policy)), rtol=0, atol=1e-4)
    policy.n_action_steps = 2
    assert policy.predict_action(_obs())["action"].shape == (2, 2, 2)


def test_changed_weights_and_models_count_whatever_the_scheduler():
    for scheduler in (_scheduler(), DPMSolverMultistepScheduler(num_train_timesteps=20)):
        policy = _policy(scheduler)
        _sample(policy)
        with torch.no_grad():
            for parameter in policy.model.parameters():
                parameter.mul_(1.2)
        torch.testing.assert_close(_sample(policy), _sample(copy.deepcopy(policy)), rtol=0, atol=1e-5)
        policy.model = copy.deepcopy(policy.model)
        with torch.no_grad():
            policy.model.final_conv[1].bias.add_(1)
        torch.testing.assert_close(_sample(policy), _sample(copy.deepcopy(policy)), rtol=0, atol=1e-5)


def test_a_hook_that_is_added_later_is_called():
    policy = _policy()
    expected = _sample(policy)
    policy.model.register_forward_hook(lambda module, args, output: 2 * output)
    assert not torch.equal(_sample(policy), expected)


def test_copies_sample_with_their_own_weights():
    policy = _policy()
    expected = _sample(policy)
    other = copy.deepcopy(policy)
    pickled = pickle.loads(pickle.dumps(policy))
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.2)
    assert not torch.equal(_sample(other), expected)
    torch.testing.assert_close(_sample(policy), expected, rtol=0, atol=0)
    torch.testing.assert_close(_sample(pickled), expected, rtol=0, atol=1e-6)
    assert set(policy.state_dict()) == set(other.state_dict())


def test_warm_up_leaves_randomness_and_results_alone():
    policy = _policy()
    torch.manual_seed(7)
    policy.warmup(2)
    warm = policy.predict_action(_obs())["action_pred"]
    torch.testing.assert_close(warm, _sample(_policy()), rtol=0, atol=0)


def test_results_are_the_callers_to_keep():
    policy = _policy()
    first = _sample(policy)
    kept = first.clone()
    _sample(policy, _obs(seed=9))
    assert torch.equal(first, kept)


def test_a_subclass_with_its_own_forward_is_used():
    class Doubled(ConditionalUnet1D):
        def forward(self, *args, **kwargs):
            return 2 * super().forward(*args, **kwargs)

    policy, doubled = _policy(), _policy()
    doubled.model.__class__ = Doubled
    assert not torch.equal(_sample(doubled), _sample(policy))


def test_several_noises_for_each_sample_encode_it_once():
    policy = _policy().train()
    calls, rows = [], []
    observe = policy._observe
    policy._observe = lambda *args: (calls.append(1), observe(*args))[1]
    policy.model.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    policy.noise_draws = 4
    batch = {**_obs(6), "action": torch.randn(6, 8, 2, device=DEVICE)}
    loss = policy.compute_loss(batch)
    loss.backward()
    assert (len(calls), rows) == (1, [24])
    policy.eval()
    policy.compute_loss(batch)
    assert rows == [24, 6]


@pytest.mark.parametrize("how", ["global", "local", "inpaint", "transformer"])
def test_loss_over_many_noises_is_the_mean_of_many_losses(how):
    policy = _policy(how=how).train()
    batch = {"obs": torch.randn(4, 8, 3, device=DEVICE), "action": torch.randn(4, 8, 2, device=DEVICE)}
    with torch.no_grad():
        singles = torch.stack([policy.compute_loss(batch) for _ in range(300)])
        policy.noise_draws = 300
        assert abs(policy.compute_loss(batch) - singles.mean()) < 6 * singles.std() / 300**0.5


@on_gpu
def test_a_graph_is_captured_for_each_shape_and_kept_over_changes_in_place(monkeypatch):
    policy = _policy()
    captures = []
    capture = policy._graphs._capture
    monkeypatch.setattr(policy._graphs, "_capture", lambda *args: (captures.append(1), capture(*args))[1])
    for expected, change in [
        (1, lambda: None),
        (1, lambda: policy.model.load_state_dict(policy.model.state_dict())),
        (2, lambda: setattr(policy, "num_inference_steps", 4)),
        (2, lambda: setattr(policy, "num_inference_steps", 5)),
        (3, lambda: setattr(policy.model.final_conv[1].bias, "data", policy.model.final_conv[1].bias.data.clone())),
    ]:
        change()
        _sample(policy)
        assert len(captures) == expected
    _sample(policy, _obs(3))
    assert len(captures) == 4


@on_gpu
def test_what_cannot_be_captured_runs_and_says_so_once(caplog):
    policy = _policy(DPMSolverMultistepScheduler(num_train_timesteps=20))
    with caplog.at_level(logging.WARNING):
        _sample(policy)
        _sample(policy)
    assert [record.message for record in caplog.records if "CUDA graph" in record.message] == [
        "DPMSolverMultistepScheduler cannot be captured in a CUDA graph: sampling runs step by step, which is slower. "
        "DDPMScheduler and DDIMScheduler can"
    ]


@on_gpu
def test_observations_that_wait_for_the_gpu_run_step_by_step(caplog):
    policy = _policy()
    expected = _sample(policy)
    waiting = _policy()
    observe = waiting._observe
    waiting._observe = lambda obs, n_steps: (obs["obs"].sum().item(), observe(obs, n_steps))[1]
    with caplog.at_level(logging.WARNING):
        results = [_sample(waiting), _sample(waiting)]
    assert len([record for record in caplog.records if "samples step by step" in record.message]) == 1
    for result in results:
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)
    torch.randn(3, device=DEVICE)  # the generator is whole
    torch.testing.assert_close(_sample(_policy()), expected, rtol=0, atol=0)


def test_losses_of_100_steps_are_those_of_the_plain_way():
    losses = []
    for is_plain in (True, False):
        policy = _policy().train()
        if is_plain:
            policy.model = PlainUnet(policy.model)
        optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-3)
        torch.manual_seed(3)
        steps = []
        for _ in range(100):
            obs = torch.randn(16, 2, 3, device=DEVICE)
            action = obs.sum((1, 2))[:, None, None] * torch.linspace(0, 1, 8, device=DEVICE)[:, None].expand(16, 8, 2)
            loss = policy.compute_loss({"obs": obs, "action": action})
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            steps.append(loss.detach())
        losses.append(torch.stack(steps))
    plain, fast = losses
    assert plain[-10:].mean() < 0.8 * plain[:10].mean()
    torch.testing.assert_close(fast, plain, rtol=0.01, atol=0)


@on_gpu
def test_a_policy_can_move_between_devices():
    policy = _policy()
    expected = _sample(policy)
    policy.to("cpu")
    policy.predict_action({"obs": _obs()["obs"].cpu()})
    policy.to(DEVICE)
    torch.testing.assert_close(_sample(policy), expected, rtol=0, atol=1e-5)
