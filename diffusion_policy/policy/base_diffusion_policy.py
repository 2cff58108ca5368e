"""What every diffusion policy shares: the training loss, the denoising loop and the action slice.

Chi et al. 2023, section III; DDPM after Ho et al. 2020. A method supplies how a batch becomes a trajectory
and its condition, and the denoiser `model`.
"""

import copy
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_policy.model.common.normalizer import LinearNormalizer
from diffusion_policy.model.diffusion.linear_scheduler import LinearStep, linear_steps
from diffusion_policy.policy.base_policy import BasePolicy, Generators


@dataclass
class Condition:
    """What the denoiser is told.

    Attributes:
        model_kwargs: conditions given to the model beside the trajectory, e.g. `global_cond`.
        data: `(B, T, D)` known entries of the trajectory (inpainting), None for none.
        mask: `(B, T, D)` booleans, true where `data` holds.
    """

    model_kwargs: dict[str, Tensor] = field(default_factory=dict)
    data: Tensor | None = None
    mask: Tensor | None = None

    def impose(self, trajectory: Tensor) -> Tensor:
        """The trajectory with its known entries put in."""
        if self.mask is None or self.data is None:
            return trajectory
        return torch.where(self.mask, self.data, trajectory)


class BaseDiffusionPolicy(BasePolicy):
    """Denoises a trajectory of `horizon` steps and executes `n_action_steps` of it.

    Args:
        model: denoiser, called as `model(trajectory, timestep, **condition.model_kwargs)`.
        noise_scheduler: any diffusers scheduler of the variance-preserving kind (one with `alphas_cumprod`).
        horizon: predicted steps T.
        n_obs_steps: observed steps To.
        n_action_steps: executed steps Ta.
        num_inference_steps: denoising steps; as many as in training if None.
        action_start: first executed step of the prediction; `n_obs_steps - 1` is the current step.
        step_kwargs: handed to the scheduler's step, e.g. `eta` for DDIM.
    """

    def __init__(
        self,
        model: nn.Module,
        noise_scheduler: Any,
        horizon: int,
        n_obs_steps: int,
        n_action_steps: int,
        num_inference_steps: int | None,
        action_start: int,
        step_kwargs: dict[str, Any],
    ) -> None:
        super().__init__()
        self.model = model
        self.noise_scheduler = noise_scheduler
        self.normalizer = LinearNormalizer()
        self.horizon = horizon
        self.n_obs_steps = n_obs_steps
        self.n_action_steps = n_action_steps
        self.action_start = action_start
        self.num_inference_steps: int = num_inference_steps or noise_scheduler.config.num_train_timesteps
        self.kwargs = step_kwargs
        self._check_arguments()
        self.register_buffer("_alphas_cumprod", noise_scheduler.alphas_cumprod.clone(), persistent=False)

    def _check_arguments(self) -> None:
        for name in ("horizon", "n_obs_steps", "n_action_steps", "num_inference_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        needed = self.n_obs_steps + self.n_action_steps - 1
        if self.horizon < needed:
            raise ValueError(
                f"horizon={self.horizon} is shorter than n_obs_steps + n_action_steps - 1 = {needed}: the prediction "
                f"begins with the observed steps; set horizon to at least {needed}"
            )
        name = type(self.noise_scheduler).__name__
        if not hasattr(self.noise_scheduler, "alphas_cumprod"):
            raise TypeError(f"{name} has no alphas_cumprod: use a variance-preserving scheduler such as DDPMScheduler")
        steps = self.noise_scheduler.config.num_train_timesteps
        if self.num_inference_steps > steps:
            raise ValueError(f"num_inference_steps={self.num_inference_steps} exceeds num_train_timesteps={steps}")
        accepted = inspect.signature(self.noise_scheduler.step).parameters
        unknown = sorted(set(self.kwargs) - set(accepted))
        if unknown:
            raise TypeError(
                f"unknown argument {', '.join(unknown)}: neither {type(self).__name__} nor {name}.step has it"
            )

    def compute_loss(self, batch: Mapping[str, Any]) -> Tensor:
        """Mean squared error of the prediction at a random diffusion step (Ho et al. 2020, algorithm 1)."""
        if "valid_mask" in batch:
            raise ValueError("the batch has a valid_mask, which diffusion policies do not support")
        trajectory, condition = self._training_inputs(batch)
        noise = torch.randn(trajectory.shape, device=trajectory.device)
        steps = self.noise_scheduler.config.num_train_timesteps
        timesteps = torch.randint(0, steps, (trajectory.shape[0],), device=trajectory.device).long()
        signal, sigma = self._noise_levels(timesteps)
        noisy = condition.impose(signal * trajectory + sigma * noise)
        prediction = self.model(noisy, timesteps, **condition.model_kwargs)
        loss = F.mse_loss(prediction, self._target(trajectory, noise, signal, sigma), reduction="none")
        if condition.mask is not None:
            # The mean still divides by all entries, as in the original: losses and gradients compare.
            loss = loss * ~condition.mask
        return loss.mean()

    def _training_inputs(self, batch: Mapping[str, Any]) -> tuple[Tensor, Condition]:
        """Normalised trajectory `(B, T, D)` to denoise, and what the model is told about it."""
        raise NotImplementedError(f"{type(self).__name__} does not say how a batch is conditioned")

    def _noise_levels(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Factors `(B, 1, 1)` of signal and noise at a diffusion step (Ho et al. 2020, equation 4)."""
        alpha_bar = self._alphas_cumprod[timesteps][:, None, None]  # type: ignore[index]
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()

    def _target(self, trajectory: Tensor, noise: Tensor, signal: Tensor, sigma: Tensor) -> Tensor:
        prediction_type = self.noise_scheduler.config.prediction_type
        if prediction_type == "epsilon":
            return noise
        if prediction_type == "sample":
            return trajectory
        if prediction_type == "v_prediction":
            return signal * noise - sigma * trajectory
        raise ValueError(f"prediction_type must be epsilon, sample or v_prediction, got {prediction_type!r}")

    @torch.no_grad()
    def conditional_sample(
        self, shape: tuple[int, int, int], condition: Condition, generator: Generators = None
    ) -> Tensor:
        """Draws a normalised trajectory of `shape` `(B, T, D)` (Ho et al. 2020, algorithm 2)."""
        trajectory = self._noise(shape, generator)
        table = linear_steps(self.noise_scheduler, self.num_inference_steps, self.kwargs)
        if table is None:
            scheduler = copy.deepcopy(self.noise_scheduler)
            trajectory = self._denoise_with_scheduler(scheduler, trajectory, condition, generator)
        else:
            trajectory = self._denoise_with_table(table, trajectory, condition, generator)
        return condition.impose(trajectory)

    def _denoise_with_table(
        self, table: Sequence[LinearStep], trajectory: Tensor, condition: Condition, generator: Generators
    ) -> Tensor:
        timesteps = torch.tensor([step.timestep for step in table], device=self.device)
        for step, timestep in zip(table, timesteps, strict=True):
            trajectory = condition.impose(trajectory)
            output = self.model(trajectory, timestep, **condition.model_kwargs)
            noise = self._noise(trajectory.shape, generator) if step.draws_noise else None
            trajectory = step.apply(trajectory, output, noise)
        return trajectory

    def _denoise_with_scheduler(
        self, scheduler: Any, trajectory: Tensor, condition: Condition, generator: Generators
    ) -> Tensor:
        kwargs = dict(self.kwargs)
        if "generator" in inspect.signature(scheduler.step).parameters:
            kwargs["generator"] = list(generator) if isinstance(generator, tuple) else generator
        scheduler.set_timesteps(self.num_inference_steps, device=self.device)
        trajectory = trajectory * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            trajectory = condition.impose(trajectory)
            scaled = scheduler.scale_model_input(trajectory, timestep)
            output = self.model(scaled, timestep, **condition.model_kwargs)
            trajectory = scheduler.step(output, timestep, trajectory, **kwargs).prev_sample
        return trajectory

    def _noise(self, shape: tuple[int, ...], generator: Generators) -> Tensor:
        """Standard normal noise; a row with a generator of its own does not depend on the other rows."""
        if generator is None:
            return torch.randn(shape, device=self.device, dtype=self.dtype)
        if isinstance(generator, torch.Generator):
            noise = torch.randn(shape, generator=generator, device=generator.device, dtype=self.dtype)
        else:
            if len(generator) != shape[0]:
                raise ValueError(f"{len(generator)} generators for a batch of {shape[0]}: give one for each row")
            rows = [torch.randn(shape[1:], generator=g, device=g.device, dtype=self.dtype) for g in generator]
            noise = torch.stack(rows)
        return noise.to(self.device, non_blocking=True)

    def _executed(self, prediction: Tensor) -> Tensor:
        """The steps `(B, Ta, D)` of a prediction `(B, T, D)` that are carried out."""
        return prediction[:, self.action_start : self.action_start + self.n_action_steps]
