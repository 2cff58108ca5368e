"""Training steps, batches included: as the workspace makes them and the plain way, from the same config.

The plain way is sample by sample from the dataset, float32, one operation after the other, convolutions channels
first, each parameter averaged by itself. The floor is what the hardware needs for the step's matrix products, at the
rate that large ones reach here, and for reading and writing weights, gradients, moments and average once.
"""

import argparse
import copy
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from plain_training import plain_training
from plain_unet import PlainUnet
from side_by_side import DEVICE, compare, matmul_rate, memory_rate
from torch.utils.flop_counter import FlopCounterMode

from diffusion_policy.common.config import instantiate, register_resolvers
from diffusion_policy.workspace.batch_source import BatchSource
from diffusion_policy.workspace.resident_data import make_resident_data
from diffusion_policy.workspace.step_choices import choose_precision, choose_step
from diffusion_policy.workspace.train_workspace import TrainWorkspace

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = {
    "state": ("train_diffusion_unet_lowdim_workspace", "pusht_lowdim"),
    "hybrid": ("train_diffusion_unet_hybrid_workspace", "pusht_image"),
}
BYTES_A_PARAMETER = 40
"""Weight, both moments and average read and written, gradient written and read."""


def make_config(kind: str, data: str, batch_size: int | None) -> DictConfig:
    name, task = CONFIGS[kind]
    overrides = [f"task={task}", f"task.dataset.zarr_path={data}", f"training.device={DEVICE}", "training.seed=0"]
    if batch_size:
        overrides.append(f"dataloader.batch_size={batch_size}")
    return compose(name, overrides)


def fast_training(cfg: DictConfig, dataset: Any, folder: str, **training: Any) -> Callable[[], torch.Tensor]:
    """A function that trains on the next batch as the workspace does."""
    cfg = copy.deepcopy(cfg)
    cfg.training.update(training)
    workspace = TrainWorkspace(cfg, folder)
    resident = make_resident_data("auto", dataset, DEVICE)
    batches = BatchSource(dataset, DEVICE, resident=resident, **cfg.dataloader)
    workspace._build(dataset, len(batches), DEVICE)
    step = choose_step(cfg.training.step, DEVICE)
    workspace.train_step = workspace._make_train_step(step, choose_precision(cfg.training.precision, DEVICE))
    workspace._set_train_mode()
    stream = epochs(batches)

    def train() -> torch.Tensor:
        losses = workspace.train_step(next(stream), workspace.global_step)
        workspace.global_step += 1
        return losses["loss"]

    return train


def epochs(batches: BatchSource) -> Iterator[Any]:
    while True:
        yield from batches


def make_plain(cfg: DictConfig, dataset: Any) -> tuple[Any, Any]:
    """A policy with the plain U-Net, and its average."""
    torch.manual_seed(0)
    policy = instantiate(cfg.policy, "policy")
    policy.set_normalizer(dataset.get_normalizer())
    policy.model = PlainUnet(policy.model)
    policy.to(DEVICE)
    return policy, copy.deepcopy(policy).requires_grad_(False)


def floor_ms(policy: Any, batch: Any, dtype: torch.dtype) -> float:
    """Least milliseconds of a step."""
    policy.train()
    with FlopCounterMode(display=False) as counter:
        policy.compute_loss(batch).backward()
    policy.zero_grad(set_to_none=True)
    parameters = sum(parameter.numel() for parameter in policy.parameters())
    seconds = counter.get_total_flops() / matmul_rate(dtype) + BYTES_A_PARAMETER * parameters / memory_rate()
    return 1e3 * seconds


def benchmark(kind: str, args: argparse.Namespace) -> None:
    cfg = make_config(kind, args.data, args.batch_size)
    dataset = instantiate(cfg.task.dataset, "task.dataset")
    policy, average = make_plain(cfg, dataset)
    batch = next(iter(BatchSource(dataset, DEVICE, batch_size=cfg.dataloader.batch_size)))
    half = DEVICE.type == "cuda" or args.bf16
    floors = {"float32": floor_ms(policy, batch, torch.float32)}
    if half:
        floors["bf16"] = floor_ms(policy, batch, torch.bfloat16)
    loader = {"batch_size": cfg.dataloader.batch_size, "num_workers": args.workers}
    ways = {"plain": plain_training(policy, average, dataset, DEVICE, cfg.optimizer.lr, **loader)}
    limits = {"plain": floors["float32"]}
    steps = args.steps.split(",")
    with tempfile.TemporaryDirectory() as folder:
        for precision in floors:
            for step in steps:
                name = f"{step}, {precision}"
                ways[name] = fast_training(cfg, dataset, folder, step=step, precision=precision)
                limits[name] = floors[precision]
        for way in ways.values():  # graphs are captured and code is compiled in the first steps
            for _ in range(args.warmup):
                way()
        title = f"{kind}, a training step of {cfg.dataloader.batch_size} samples on {DEVICE}"
        compare(f"{title}, {args.workers} workers for the plain way", ways, args.rounds, args.calls, limits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    is_gpu = DEVICE.type == "cuda"
    parser.add_argument("--data", default=str(ROOT / "assets" / "pusht_demo.zarr.zip"), help="Push-T demonstrations")
    parser.add_argument("--kinds", default="state,hybrid" if is_gpu else "state", help="of state, hybrid")
    parser.add_argument("--steps", default="auto" if is_gpu else "eager", help="of auto, eager, compile, graph")
    parser.add_argument("--batch-size", type=int, help="instead of the config's")
    parser.add_argument("--workers", type=int, default=8 if is_gpu else 0, help="processes that load for the plain way")
    parser.add_argument("--rounds", type=int, default=10 if is_gpu else 3)
    parser.add_argument("--calls", type=int, default=20 if is_gpu else 1, help="steps that a timing is the mean of")
    parser.add_argument("--warmup", type=int, default=5 if is_gpu else 1, help="steps before the first timing")
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True, help="on the CPU too")
    args = parser.parse_args()
    register_resolvers()
    with initialize_config_dir(str(ROOT / "diffusion_policy" / "config"), version_base=None):
        for kind in args.kinds.split(","):
            benchmark(kind, args)


if __name__ == "__main__":
    main()
