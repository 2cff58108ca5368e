"""Samples that come at any time, placed on a grid of steps: step `i` is the time `start_time + i * dt` (s)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def get_accumulate_timestamp_idxs(
    timestamps: Sequence[float] | NDArray[np.float64],
    start_time: float,
    dt: float,
    eps: float = 1e-5,
    next_global_idx: int | None = 0,
    allow_negative: bool = False,
) -> tuple[list[int], list[int], int]:
    """For each step of the grid the first sample that is not before it, from step `next_global_idx` on.

    A sample stands for all steps that ended up empty before it: what is filled never has gaps.

    Args:
        timestamps: of the samples (s), ascending.
        start_time: of step 0.
        dt: between steps.
        eps: how much earlier (s) a sample may be than its step.
        next_global_idx: first step to fill; None: that of the first sample.
        allow_negative: whether steps before `start_time` exist.

    Returns:
        Indices of samples, the steps they stand for, and the first step that is still empty.
    """
    sample_idxs: list[int] = []
    steps: list[int] = []
    next_step = next_global_idx
    for sample_idx, timestamp in enumerate(timestamps):
        step = int(np.floor((timestamp - start_time) / dt + eps / dt))
        if step < 0 and not allow_negative:
            continue
        next_step = step if next_step is None else next_step
        n_missing = max(step - next_step + 1, 0)
        sample_idxs += [sample_idx] * n_missing
        steps += range(next_step, next_step + n_missing)
        next_step += n_missing
    return sample_idxs, steps, 0 if next_step is None else next_step


def align_timestamps(
    timestamps: Sequence[float] | NDArray[np.float64],
    target_global_idxs: Sequence[int],
    start_time: float,
    dt: float,
    eps: float = 1e-5,
) -> list[int]:
    """For each of the steps `target_global_idxs`, ascending, the index of the sample that stands for it.

    Where samples begin too late or end too early the first or the last stands for the steps without one.

    Raises:
        ValueError: there are no samples, or only ones before the first of the steps.
    """
    if len(target_global_idxs) == 0:
        return []
    first = int(target_global_idxs[0])
    sample_idxs, steps, _ = get_accumulate_timestamp_idxs(
        timestamps, start_time, dt, eps, next_global_idx=first, allow_negative=True
    )
    if not steps:
        wanted = f"steps {first} to {target_global_idxs[-1]} from {start_time + first * dt:.4f} s on"
        span = f"lie from {timestamps[0]:.4f} to {timestamps[-1]:.4f} s" if len(timestamps) else "are none"
        raise ValueError(f"No sample can stand for {wanted}: the samples {span}.")
    return [sample_idxs[min(int(target) - first, len(sample_idxs) - 1)] for target in target_global_idxs]


class _Grid:
    """What was accumulated: one timestamp for each step."""

    def __init__(self, start_time: float, dt: float, eps: float = 1e-5) -> None:
        self.start_time = start_time
        self.dt = dt
        self.eps = eps
        self._timestamps: list[float] = []

    def __len__(self) -> int:
        return len(self._timestamps)

    @property
    def actual_timestamps(self) -> NDArray[np.float64]:
        """When what stands for each step was made or due, `(T,)`, s."""
        return np.array(self._timestamps, np.float64)

    @property
    def timestamps(self) -> NDArray[np.float64]:
        """The grid, `(T,)`, s."""
        return self.start_time + np.arange(len(self), dtype=np.float64) * self.dt


class TimestampObsAccumulator(_Grid):
    """Observations on the grid: of each step the first that is not before it, never changed afterwards.

    Args:
        start_time: of step 0 (s).
        dt: between steps (s).
        eps: how much earlier (s) an observation may be than its step.
    """

    def __init__(self, start_time: float, dt: float, eps: float = 1e-5) -> None:
        super().__init__(start_time, dt, eps)
        self._data: dict[str, list[NDArray[Any]]] = {}

    @property
    def data(self) -> dict[str, NDArray[Any]]:
        """Arrays `(T, ...)`; no keys before there is a step."""
        return {key: np.stack(values) for key, values in self._data.items()}

    def put(self, data: Mapping[str, NDArray[Any]], timestamps: Sequence[float] | NDArray[np.float64]) -> None:
        """Adds observations `(N, ...)` made at `timestamps` `(N,)`; ones that were put before are ignored.

        Raises:
            ValueError: keys differ from those put before, or lengths differ; nothing is added.
        """
        _check_lengths(data, timestamps)
        if self._data and data.keys() != self._data.keys():
            raise ValueError(f"Observations have keys {sorted(self._data)}, got {sorted(data)}.")
        sample_idxs, _, _ = get_accumulate_timestamp_idxs(
            timestamps, self.start_time, self.dt, self.eps, next_global_idx=len(self)
        )
        for sample_idx in sample_idxs:
            self._timestamps.append(float(timestamps[sample_idx]))
            for key, values in data.items():
                self._data.setdefault(key, []).append(np.array(values[sample_idx]))


class TimestampActionAccumulator(_Grid):
    """Actions on the grid: of each step the one sent last. Arguments as for `TimestampObsAccumulator`."""

    def __init__(self, start_time: float, dt: float, eps: float = 1e-5) -> None:
        super().__init__(start_time, dt, eps)
        self._actions: list[NDArray[Any]] = []

    @property
    def actions(self) -> NDArray[Any]:
        """`(T, Da)`."""
        return np.array(self._actions)

    def put(self, actions: ArrayLike, timestamps: Sequence[float] | NDArray[np.float64]) -> None:
        """Adds actions `(N, Da)` that are due at `timestamps` `(N,)`, in place of those sent before for these steps.

        Raises:
            ValueError: lengths differ; nothing is added.
        """
        actions = np.asarray(actions)
        _check_lengths({"actions": actions}, timestamps)
        sample_idxs, steps, _ = get_accumulate_timestamp_idxs(
            timestamps, self.start_time, self.dt, self.eps, next_global_idx=None
        )
        if steps and steps[0] > len(self):  # nothing was sent for the steps between: this is what came next
            sample_idxs = [sample_idxs[0]] * (steps[0] - len(self)) + sample_idxs
            steps = [*range(len(self), steps[0]), *steps]
        for sample_idx, step in zip(sample_idxs, steps, strict=True):
            self._actions[step : step + 1] = [np.array(actions[sample_idx])]
            self._timestamps[step : step + 1] = [float(timestamps[sample_idx])]


def _check_lengths(data: Mapping[str, NDArray[Any]], timestamps: Sequence[float] | NDArray[np.float64]) -> None:
    for key, values in data.items():
        if len(values) != len(timestamps):
            raise ValueError(f"{len(timestamps)} timestamps need as many of '{key}', got {len(values)}.")
