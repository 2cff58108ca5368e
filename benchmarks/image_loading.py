"""Push-T images into memory as bytes: block by block, or read whole as they are stored and converted then.

Usage: python benchmarks/image_loading.py [PATH of demonstrations whose array `img` is stored as floats]

Without a path, images drawn of the shipped demonstrations are stored so for the occasion.
"""

import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.dataset.image_loading import load_images
from diffusion_policy.env.pusht.state_renderer import render_states

DEMONSTRATIONS = Path(__file__).resolve().parents[1] / "assets" / "pusht_demo.zarr.zip"
N_EPISODES = 50
ROUNDS = 3


def whole_then_converted(path: str) -> NDArray[np.uint8]:
    return ReplayBuffer.copy_from_path(path, keys=["img"])["img"].astype(np.uint8)


def block_by_block(path: str) -> NDArray[np.uint8]:
    buffer = ReplayBuffer.create_from_path(path)
    return load_images(buffer["img"], "img", buffer.episode_ends, path)


def peak_memory() -> float:
    """MB that this process has used at most."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e3 for line in status if line.startswith("VmHWM"))


def measure(way: Callable[[str], NDArray[np.uint8]], path: str) -> tuple[float, float, int]:
    """Seconds, MB that memory grew by, and a checksum of the images."""
    before, start = peak_memory(), time.perf_counter()
    images = way(path)
    return time.perf_counter() - start, peak_memory() - before, int(images.sum(dtype=np.int64))


def store_drawn_images(path: str) -> None:
    """Images of the first of the shipped demonstrations, as float32 like the published ones."""
    shipped = ReplayBuffer.copy_from_path(DEMONSTRATIONS, keys=["state"])
    buffer = ReplayBuffer.create_from_path(path, mode="w")
    for i in range(N_EPISODES):
        buffer.add_episode({"img": render_states(shipped.get_episode(i)["state"]).astype(np.float32)})


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = sys.argv[1] if len(sys.argv) > 1 else f"{folder}/drawn.zarr"
        if len(sys.argv) < 2:
            store_drawn_images(path)
        compare_ways(path)


def compare_ways(path: str) -> None:
    ways = {"whole as stored, then converted": whole_then_converted, "block by block": block_by_block}
    figures: dict[str, list[tuple[float, float, int]]] = {name: [] for name in ways}
    # In turns, so that noise of the machine meets both alike; each in a fresh process, whose peak is its own.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        for _ in range(ROUNDS):
            for name, way in ways.items():
                figures[name].append(pool.submit(measure, way, path).result())
    assert len({checksum for values in figures.values() for _, _, checksum in values}) == 1
    print(f"\nImages of {path} as uint8, {ROUNDS} rounds")
    print(f"  {'':34}{'median':>10}{'min':>10}{'max':>10}{'ratio':>8}{'memory':>12}")
    baseline = None
    for name, values in figures.items():
        seconds, megabytes = [value[0] for value in values], statistics.median(value[1] for value in values)
        median = statistics.median(seconds)
        baseline = baseline or median
        row = f"{median:>9.2f}s{min(seconds):>9.2f}s{max(seconds):>9.2f}s{baseline / median:>7.1f}x"
        print(f"  {name:<34}{row}{megabytes:>9.0f} MB")


if __name__ == "__main__":
    main()
