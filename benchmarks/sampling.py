"""Denoising loop at batch 1: coefficients from a table, or looked up by the scheduler at each step."""

import torch
from diffusers import DDIMScheduler, DDPMScheduler
from side_by_side import compare

from diffusion_policy.model.common.normalizer import LinearNormalizer
from diffusion_policy.model.diffusion.conditional_unet1d import ConditionalUnet1D
from diffusion_policy.policy.base_diffusion_policy import Condition
from diffusion_policy.policy.diffusion_unet_lowdim_policy import DiffusionUnetLowdimPolicy


def make_policy(scheduler: DDPMScheduler | DDIMScheduler, steps: int) -> DiffusionUnetLowdimPolicy:
    """The small policy of `quickstart`, on the GPU where there is one."""
    model = ConditionalUnet1D(
        2, global_cond_dim=40, diffusion_step_embed_dim=64, down_dims=[32, 64, 128], kernel_size=5
    )
    shape = {"horizon": 16, "obs_dim": 20, "action_dim": 2, "n_action_steps": 8, "n_obs_steps": 2}
    policy = DiffusionUnetLowdimPolicy(model, scheduler, **shape, num_inference_steps=steps, obs_as_global_cond=True)
    normalizer = LinearNormalizer()
    normalizer.fit({"obs": torch.randn(9, 20), "action": torch.randn(9, 2)})
    policy.set_normalizer(normalizer)
    return policy.to("cuda" if torch.cuda.is_available() else "cpu").eval()


@torch.no_grad()
def benchmark(scheduler: DDPMScheduler | DDIMScheduler, steps: int) -> None:
    policy = make_policy(scheduler, steps)
    condition = Condition(policy._model_kwargs(torch.randn(1, 2, 20, device=policy.device)))
    start = torch.randn(1, 16, 2, device=policy.device)
    ways = {
        "scheduler.step": lambda: policy._denoise_with_scheduler(scheduler, start, condition, None).cpu(),
        "table": lambda: policy.conditional_sample(start.shape, condition).cpu(),
    }
    compare(f"{type(scheduler).__name__}, {steps} steps, {policy.device}", ways)


if __name__ == "__main__":
    benchmark(DDIMScheduler(100), 16)
    benchmark(DDPMScheduler(100), 100)
