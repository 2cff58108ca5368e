"""Times ways of doing the same thing in turns, so that noise of the machine meets all alike."""

import time
from collections.abc import Callable, Mapping

import numpy as np
import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def compare(
    title: str,
    ways: Mapping[str, Callable[[], object]],
    rounds: int = 7,
    calls: int = 1,
    floors: dict[str, float] | None = None,
) -> dict[str, float]:
    """Prints, for each way, median and percentiles in ms, and how many times faster than the first it is.

    Args:
        title: of the table.
        ways: by name; the first is what the others are held against. Each is called until the GPU is done.
        rounds: timings of each way, after one that warms up.
        calls: calls that a timing is the mean of.
        floors: least milliseconds that the hardware could take for a call, by name of the way.

    Returns:
        Median milliseconds of a call by name.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    memory: dict[str, float] = {}
    for round_index in range(rounds + 1):
        for name, way in ways.items():
            if DEVICE.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            start = time.perf_counter()
            for _ in range(calls):
                way()
            if DEVICE.type == "cuda":
                torch.cuda.synchronize()
                memory[name] = torch.cuda.max_memory_allocated() / 1e9
            if round_index:  # the first round warms up
                times[name].append((time.perf_counter() - start) * 1e3 / calls)
    print(f"\n{title}")
    columns = "".join(f"{column:>11}" for column in ("median", "p5", "p95", "a second"))
    print(f"  {'':34}{columns}{'ratio':>8}{'of floor':>10}{'GPU memory':>12}")
    medians = {}
    for name, values in times.items():
        low, medians[name], high = np.percentile(values, [5, 50, 95])
        row = "".join(f"{value:>9.2f}ms" for value in (medians[name], low, high))
        ratio = medians[next(iter(ways))] / medians[name]
        floor = f"{floors[name] / medians[name]:>9.0%}" if floors and name in floors else ""
        held = f"{memory[name]:>9.2f} GB" if name in memory else ""
        print(f"  {name:<34}{row}{1e3 / medians[name]:>11.1f}{ratio:>7.1f}x{floor:>10}{held:>12}", flush=True)
    return medians


def matmul_rate(dtype: torch.dtype) -> float:
    """Floating-point operations a second that large matrix products reach on the device."""
    size = 8192 if DEVICE.type == "cuda" else 2048
    a, b = torch.randn(2, size, size, device=DEVICE).to(dtype).unbind()
    return 2 * size**3 / _best_seconds(lambda: a @ b)


def memory_rate() -> float:
    """Bytes a second that the device's memory reads."""
    size = 2**30 if DEVICE.type == "cuda" else 2**28
    data = torch.ones(size // 4, device=DEVICE)
    return size / _best_seconds(data.sum)


def _best_seconds(function: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        function()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best
