"""Choosing an action, `predict_action` from observations to actions: as policies do it and the plain way.

The plain way is one operation after the other in float32, convolutions channels first, and diffusers' own step. The
floor is what reading the denoiser's weights once a step takes.
"""

import argparse
import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, DDPMScheduler
from hydra import compose, initialize_config_dir
from plain_unet import PlainUnet
from side_by_side import DEVICE, compare, memory_rate
from torch import Tensor

from diffusion_policy.common.config import instantiate, register_resolvers
from diffusion_policy.model.common.normalizer import LinearNormalizer

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = {
    "state": ("train_diffusion_unet_lowdim_workspace", "pusht_lowdim"),
    "hybrid": ("train_diffusion_unet_hybrid_workspace", "pusht_image"),
    "small": ("quickstart", "pusht_lowdim"),
}
PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16}


def make_policy(kind: str) -> Any:
    """With random weights."""
    name, task = CONFIGS[kind]
    cfg = compose(name, [f"task={task}"])
    torch.manual_seed(0)
    policy = instantiate(cfg.policy, "policy")
    rows = {key: torch.randn(9, *value.shape[2:]) for key, value in policy._example_obs(1).items()}
    normalizer = LinearNormalizer()
    normalizer.fit({**rows, "action": torch.randn(9, policy.action_dim)})
    policy.set_normalizer(normalizer)
    return policy.to(DEVICE).eval()


@torch.no_grad()
def plain_prediction(policy: Any, model: PlainUnet, obs: dict[str, Tensor], start: Tensor) -> dict[str, Tensor]:
    """`predict_action` without any of its own speed."""
    observed = policy._observe(obs, policy.n_obs_steps)
    scheduler = copy.deepcopy(policy.noise_scheduler)
    scheduler.set_timesteps(policy.num_inference_steps)
    trajectory = start
    for timestep in scheduler.timesteps:
        output = model(trajectory, timestep, **observed.model_kwargs)
        trajectory = scheduler.step(output, timestep, trajectory).prev_sample
    result: dict[str, Tensor] = policy._result(trajectory)
    return result


def benchmark(kind: str, scheduler: Any, steps: int, batch_size: int, rounds: int, calls: int) -> None:
    policy = make_policy(kind)
    policy.noise_scheduler, policy.num_inference_steps = scheduler, steps
    torch.manual_seed(1)
    obs = {key: torch.randn_like(value) for key, value in policy._example_obs(batch_size).items()}
    start = torch.randn(policy._sample_shape(batch_size), device=DEVICE)
    weights = sum(parameter.numel() for parameter in policy.model.parameters())
    floors = {"plain": 1e3 * 4 * weights * steps / memory_rate()}
    model = PlainUnet(policy.model)
    plain = partial(plain_prediction, policy, model, obs, start)
    ways: dict[str, Callable[[], object]] = {"plain": lambda: plain()["action"].cpu()}

    def fast(policy: Any) -> Callable[[], object]:
        return lambda: policy.predict_action(obs)["action"].cpu()

    for name, dtype in PRECISIONS.items():
        copied = copy.deepcopy(policy)
        copied.inference_dtype = dtype
        copied.warmup(batch_size)
        ways[name] = fast(copied)
        floors[name] = 1e3 * dtype.itemsize * weights * steps / memory_rate()
    title = f"{kind}, {type(scheduler).__name__}, {steps} steps, batch {batch_size}, on {DEVICE}, {calls} in a row"
    compare(title, ways, rounds, calls, floors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    is_gpu = DEVICE.type == "cuda"
    parser.add_argument("--kinds", default="state,hybrid" if is_gpu else "small,state", help="of state, hybrid, small")
    parser.add_argument("--batch-sizes", default="1,4,56" if is_gpu else "1")
    parser.add_argument("--ddpm", action=argparse.BooleanOptionalAction, default=is_gpu, help="100 DDPM steps, too")
    parser.add_argument("--rounds", type=int, default=10 if is_gpu else 7)
    parser.add_argument("--calls", type=int, default=10 if is_gpu else 1, help="in a row, that a timing is the mean of")
    args = parser.parse_args()
    times = (args.rounds, args.calls)
    register_resolvers()
    with initialize_config_dir(str(ROOT / "diffusion_policy" / "config"), version_base=None):
        for kind in args.kinds.split(","):
            for batch_size in map(int, args.batch_sizes.split(",")):
                benchmark(kind, DDIMScheduler(100, beta_schedule="squaredcos_cap_v2"), 16, batch_size, *times)
            if args.ddpm:
                benchmark(kind, DDPMScheduler(100, beta_schedule="squaredcos_cap_v2"), 100, 1, *times)


if __name__ == "__main__":
    main()
