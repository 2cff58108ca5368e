"""What every diffusion policy shares: the training loss, the denoising loop and the action slice.

Chi et al. 2023, section III; DDPM after Ho et al. 2020. A method supplies how observations become a condition, and
the denoiser `model`.
"""

import copy
import inspect
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_policy.model.common.normalizer import LinearNormalizer
from diffusion_policy.model.diffusion.linear_scheduler import LinearStep, linear_steps
from diffusion_policy.model.diffusion.mask_generator import LowdimMaskGenerator
from diffusion_policy.policy.base_policy import BasePolicy, Generators, as_obs_dict


@dataclass
class Observed:
    """What a policy has made of its observations.

    Attributes:
        batch_size: B.
        model_kwargs: conditions given to the model beside the trajectory, e.g. `global_cond`.
        given: `(B, n, Dg)` features of the first n steps for a policy that inpaints: its trajectory is
            `[action | features]`, and these entries of it are known.
    """

    batch_size: int
    model_kwargs: dict[str, Tensor] = field(default_factory=dict)
    given: Tensor | None = None


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
        action_dim: length Da of an action.
        horizon: predicted steps T.
        n_obs_steps: observed steps To.
        n_action_steps: executed steps Ta.
        num_inference_steps: denoising steps; as many as in training if None.
        given_dim: length Dg of the features that are inpainted; 0 if observations condition the model instead.
        pred_action_steps_only: denoise the executed steps alone; excludes inpainting.
        action_start: first executed step of the prediction; the current one, `n_obs_steps - 1`, if None.
        encoders: modules that make features of observations, by attribute. They come before the model in
            `parameters()`: optimizer states of the field's checkpoints list them first.
        step_kwargs: handed to the scheduler's step, e.g. `eta` for DDIM.
    """

    def __init__(
        self,
        model: nn.Module,
        noise_scheduler: Any,
        action_dim: int,
        horizon: int,
        n_obs_steps: int,
        n_action_steps: int,
        num_inference_steps: int | None,
        step_kwargs: dict[str, Any],
        given_dim: int = 0,
        pred_action_steps_only: bool = False,
        action_start: int | None = None,
        encoders: Mapping[str, nn.Module] = MappingProxyType({}),
    ) -> None:
        if pred_action_steps_only and given_dim:
            raise ValueError("pred_action_steps_only excludes inpainting: let observations condition the model")
        super().__init__()
        for name, encoder in encoders.items():
            self.add_module(name, encoder)
        self.model = model
        self.mask_generator = LowdimMaskGenerator(action_dim=action_dim, obs_dim=given_dim, max_n_obs_steps=n_obs_steps)
        self.normalizer = LinearNormalizer()
        self.noise_scheduler = noise_scheduler
        self.action_dim = action_dim
        self.given_dim = given_dim
        self.horizon = horizon
        self.n_obs_steps = n_obs_steps
        self.n_action_steps = n_action_steps
        self.pred_action_steps_only = pred_action_steps_only
        self.action_start = n_obs_steps - 1 if action_start is None else action_start
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

    @abstractmethod
    def _observe(self, obs_dict: Mapping[str, Any], n_steps: int) -> Observed:
        """What becomes of the first `n_steps` steps of observations `(B, >= n_steps, ...)` by key."""

    def _training_inputs(self, batch: Mapping[str, Any]) -> tuple[Tensor, Condition]:
        """Normalised trajectory `(B, T, D)` to denoise, and what the model is told about it."""
        action = self.normalizer["action"].normalize(batch["action"])
        # Features that are inpainted are denoised too, so they must be known for the whole horizon.
        n_steps = self.horizon if self.given_dim else self.n_obs_steps
        observed = self._observe(as_obs_dict(batch["obs"]), n_steps)
        if observed.given is None:
            trajectory = self._executed(action) if self.pred_action_steps_only else action
            return trajectory, Condition(observed.model_kwargs)
        data = torch.cat((action, observed.given), dim=-1)
        condition = Condition(observed.model_kwargs, data=data, mask=self.mask_generator(data.shape))
        # An encoder learns from the given entries; the features to be denoised are a target, which it must not move.
        return data.detach(), condition

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
    def predict_action(self, obs_dict: Mapping[str, Any], generator: Generators = None) -> dict[str, Tensor]:
        """Predicts actions from observations `(B, >= To, ...)` by key, of which the first To steps are used.

        Returns:
            `action` `(B, Ta, Da)` to execute and `action_pred` `(B, T, Da)`.
        """
        if "past_action" in obs_dict:
            raise ValueError(f"{type(self).__name__} takes no past_action: set past_action_visible=False")
        observed = self._observe(obs_dict, self.n_obs_steps)
        length = self.n_action_steps if self.pred_action_steps_only else self.horizon
        shape = (observed.batch_size, length, self.action_dim + self.given_dim)
        return self._result(self.conditional_sample(shape, self._sampling_condition(observed, shape), generator))

    def _sampling_condition(self, observed: Observed, shape: tuple[int, int, int]) -> Condition:
        if observed.given is None:
            return Condition(observed.model_kwargs)
        data = observed.given.new_zeros(shape)
        data[:, : self.n_obs_steps, self.action_dim :] = observed.given
        return Condition(observed.model_kwargs, data=data, mask=self.mask_generator(shape))

    def _result(self, sample: Tensor) -> dict[str, Tensor]:
        """What `predict_action` returns, of a sampled trajectory `(B, T, D)`."""
        action_pred = self.normalizer["action"].unnormalize(sample[..., : self.action_dim])
        action = action_pred if self.pred_action_steps_only else self._executed(action_pred)
        return {"action": action, "action_pred": action_pred}

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
