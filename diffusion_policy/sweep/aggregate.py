"""The scores of several runs as one: step by step, and with how sure their mean is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from diffusion_policy.common.statistics import t_interval
from diffusion_policy.sweep.metrics import compute_metrics, compute_metrics_agg

MAX_RECORDS = 500


@dataclass(frozen=True)
class Aggregate:
    """Scores of the runs of a sweep.

    Attributes:
        records: for each step at which a run was scored, between those that all have reached, the mean figures by name;
            of more than `MAX_RECORDS` so many, evenly spread.
        of_runs: by run, its figures at the last of these steps.
        ends: by run, where its scores end.
    """

    records: list[dict[str, float]]
    of_runs: dict[str, dict[str, float]]
    ends: dict[str, int]

    @property
    def last(self) -> dict[str, float]:
        """The latest record."""
        return self.records[-1]

    def values(self, name: str) -> list[float]:
        """A figure of each run that has it."""
        return [figures[name] for figures in self.of_runs.values() if name in figures]

    def half_width(self, name: str) -> float:
        """Half of the 95 % interval of a mean figure over the runs, by Student's t; NaN for a single run."""
        low, high = t_interval(self.values(name))
        return (high - low) / 2


def aggregate(
    frames: Mapping[str, pd.DataFrame], keys: Sequence[str], index_key: str, replace_slash: bool
) -> Aggregate | None:
    """Aggregates the records of runs, `read_json_log`'s with `index_key` ascending; None if no step is common to all.

    Runs without any of the scores `keys` are left out.
    """
    scored = {run: frame[_scored(frame, keys)] for run, frame in frames.items()}
    frames = {run: frame for run, frame in frames.items() if len(scored[run])}
    steps = _common_steps([scored[run][index_key] for run in frames])
    if len(steps) == 0:
        return None
    options: dict[str, Any] = {"replace_slash": replace_slash, "index_key": index_key}
    records: list[dict[str, float]] = []
    for step in steps:
        there = pd.concat([frame[frame[index_key] <= step].iloc[-1:] for frame in frames.values()])
        record: dict[str, float] = {name: int(there[name].max()) for name in ("global_step", "epoch") if name in there}
        for key in keys:
            record |= compute_metrics_agg(list(frames.values()), key, step, **options)
        records.append(record)
    of_runs: dict[str, dict[str, float]] = {run: {} for run in frames}
    for run, frame in frames.items():
        for key in keys:
            of_runs[run] |= compute_metrics(frame, key, steps[-1], **options)
    return Aggregate(records, of_runs, {run: int(scored[run]["global_step"].iloc[-1]) for run in frames})


def _scored(frame: pd.DataFrame, keys: Sequence[str]) -> pd.Series:
    return frame.reindex(columns=list(keys)).notna().any(axis="columns")


def _common_steps(of_runs: Sequence[pd.Series]) -> np.ndarray:
    if not of_runs:
        return np.zeros(0)
    steps = np.unique(np.concatenate(of_runs))
    steps = steps[(steps >= max(s.iloc[0] for s in of_runs)) & (steps <= min(s.iloc[-1] for s in of_runs))]
    return (
        steps[np.unique(np.linspace(0, len(steps) - 1, min(len(steps), MAX_RECORDS)).astype(int))]
        if len(steps)
        else steps
    )
