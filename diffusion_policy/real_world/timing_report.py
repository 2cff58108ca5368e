"""How an episode kept time."""

import time
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from diffusion_policy.real_world.cameras.recording_thread import RecordingReport


class TimingReport:
    """Durations by name, and counts, of one episode."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._last_cycle: float | None = None
        self._durations: dict[str, list[float]] = defaultdict(list)
        self._counts: dict[str, int] = defaultdict(int)

    def cycle(self) -> None:
        """A cycle of the loop has begun."""
        now = time.monotonic()
        if self._last_cycle is not None:
            self.add("period", now - self._last_cycle)
        self._last_cycle = now

    def add(self, name: str, seconds: float) -> None:
        """Something took so long, or was so late."""
        self._durations[name].append(seconds)

    def count(self, name: str, n: int = 1) -> None:
        """Something happened."""
        self._counts[name] += n

    def summary(self, videos: Iterable[RecordingReport] = ()) -> dict[str, float]:
        """Of each duration the median, 99th percentile and greatest (ms); the counts; and frames of all cameras."""
        result: dict[str, float] = {"duration_s": round(time.monotonic() - self._start, 3)}
        for name, seconds in sorted(self._durations.items()):
            p50, p99, greatest = np.percentile(1000 * np.array(seconds), [50, 99, 100])
            result |= {f"{name}_p50_ms": p50, f"{name}_p99_ms": p99, f"{name}_max_ms": greatest}
        frames = {"frames": 0, "frames_repeated": 0, "frames_dropped": 0}
        for video in videos:
            frames["frames"] += video.n_frames
            frames["frames_repeated"] += video.n_repeated
            frames["frames_dropped"] += video.n_dropped
        rounded = {name: round(float(value), 3) for name, value in result.items()}
        return {**rounded, **dict(sorted(self._counts.items())), **frames}


def in_words(summary: dict[str, float]) -> str:
    """A line a duration, then the counts."""
    names = [name.removesuffix("_p50_ms") for name in summary if name.endswith("_p50_ms")]
    lines = [
        f"  {name}: median {summary[f'{name}_p50_ms']:.1f} ms, 99 % {summary[f'{name}_p99_ms']:.1f} ms, "
        f"at most {summary[f'{name}_max_ms']:.1f} ms"
        for name in names
    ]
    counts = [f"{name} {value:g}" for name, value in summary.items() if not name.endswith("_ms")]
    return "\n".join([*lines, f"  {', '.join(counts)}"])
