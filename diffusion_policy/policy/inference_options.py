"""What of a trained policy may be chosen anew when it acts."""

from typing import Any

from diffusion_policy.policy.base_diffusion_policy import BaseDiffusionPolicy
from diffusion_policy.policy.base_policy import check_steps


def set_inference_options(
    policy: Any, num_inference_steps: int | None = None, n_action_steps: int | None = None
) -> None:
    """Sets the denoising steps, and how many actions of a prediction are executed; None leaves what was trained.

    Raises:
        ValueError: the policy does not denoise, predicts too few steps, or its scheduler knows no so many.
    """
    if num_inference_steps is None and n_action_steps is None:
        return
    name = type(policy).__name__
    if not isinstance(policy, BaseDiffusionPolicy):
        raise ValueError(f"{name} has neither num_inference_steps nor n_action_steps to choose: leave them out")
    if num_inference_steps is not None:
        most = policy.noise_scheduler.config.num_train_timesteps
        if not 1 <= num_inference_steps <= most:
            raise ValueError(f"num_inference_steps={num_inference_steps}, expected 1 to {most} as {name} was trained")
        policy.num_inference_steps = num_inference_steps
    if n_action_steps is not None and n_action_steps != policy.n_action_steps:
        if policy.pred_action_steps_only:
            raise ValueError(f"{name} was trained to predict {policy.n_action_steps} actions and no others")
        check_steps(policy.horizon, policy.n_obs_steps, n_action_steps)
        policy.n_action_steps = n_action_steps
