"""The denoising steps of diffusers' linear schedulers (DDPM, DDIM) as a table of numbers.

`scheduler.step` looks its coefficients up again at every step, with transfers between host and device. For
these two schedulers a step is linear in the current sample, the clipped clean sample and the model's output,
so the whole of it is six numbers a step, known before the loop starts.
"""

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from diffusion_policy.common.device import has_triton


@dataclass(frozen=True)
class LinearStep:
    """`x0 = clip(x0_x * x + x0_out * out)`; `x' = prev_x0 * x0 + prev_x * x + prev_out * out + sigma * noise`."""

    timestep: int
    x0_x: float
    x0_out: float
    prev_x0: float
    prev_x: float
    prev_out: float
    sigma: float
    draws_noise: bool
    clip: float | None

    def apply(self, sample: Tensor, model_output: Tensor, noise: Tensor | None) -> Tensor:
        """The next, less noisy sample; all tensors `(B, T, D)`."""
        if sample.is_cuda and has_triton():
            from diffusion_policy.model.diffusion.linear_step_kernel import apply_on_gpu

            return apply_on_gpu(self, sample.contiguous(), model_output.contiguous(), noise)
        clean = torch.add(self.x0_x * sample, model_output, alpha=self.x0_out)
        if self.clip is not None:
            clean = clean.clamp(-self.clip, self.clip)
        previous = self.prev_x0 * clean
        # Each schedule leaves one of these two out; without a launch for it, too.
        if self.prev_x:
            previous = previous.add(sample, alpha=self.prev_x)
        if self.prev_out:
            previous = previous.add(model_output, alpha=self.prev_out)
        return previous if noise is None else previous.add(noise, alpha=self.sigma)


def linear_steps(
    scheduler: Any, num_inference_steps: int, step_kwargs: dict[str, Any]
) -> tuple[LinearStep, ...] | None:
    """The table of a scheduler, or None where its step is not of this form; made once for each configuration.

    Args:
        scheduler: a diffusers scheduler; left as it is.
        num_inference_steps: number of denoising steps.
        step_kwargs: what the caller would hand to `scheduler.step`.
    """
    settings = repr((sorted(scheduler.config.items()), sorted(step_kwargs.items())))
    key = (type(scheduler), settings, num_inference_steps)
    if key not in _tables:
        _tables[key] = _make_table(copy.deepcopy(scheduler), num_inference_steps, step_kwargs)
    return _tables[key]


_tables: dict[tuple[type, str, int], tuple[LinearStep, ...] | None] = {}
_DDPM_VARIANCES = ("fixed_small", "fixed_small_log", "fixed_large")


def _make_table(scheduler: Any, num_inference_steps: int, step_kwargs: dict[str, Any]) -> tuple[LinearStep, ...] | None:
    config = scheduler.config
    if config.get("thresholding") or config.prediction_type not in ("epsilon", "sample", "v_prediction"):
        return None
    if type(scheduler) is DDPMScheduler and not step_kwargs and config.variance_type in _DDPM_VARIANCES:
        scheduler.set_timesteps(num_inference_steps)
        return tuple(_ddpm_step(scheduler, int(t)) for t in scheduler.timesteps)
    if type(scheduler) is DDIMScheduler and set(step_kwargs) <= {"eta", "use_clipped_model_output"}:
        scheduler.set_timesteps(num_inference_steps)
        return tuple(_ddim_step(scheduler, int(t), **step_kwargs) for t in scheduler.timesteps)
    return None


def _clean_sample(prediction_type: str, alpha_bar: float) -> tuple[float, float]:
    """Coefficients of (sample, model output) that give the clean sample; Ho et al. 2020, equation 15."""
    if prediction_type == "epsilon":
        return 1 / math.sqrt(alpha_bar), -math.sqrt(1 - alpha_bar) / math.sqrt(alpha_bar)
    if prediction_type == "sample":
        return 0.0, 1.0
    return math.sqrt(alpha_bar), -math.sqrt(1 - alpha_bar)


def _clip(config: Any) -> float | None:
    return config.clip_sample_range if config.clip_sample else None


def _ddpm_step(scheduler: DDPMScheduler, timestep: int) -> LinearStep:
    """Ho et al. 2020, equations 6 and 7."""
    config: Any = scheduler.config
    previous = int(scheduler.previous_timestep(timestep))
    alpha_bar = float(scheduler.alphas_cumprod[timestep])
    alpha_bar_prev = float(scheduler.alphas_cumprod[previous]) if previous >= 0 else 1.0
    alpha = alpha_bar / alpha_bar_prev
    x0_x, x0_out = _clean_sample(config.prediction_type, alpha_bar)
    variance = max((1 - alpha_bar_prev) / (1 - alpha_bar) * (1 - alpha), 1e-20)
    if config.variance_type == "fixed_large":
        variance = 1 - alpha
    return LinearStep(
        timestep=timestep,
        x0_x=x0_x,
        x0_out=x0_out,
        prev_x0=math.sqrt(alpha_bar_prev) * (1 - alpha) / (1 - alpha_bar),
        prev_x=math.sqrt(alpha) * (1 - alpha_bar_prev) / (1 - alpha_bar),
        prev_out=0.0,
        sigma=math.sqrt(variance),
        draws_noise=timestep > 0,
        clip=_clip(config),
    )


def _ddim_step(
    scheduler: DDIMScheduler, timestep: int, eta: float = 0.0, use_clipped_model_output: bool = False
) -> LinearStep:
    """Song et al. 2021, equations 12 and 16."""
    config: Any = scheduler.config
    previous = timestep - config.num_train_timesteps // scheduler.num_inference_steps
    alpha_bar = float(scheduler.alphas_cumprod[timestep])
    alpha_bar_prev = float(scheduler.alphas_cumprod[previous] if previous >= 0 else scheduler.final_alpha_cumprod)
    x0_x, x0_out = _clean_sample(config.prediction_type, alpha_bar)
    variance = (1 - alpha_bar_prev) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_prev)
    sigma = eta * math.sqrt(variance)
    direction = math.sqrt(max(1 - alpha_bar_prev - sigma**2, 0.0))
    prev_x0, prev_x, prev_out = math.sqrt(alpha_bar_prev), 0.0, 0.0
    if use_clipped_model_output:
        prev_x0 -= direction * math.sqrt(alpha_bar / (1 - alpha_bar))
        prev_x = direction / math.sqrt(1 - alpha_bar)
    elif config.prediction_type == "epsilon":
        prev_out = direction
    elif config.prediction_type == "sample":
        prev_x = direction / math.sqrt(1 - alpha_bar)
        prev_out = -direction * math.sqrt(alpha_bar / (1 - alpha_bar))
    else:
        prev_x = direction * math.sqrt(1 - alpha_bar)
        prev_out = direction * math.sqrt(alpha_bar)
    return LinearStep(
        timestep=timestep,
        x0_x=x0_x,
        x0_out=x0_out,
        prev_x0=prev_x0,
        prev_x=prev_x,
        prev_out=prev_out,
        sigma=sigma,
        draws_noise=eta > 0,
        clip=_clip(config),
    )
