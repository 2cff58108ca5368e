"""Training steps of the hybrid image policy on several GPUs against one, in turns in one run.

Starts itself in one process for each GPU; without GPUs in two processes, with a small network. Batches come from data
on the GPU, as the workspace has them. Weak scaling keeps the batch of each GPU, strong scaling that of all together.
Efficiency is the samples a second of all, over those of one GPU and the number of GPUs.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from zarr.storage import MemoryStore

from diffusion_policy.common.config import instantiate, register_resolvers
from diffusion_policy.common.distributed import gather, is_first, is_launched, local_device, process_group, rank
from diffusion_policy.common.distributed import world_size as n_processes
from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.workspace.batch_source import BatchSource
from diffusion_policy.workspace.gradient_mean import BUCKET_BYTES, GradientMean
from diffusion_policy.workspace.resident_data import ResidentData, make_resident_data
from diffusion_policy.workspace.step_choices import choose_precision, choose_step
from diffusion_policy.workspace.train_workspace import TrainWorkspace

ROOT = Path(__file__).resolve().parents[1]
CONFIG, TASK = "train_diffusion_unet_hybrid_workspace", ["task=pusht_image", "policy.crop_shape=[84,84]"]
SMALL = ["policy.down_dims=[64,128]", "policy.diffusion_step_embed_dim=32"]
TIMEOUT_SEC = 300

Step = Callable[[], torch.Tensor]


def synthetic_demonstrations(n_episodes: int, n_steps: int = 125) -> MemoryStore:
    """Episodes of Push-T's shape, of noise, as a zarr in memory."""
    rng = np.random.default_rng(0)
    n = n_episodes * n_steps
    data = {
        "img": rng.integers(0, 256, (n, 96, 96, 3), dtype=np.uint8),
        "state": rng.uniform(0, 512, (n, 5)).astype(np.float32),
        "action": rng.uniform(0, 512, (n, 2)).astype(np.float32),
    }
    store = MemoryStore()
    ends = np.arange(n_steps, n + 1, n_steps)
    ReplayBuffer({"data": data, "meta": {"episode_ends": ends}}).save_to_store(store, compressors=None)
    return store


def make_dataset(cfg: DictConfig, args: argparse.Namespace) -> Any:
    data = args.data or synthetic_demonstrations(args.episodes)
    cfg = cfg.task.dataset.copy()
    del cfg.zarr_path
    return instantiate(cfg, "task.dataset", zarr_path=data, max_train_episodes=None)


class Way:
    """Training by one process, or by all that there are, as the workspace does it."""

    def __init__(self, cfg: DictConfig, dataset: Any, resident: ResidentData, batch_size: int, is_alone: bool) -> None:
        self.batch_size = batch_size
        self.is_alone = is_alone
        self.seconds: list[float] = []
        self.runs = is_first() or not is_alone
        if not self.runs:
            return
        cfg = cfg.copy()
        cfg.dataloader.batch_size = batch_size
        part = {"rank": 0, "n_ranks": 1} if is_alone else {"rank": rank(), "n_ranks": n_processes()}
        device = local_device(cfg.training.device)
        # Without a last, smaller batch, of which the step would be captured in a graph of its own.
        batches = BatchSource(dataset, device, resident=resident, drop_last=True, **cfg.dataloader, **part)
        self.workspace = TrainWorkspace(cfg, tempfile.gettempdir())
        self.workspace._build(dataset, len(batches), device)
        if not is_alone:
            self.workspace._resume(None, len(batches))
        step, precision = (choose(cfg.training[key], device) for key, choose in CHOICES.items())
        self.train_step = self.workspace._make_train_step(step, precision)
        self.workspace._set_train_mode()
        self._stream = _epochs(batches)
        self.loss = torch.zeros(())

    def average_in(self, bucket_bytes: float | None) -> "Way":
        """Sets the size of buckets of gradients; None for no averaging."""
        if self.runs:
            parameters = self.workspace.model.parameters()
            self.train_step.gradient_mean = bucket_bytes and GradientMean(parameters, bucket_bytes)
        return self

    def train(self, n_steps: int) -> None:
        """Trains where this way is for; the other processes wait."""
        gather(None)
        start = time.perf_counter()
        if self.runs:
            for _ in range(n_steps):
                self.loss = self.train_step(next(self._stream), self.workspace.global_step)["loss"]
                self.workspace.global_step += 1
            self.loss.item()  # waits for the device
        self.seconds.append((time.perf_counter() - start) / n_steps)
        gather(None)

    @property
    def is_graph(self) -> bool:
        """Whether steps are replayed from a CUDA graph."""
        return self.train_step._graph is not None

    def weights_agree(self) -> bool:
        """Whether all processes have the same weights, to the bit."""
        parameters = [p.detach().double().sum().item() for p in self.workspace.model.parameters()] if self.runs else []
        sums = gather(parameters)
        return self.is_alone or all(other == sums[0] for other in sums)


CHOICES = {"step": choose_step, "precision": choose_precision}


def _epochs(batches: BatchSource) -> Iterator[Any]:
    while True:
        yield from batches


def benchmark(args: argparse.Namespace) -> None:
    n, device = n_processes(), local_device("auto")
    overrides = [*TASK, *(SMALL if device.type == "cpu" else []), "training.seed=0", "training.use_ema=True"]
    with initialize_config_dir(str(ROOT / "diffusion_policy" / "config"), version_base=None):
        cfg = compose(CONFIG, [*overrides, *args.overrides])
    dataset = make_dataset(cfg, args)
    resident = make_resident_data("auto", dataset, device)
    for batch_size in args.batch_sizes:
        alone = Way(cfg, dataset, resident, batch_size, is_alone=True).average_in(None)
        ways = {f"1 process, batch {batch_size}": alone}
        for megabytes in args.bucket_mb:
            name = f"{n} processes, {batch_size} each, buckets of {megabytes:g} MB"
            ways[name] = Way(cfg, dataset, resident, n * batch_size, is_alone=False).average_in(megabytes * 1e6)
        if batch_size % n == 0:
            way = Way(cfg, dataset, resident, batch_size, is_alone=False)
            ways[f"{n} processes, {batch_size} in all"] = way
        for _ in range(args.rounds + 1):
            for way in ways.values():
                way.train(args.calls)
        report(ways, device, n)


def report(ways: dict[str, Way], device: torch.device, n: int) -> None:
    agree = {name: way.weights_agree() for name, way in ways.items()}
    if not is_first():
        return
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"\nHybrid image policy on {n} x {name}, torch {torch.__version__}")
    columns = "".join(f"{column:>12}" for column in ("median", "p5", "p95", "samples/s", "speed-up", "efficiency"))
    print(f"  {'':44}{columns}{'loss':>10}{'graph':>8}  weights agree")
    base = 0.0
    for name, way in ways.items():
        low, median, high = np.percentile(way.seconds[1:], [5, 50, 95])  # the first round warms up
        rate = way.batch_size / median
        base = base or rate
        times = "".join(f"{1e3 * seconds:>10.2f}ms" for seconds in (median, low, high))
        scaling = f"{rate / base:>11.2f}x" + (f"{'':>12}" if way.is_alone else f"{rate / base / n:>12.2f}")
        print(
            f"  {name:<44}{times}{rate:>12.1f}{scaling}{way.loss.item():>10.4f}{way.is_graph!s:>8}  {agree[name]}",
            flush=True,
        )
    if device.type == "cuda":
        print(f"  GPU memory of the first, all ways at once: {torch.cuda.max_memory_allocated() / 1e9:.1f} GB at most")


def main() -> None:
    is_gpu = torch.cuda.device_count() > 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, help="instead of one for each GPU")
    parser.add_argument("--data", help="Push-T demonstrations with images; without, noise of their shape")
    parser.add_argument("--episodes", type=int, default=206 if is_gpu else 4, help="of noise")
    parser.add_argument("--batch-sizes", type=_numbers(int), default=[64] if is_gpu else [8], help="of one process")
    parser.add_argument("--bucket-mb", type=_numbers(float), default=[BUCKET_BYTES / 1e6], help="sizes of buckets (MB)")
    parser.add_argument("--rounds", type=int, default=15 if is_gpu else 3)
    parser.add_argument("--calls", type=int, default=20 if is_gpu else 2, help="steps that a timing is the mean of")
    parser.add_argument("overrides", nargs="*", help="of the config, such as training.precision=float32")
    args = parser.parse_args()
    if not is_launched():
        n = args.processes or torch.cuda.device_count() or 2
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n}"]
        sys.exit(subprocess.run([sys.executable, *launcher, __file__, *sys.argv[1:]]).returncode)
    register_resolvers()
    store, _, _ = next(dist.rendezvous("env://"))
    with process_group(store, local_device("auto"), TIMEOUT_SEC):
        benchmark(args)


def _numbers(kind: type) -> Callable[[str], list[Any]]:
    return lambda text: [kind(word) for word in text.split(",")]


if __name__ == "__main__":
    main()
