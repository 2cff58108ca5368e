"""What saving a checkpoint of 260 MB costs the training thread: written there, or copied and written beside it.

The stall is how long the call takes, which copies the state from the device, while nothing else is under way. The file
is then written beside training, which shares the cores with that: a number of steps is timed alone, with a save on
their thread, and with one beside them.
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
N_STEPS = 300


class Training:
    """Steps of small operations, as those of a policy are, and a state to save."""

    def __init__(self) -> None:
        self.state = {f"w{i}": torch.randn(SIZE, device=DEVICE) for i in range(N_TENSORS)}
        self.model = torch.nn.Sequential(*(torch.nn.Linear(128, 128) for _ in range(20))).to(DEVICE)
        self.batch = torch.randn(64, 128, device=DEVICE)

    def step(self) -> None:
        self.model(self.batch).square().mean().backward()


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

        def train(save: Callable[[], None] = lambda: None) -> None:
            save()
            for _ in range(N_STEPS):
                training.step()
            job.wait()

        ways = {"alone": train, "a save on their thread": lambda: train(inline), "a save beside": lambda: train(beside)}
        compare(f"{N_STEPS} training steps, until the file is there too", ways)

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
