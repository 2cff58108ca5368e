import copy

import diffusers
import hydra
import pytest
import torch
from fixtures import load_fixture

from diffusion_policy.model.common.normalizer import LinearNormalizer
from diffusion_policy.model.diffusion.conditional_unet1d import ConditionalUnet1D
from diffusion_policy.policy.diffusion_unet_lowdim_policy import DiffusionUnetLowdimPolicy

FIXTURES = [
    *("h_unet_global", "h_unet_local", "h_unet_global_action_steps_only", "h_unet_global_no_oa"),
    *("h_tf_cond", "h_tf_inpaint"),
]
SCHEDULERS = [
    *("ddpm10of10", "ddpm100of100", "ddpm10of100", "ddpm10of10_sample"),
    *("ddim4of100", "ddim8of100", "ddim4of100_eta0.5", "ddim16of100"),
]


def _policy_of(fixture, scheduler_name):
    meta = fixture.meta
    scheduler = meta["schedulers"][scheduler_name]
    policy_class = hydra.utils.get_class(meta["policy_class"])
    policy = policy_class(
        model=hydra.utils.get_class(meta["model_class"])(**meta["model_kwargs"]),
        noise_scheduler=getattr(diffusers, scheduler["class"])(**scheduler["kwargs"]),
        num_inference_steps=scheduler["num_inference_steps"],
        **meta["policy_kwargs"],
        **scheduler["policy_step_kwargs"],
    )
    weights = fixture.tensors("w/")
    policy.load_state_dict(weights)
    assert set(policy.state_dict()) == set(weights)
    return policy.eval()


def _expected(fixture, scheduler_name, what):
    """Today's diffusers where it differs from the one that the original pins (strided DDPM)."""
    newer = fixture.tensors(f"out/diffusers042/{scheduler_name}/{what}")
    return newer or fixture.tensors(f"out/diffusers0111/{scheduler_name}/{what}")


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("name", FIXTURES)
def test_actions_and_loss_equal_fixture(compat, name, scheduler):
    fixture = load_fixture(compat, name)
    policy = _policy_of(fixture, scheduler)
    for what, obs in {"predict": "in/obs", "predict_long_obs": "in/obs_long"}.items():
        expected = _expected(fixture, scheduler, f"{what}/")
        if not expected:
            continue
        torch.manual_seed(1234)
        result = policy.predict_action({"obs": fixture.tensor(obs)})
        for key, value in expected.items():
            torch.testing.assert_close(result[key], value, rtol=0, atol=2e-5 * float(value.abs().max()))
    torch.manual_seed(99)
    loss = policy.compute_loss({"obs": fixture.tensor("in/obs_long"), "action": fixture.tensor("in/action")})
    torch.testing.assert_close(loss, _expected(fixture, scheduler, "loss")[""], rtol=0, atol=1e-5)


def _small_policy(obs_as_global_cond=True, scheduler=None, **kwargs):
    torch.manual_seed(0)
    inpaints = not (obs_as_global_cond or kwargs.get("obs_as_local_cond"))
    model = ConditionalUnet1D(
        input_dim=5 if inpaints else 2,
        global_cond_dim=6 if obs_as_global_cond else None,
        local_cond_dim=3 if kwargs.get("obs_as_local_cond") else None,
        down_dims=[8, 16],
        diffusion_step_embed_dim=8,
    )
    arguments = {"horizon": 16, "obs_dim": 3, "action_dim": 2, "n_action_steps": 8, "n_obs_steps": 2}
    policy = DiffusionUnetLowdimPolicy(
        model=model,
        noise_scheduler=scheduler or diffusers.DDPMScheduler(10, beta_schedule="squaredcos_cap_v2"),
        obs_as_global_cond=obs_as_global_cond,
        oa_step_convention=True,
        **arguments | kwargs,
    )
    normalizer = LinearNormalizer()
    normalizer.fit({"obs": 5 * torch.randn(50, 3), "action": 100 * torch.rand(50, 2)})
    policy.set_normalizer(normalizer)
    return policy.eval()


def test_inpainting_keeps_the_observations_and_masks_them_from_the_loss():
    policy = _small_policy(obs_as_global_cond=False)
    obs = torch.randn(4, 2, 3)
    result = policy.predict_action({"obs": obs})
    torch.testing.assert_close(result["obs_pred"][:, :2], obs, rtol=0, atol=1e-5)
    assert result["action"].shape == (4, 8, 2)
    assert result["action_obs_pred"].shape == (4, 8, 3)
    torch.testing.assert_close(result["action"], result["action_pred"][:, 1:9])

    # What the model says about given entries must not matter: shift its output there.
    batch = {"obs": torch.randn(4, 16, 3), "action": torch.rand(4, 16, 2)}
    torch.manual_seed(3)
    loss = policy.compute_loss(batch)
    forward = policy.model.forward

    def shifted(*args, **kwargs):
        output = forward(*args, **kwargs).clone()
        output[:, :2, 2:] += 1000
        return output

    policy.model.forward = shifted
    torch.manual_seed(3)
    torch.testing.assert_close(policy.compute_loss(batch), loss)


@pytest.mark.parametrize("kwargs", [{}, {"obs_as_global_cond": False, "obs_as_local_cond": True}])
@pytest.mark.parametrize("per_row", [True, False])
def test_generators_make_actions_reproducible(kwargs, per_row):
    policy = _small_policy(**kwargs)
    obs = torch.randn(3, 2, 3)
    state = torch.get_rng_state()

    def predict(rows):
        seeds = [torch.Generator().manual_seed(10 + row) for row in rows]
        return policy.predict_action({"obs": obs[rows]}, generator=seeds if per_row else seeds[0])["action"]

    whole = predict([0, 1, 2])
    torch.testing.assert_close(predict([0, 1, 2]), whole, rtol=0, atol=0)
    if per_row:
        torch.testing.assert_close(predict([2, 1]), whole[[2, 1]], rtol=1e-5, atol=1e-3)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize(
    "name",
    [f"{kind}Scheduler" for kind in ("DDPM", "DDIM", "DPMSolverMultistep", "EulerDiscrete", "UniPCMultistep")],
)
def test_any_scheduler_finds_the_actions_of_a_perfect_model(name, prediction_type):
    """A model that knows the clean trajectory leads every sampler to it."""
    kwargs = {"num_train_timesteps": 100, "beta_schedule": "squaredcos_cap_v2", "prediction_type": prediction_type}
    if name == "EulerDiscreteScheduler":
        kwargs["beta_schedule"] = "scaled_linear"
    policy = _small_policy(scheduler=getattr(diffusers, name)(**kwargs), num_inference_steps=20)
    clean = torch.rand(2, 16, 2) * 1.6 - 0.8

    def perfect(sample, timestep, **_):
        signal, sigma = policy._noise_levels(timestep.long().expand(len(sample)))
        noise = (sample - signal * clean) / sigma
        return {"epsilon": noise, "sample": clean, "v_prediction": signal * noise - sigma * clean}[prediction_type]

    policy.model.forward = perfect
    result = policy.predict_action({"obs": torch.randn(2, 2, 3)})
    torch.testing.assert_close(policy.normalizer["action"].normalize(result["action_pred"]), clean, rtol=0, atol=0.05)


def test_sampling_leaves_the_training_scheduler_alone():
    policy = _small_policy(num_inference_steps=5)
    before = copy.deepcopy(policy.noise_scheduler.timesteps)
    policy.predict_action({"obs": torch.randn(1, 2, 3)})
    assert torch.equal(policy.noise_scheduler.timesteps, before)


def test_number_of_denoising_steps_can_be_changed_later():
    policy = _small_policy(num_inference_steps=5)
    calls = []
    policy.model.register_forward_hook(lambda *_: calls.append(1))
    for steps in (5, 3):
        calls.clear()
        policy.num_inference_steps = steps
        policy.predict_action({"obs": torch.randn(1, 2, 3)})
        assert len(calls) == steps


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"horizon": 8}, "horizon=8 is shorter than n_obs_steps \\+ n_action_steps - 1 = 9"),
        ({"n_obs_steps": 0}, "n_obs_steps must be at least 1"),
        ({"num_inference_steps": 11}, "num_inference_steps=11 exceeds num_train_timesteps=10"),
        ({"pred_action_steps_only": True, "obs_as_global_cond": False}, "needs obs_as_global_cond"),
        ({"obs_as_local_cond": True}, "exclude each other"),
        ({"etta": 0.5}, "unknown argument etta"),
        ({"scheduler": diffusers.FlowMatchEulerDiscreteScheduler()}, "no alphas_cumprod"),
    ],
)
def test_bad_arguments_are_refused(kwargs, message):
    with pytest.raises((ValueError, TypeError), match=message):
        _small_policy(**kwargs)


@pytest.mark.parametrize(
    ("obs", "message"),
    [
        ({"obs": torch.zeros(1, 1, 3)}, "shape \\(1, 1, 3\\), expected \\(batch, at least 2 steps, 3\\)"),
        ({"obs": torch.zeros(1, 2, 4)}, "shape \\(1, 2, 4\\)"),
        ({"image": torch.zeros(1, 2, 3)}, "lacks the key 'obs'"),
        ({"obs": torch.zeros(1, 2, 3), "past_action": torch.zeros(1, 2, 2)}, "no past_action"),
    ],
)
def test_bad_observations_are_refused(obs, message):
    with pytest.raises((ValueError, KeyError), match=message):
        _small_policy().predict_action(obs)
