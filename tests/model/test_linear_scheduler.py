"""The table of coefficients against diffusers' own `scheduler.step`, on random model outputs."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

from diffusion_policy.common.device import has_triton
from diffusion_policy.model.diffusion.linear_scheduler import LinearStep, linear_steps

COMMON = {"num_train_timesteps": 100, "beta_schedule": "squaredcos_cap_v2"}
PREDICTIONS = ["epsilon", "sample", "v_prediction"]


def _largest_difference(scheduler, num_inference_steps, step_kwargs):
    table = linear_steps(scheduler, num_inference_steps, step_kwargs)
    assert len(table) == num_inference_steps
    scheduler.set_timesteps(num_inference_steps)
    mine = theirs = torch.randn(2, 8, 3, generator=torch.Generator().manual_seed(0))
    difference = 0.0
    outputs = torch.Generator().manual_seed(1)
    for step in table:
        output = torch.randn(mine.shape, generator=outputs)
        seed = step.timestep
        noise = torch.randn(mine.shape, generator=torch.Generator().manual_seed(seed)) if step.draws_noise else None
        mine = step.apply(mine, output, noise)
        generator = torch.Generator().manual_seed(seed)
        theirs = scheduler.step(output, step.timestep, theirs, generator=generator, **step_kwargs).prev_sample
        # Without clipping the samples grow to hundreds, so differences are relative to them.
        scale = max(1.0, theirs.abs().max().item())
        difference = max(difference, (mine - theirs).abs().max().item() / scale)
    return difference


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize("variance_type", ["fixed_small", "fixed_small_log", "fixed_large"])
@pytest.mark.parametrize(("steps", "clip"), [(100, True), (10, True), (20, False)])
def test_ddpm(prediction_type, variance_type, steps, clip):
    scheduler = DDPMScheduler(**COMMON, prediction_type=prediction_type, variance_type=variance_type, clip_sample=clip)
    assert _largest_difference(scheduler, steps, {}) < 1e-5


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize("step_kwargs", [{}, {"eta": 0.5}, {"eta": 1.0}, {"use_clipped_model_output": True}])
@pytest.mark.parametrize(("steps", "clip", "alpha_one"), [(16, True, True), (100, True, False), (8, False, True)])
def test_ddim(prediction_type, step_kwargs, steps, clip, alpha_one):
    scheduler = DDIMScheduler(**COMMON, prediction_type=prediction_type, clip_sample=clip, set_alpha_to_one=alpha_one)
    assert _largest_difference(scheduler, steps, step_kwargs) < 1e-5


def test_other_schedulers_have_no_table():
    assert linear_steps(DPMSolverMultistepScheduler(**COMMON), 10, {}) is None
    assert linear_steps(DDPMScheduler(**COMMON, thresholding=True), 10, {}) is None
    assert linear_steps(DDPMScheduler(**COMMON, variance_type="learned"), 10, {}) is None


def test_table_is_made_once_for_each_configuration_and_leaves_the_scheduler_alone():
    scheduler = DDIMScheduler(**COMMON)
    before = scheduler.timesteps.clone()
    table = linear_steps(scheduler, 10, {})
    assert linear_steps(DDIMScheduler(**COMMON), 10, {}) is table
    assert torch.equal(scheduler.timesteps, before)
    others = [
        linear_steps(scheduler, 20, {}),
        linear_steps(scheduler, 10, {"eta": 0.5}),
        linear_steps(DDIMScheduler(**COMMON, prediction_type="sample"), 10, {}),
        linear_steps(DDPMScheduler(**COMMON), 10, {}),
    ]
    assert all(other != table for other in others)


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("draws_noise", [True, False])
def test_kernel_is_the_step(clip, draws_noise):
    if not has_triton():
        pytest.skip("Triton is not installed: it comes with torch for CUDA")
    from diffusion_policy.model.diffusion.linear_step_kernel import apply_on_gpu

    device = "cuda" if torch.cuda.is_available() else "cpu"
    step = LinearStep(7, 1.3, -0.7, 0.4, 0.2, 0.1, 0.3, draws_noise, clip)
    sample, output, noise = torch.randn(3, 2, 16, 11, device=device).unbind()
    noise = noise if draws_noise else None
    expected = step.apply(sample.cpu(), output.cpu(), noise if noise is None else noise.cpu())
    torch.testing.assert_close(apply_on_gpu(step, sample, output, noise).cpu(), expected, rtol=0, atol=1e-6)
