"""What every diffusion policy shares: the training loss, the denoising loop and the action slice.

Chi et al. 2023, section III; DDPM after Ho et al. 2020. A method supplies how observations become a condition, and
the denoiser `model`.
"""

import copy
import inspect
import logging
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_policy.common.draws import Generators, draw
from diffusion_policy.model.common.normalizer import LinearNormalizer
from diffusion_policy.model.diffusion.linear_scheduler import LinearStep, linear_steps
from diffusion_policy.model.diffusion.mask_generator import LowdimMaskGenerator
from diffusion_policy.policy.base_policy import BasePolicy, as_obs_dict, check_steps
from diffusion_policy.policy.samplers import Denoise, Samplers, is_as_made
from diffusion_policy.policy.sampling_graphs import SamplingGraphs

logger = logging.getLogger(__name__)


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

    def repeated(self, times: int) -> "Condition":
        """The same with each row `times` times."""

        def repeat(rows: Any) -> Any:
            return None if rows is None else rows.repeat_interleave(times, dim=0)

        kwargs = {key: repeat(value) for key, value in self.model_kwargs.items()}
        return Condition(kwargs, repeat(self.data), repeat(self.mask))

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

    Attributes:
        noise_draws: diffusion steps and noises that the loss looks at for each sample whose observations are encoded.
    """

    noise_draws: int = 1

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
        self._graphs = SamplingGraphs(self)
        self._samplers = Samplers()
        self._said: set[str] = set()
        self.register_buffer("_alphas_cumprod", noise_scheduler.alphas_cumprod.clone(), persistent=False)

    def _check_arguments(self) -> None:
        check_steps(self.horizon, self.n_obs_steps, self.n_action_steps)
        if self.num_inference_steps < 1:
            raise ValueError(f"num_inference_steps must be at least 1, got {self.num_inference_steps}")
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
        self._refuse_valid_mask(batch)
        trajectory, condition = self._training_inputs(batch)
        if self.training and self.noise_draws > 1:
            trajectory = trajectory.repeat_interleave(self.noise_draws, dim=0)
            condition = condition.repeated(self.noise_draws)
        noise = torch.randn(trajectory.shape, device=trajectory.device)
        steps = self.noise_scheduler.config.num_train_timesteps
        timesteps = torch.randint(0, steps, (trajectory.shape[0],), device=trajectory.device).long()
        signal, sigma = self._noise_levels(timesteps)
        noisy = condition.impose(signal * trajectory + sigma * noise)
        prediction = self.model(noisy, timesteps, **condition.model_kwargs)
        loss = F.mse_loss(
            prediction.to(trajectory.dtype), self._target(trajectory, noise, signal, sigma), reduction="none"
        )
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

        On a GPU, in evaluation mode, all of it runs as one CUDA graph, captured at the first call for each shape of
        observations; `warmup` does that beforehand.

        Returns:
            `action` `(B, Ta, Da)` to execute and `action_pred` `(B, T, Da)`.
        """
        self._refuse_past_action(obs_dict)
        table = linear_steps(self.noise_scheduler, self.num_inference_steps, self.kwargs)
        if self.device.type != "cuda" or self.training:
            return self._predict(obs_dict, generator)
        if table is None:
            self._say_once(
                f"{type(self.noise_scheduler).__name__} cannot be captured in a CUDA graph: sampling runs step by "
                "step, which is slower. DDPMScheduler and DDIMScheduler can"
            )
            return self._predict(obs_dict, generator)
        obs_dict = {key: torch.as_tensor(value) for key, value in obs_dict.items()}
        shape = self._sample_shape(_batch_size(obs_dict))
        self._sampler([step.timestep for step in table], shape)
        draws = self._draws(table, shape, generator)
        inputs = {f"obs/{key}": value for key, value in obs_dict.items()} | {"draws": torch.stack(list(draws))}

        def predict(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
            obs = {key.removeprefix("obs/"): value for key, value in inputs.items() if key.startswith("obs/")}
            return self._predict(obs, draws=inputs["draws"].unbind())

        return self._graphs(self._sampling_settings(table), predict, inputs)

    def warmup(self, batch_size: int = 1) -> None:
        """Does beforehand what the first prediction for a batch of this size would take its time for."""
        generator = torch.Generator().manual_seed(0)  # leaves the global one alone
        self.predict_action(self._example_obs(batch_size), generator)

    @abstractmethod
    def _example_obs(self, batch_size: int) -> dict[str, Tensor]:
        """Observations of the right shapes."""

    def _predict(
        self, obs_dict: Mapping[str, Any], generator: Generators = None, draws: Sequence[Tensor] | None = None
    ) -> dict[str, Tensor]:
        observed = self._observe(obs_dict, self.n_obs_steps)
        shape = self._sample_shape(observed.batch_size)
        condition = self._sampling_condition(observed, shape)
        return self._result(self.conditional_sample(shape, condition, generator, draws))

    def _sample_shape(self, batch_size: int) -> tuple[int, int, int]:
        length = self.n_action_steps if self.pred_action_steps_only else self.horizon
        return (batch_size, length, self.action_dim + self.given_dim)

    def _sampling_settings(self, table: Sequence[LinearStep]) -> tuple[Any, ...]:
        """What a captured prediction depends on beside weights and inputs."""
        sizes = (self.horizon, self.n_obs_steps, self.n_action_steps, self.action_start, self.pred_action_steps_only)
        tf32 = (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
        autocast = torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda")
        return (id(table), *sizes, *tf32, autocast, self.inference_dtype, is_as_made(self.model))

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
        self,
        shape: tuple[int, int, int],
        condition: Condition,
        generator: Generators = None,
        draws: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Draws a normalised trajectory of `shape` `(B, T, D)` (Ho et al. 2020, algorithm 2).

        Args:
            shape: of the trajectory.
            condition: what it is conditioned on.
            generator: source of noise.
            draws: the noise, if it was drawn already: as `_draws` gives it.
        """
        table = linear_steps(self.noise_scheduler, self.num_inference_steps, self.kwargs)
        if table is None:
            scheduler = copy.deepcopy(self.noise_scheduler)
            trajectory = self._noise(shape, generator)
            trajectory = self._denoise_with_scheduler(scheduler, trajectory, condition, generator)
        else:
            draws = self._draws(table, shape, generator) if draws is None else draws
            trajectory = self._denoise_with_table(table, draws, condition)
        return condition.impose(trajectory)

    def _denoise_with_table(self, table: Sequence[LinearStep], draws: Sequence[Tensor], condition: Condition) -> Tensor:
        trajectory, *rest = draws
        noises = iter(rest)
        denoise = self._sampler([step.timestep for step in table], trajectory.shape)(**condition.model_kwargs)
        for index, step in enumerate(table):
            trajectory = condition.impose(trajectory)
            output = denoise(trajectory, index)
            trajectory = step.apply(trajectory, output, next(noises) if step.draws_noise else None)
        return trajectory

    def _sampler(self, timesteps: Sequence[int], shape: tuple[int, ...]) -> Callable[..., Denoise]:
        return self._samplers(self.model, timesteps, shape[0], shape[1], self.inference_dtype, self.device)

    def _denoise_with_scheduler(
        self, scheduler: Any, trajectory: Tensor, condition: Condition, generator: Generators
    ) -> Tensor:
        kwargs = dict(self.kwargs)
        if "generator" in inspect.signature(scheduler.step).parameters:
            kwargs["generator"] = list(generator) if isinstance(generator, tuple) else generator
        scheduler.set_timesteps(self.num_inference_steps, device=self.device)
        trajectory = trajectory * scheduler.init_noise_sigma
        denoise = self._sampler(scheduler.timesteps.tolist(), trajectory.shape)(**condition.model_kwargs)
        for index, timestep in enumerate(scheduler.timesteps):
            trajectory = condition.impose(trajectory)
            output = denoise(scheduler.scale_model_input(trajectory, timestep), index)
            trajectory = scheduler.step(output, timestep, trajectory, **kwargs).prev_sample
        return trajectory

    def _draws(self, table: Sequence[LinearStep], shape: tuple[int, ...], generator: Generators) -> Sequence[Tensor]:
        """The noise that sampling starts from, and that of each step that draws some, each of `shape`."""
        return [self._noise(shape, generator) for _ in range(1 + sum(step.draws_noise for step in table))]

    def _noise(self, shape: tuple[int, ...], generator: Generators) -> Tensor:
        return draw(torch.randn, shape, generator, self.device, self.dtype)

    def _say_once(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            logger.warning(message)

    def _executed(self, prediction: Tensor) -> Tensor:
        """The steps `(B, Ta, D)` of a prediction `(B, T, D)` that are carried out."""
        return prediction[:, self.action_start : self.action_start + self.n_action_steps]


def _batch_size(obs_dict: Mapping[str, Any]) -> int:
    if not obs_dict:
        raise KeyError("the observation is empty")
    return len(next(iter(obs_dict.values())))
