"""Times two ways of doing the same thing in turns, so that noise of the machine meets both alike."""

import statistics
import time
from collections.abc import Callable


def compare(title: str, ways: dict[str, Callable[[], object]], rounds: int = 7) -> None:
    """Prints median and spread of each way in ms, and how many times faster than the first each one is."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for round_index in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if round_index:  # the first round warms up
                times[name].append((time.perf_counter() - start) * 1e3)
    print(f"\n{title}")
    print(f"  {'':34}{'median':>10}{'min':>10}{'max':>10}{'ratio':>8}")
    baseline = statistics.median(next(iter(times.values())))
    for name, values in times.items():
        median = statistics.median(values)
        row = f"{median:>8.1f}ms{min(values):>8.1f}ms{max(values):>8.1f}ms{baseline / median:>7.1f}x"
        print(f"  {name:<34}{row}")
