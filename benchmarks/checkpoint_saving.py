"""What saving a checkpoint of 260 MB costs the training thread: written there, or copied and written beside it.

The stall is how long the call takes while nothing else is under way. While the file is written, training goes on, but
shares the interpreter and the cores with the writing: the steps in that time are timed against steps alone.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from side_by_side import DEVICE, compare

from diffusion_policy.common.background_job import BackgroundJob
from diffusion_policy.common.checkpoint_file import read_checkpoint, write_checkpoint
from diffusion_policy.common.checkpoint_hash import verify_content
from diffusion_policy.common.plain_state import HostSnapshots

N_TENSORS, SIZE = 130, 500_000  # x 4 bytes: 260 MB


class Training:
    """Steps of small operations, as those of a policy are, and a state to save."""

    def __init__(self) -> None:
        self.state = {f"w{i}": torch.randn(SIZE, device=DEVICE) for i in range(N_TENSORS)}
        self.model = torch.nn.Sequential(*(torch.nn.Linear(128, 128) for _ in range(20))).to(DEVICE)
        self.batch = torch.randn(64, 128, device=DEVICE)

    def step(self) -> None:
        self.model(self.batch).square().mean().backward()


def steps_while(training: Training, job: BackgroundJob) -> float:
    """Mean milliseconds of a step until the job ends."""
    start, n_steps = time.perf_counter(), 0
    while not job.has_ended or n_steps < 20:
        training.step()
        n_steps += 1
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    job.wait()
    return (time.perf_counter() - start) * 1e3 / n_steps


def main() -> None:
    training, snapshots, job = Training(), HostSnapshots(), BackgroundJob("save")
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCHMARK_DIR", ".")) as folder:
        path = Path(folder, "latest.ckpt")

        def beside() -> None:
            job.wait()  # not a part of the stall: there is one save every few minutes
            start = time.perf_counter()
            snapshot = snapshots.take(training.state)
            stalls.append((time.perf_counter() - start) * 1e3)
            job.start(lambda: write_checkpoint(path, snapshot))

        def inline() -> None:
            job.wait()
            write_checkpoint(path, snapshots.take(training.state))

        stalls: list[float] = []
        beside()  # allocates the buffers
        job.wait()
        first, stalls[:] = stalls[0], []
        medians = compare(
            "Saving 260 MB", {"on the training thread": inline, "whole save, in its thread": _then(beside, job)}
        )
        stall = sorted(stalls)[len(stalls) // 2]
        ratio = medians["on the training thread"] / stall
        print(f"  {'stall of the training thread':<34}{stall:>9.2f}ms  {ratio:.1f}x less; the first {first:.0f} ms")

        alone, during = [], []
        for _ in range(5):
            alone.append(steps_while(training, job))
            beside()
            during.append(steps_while(training, job))
        print(f"\nA training step, ms: alone {min(alone):.2f}, while a checkpoint is written {min(during):.2f}")

        def plain() -> object:
            return torch.load(path, weights_only=True)

        ways = {"torch.load": plain, "the content hash": lambda: verify_content(path)}
        compare("Reading it", {**ways, "read_checkpoint": lambda: read_checkpoint(path)})


def _then(start: Callable[[], None], job: BackgroundJob) -> Callable[[], None]:
    def run() -> None:
        start()
        job.wait()

    return run


if __name__ == "__main__":
    main()
