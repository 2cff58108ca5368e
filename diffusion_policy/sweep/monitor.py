"""Keeps the figures of a sweep in `metrics/` up to date, while its runs go on or afterwards."""

import json
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from diffusion_policy.common.atomic_file import atomic_path
from diffusion_policy.common.json_logger import JsonLogger
from diffusion_policy.common.wandb_run import LogFunction
from diffusion_policy.sweep.aggregate import Aggregate, aggregate
from diffusion_policy.sweep.run_folders import RunFolder, find_runs
from diffusion_policy.sweep.sweep_report import write_sweep_report

logger = logging.getLogger(__name__)

SILENT_INTERVALS = 10


class Monitor:
    """Aggregates the runs of a sweep into files of its folder `metrics`.

    `logs.json.txt` has the mean figures step by step, `metrics.json` the last of them and those of each run,
    `report.html` shows them. Each is written anew, whole, when there is something new: it does not matter how a monitor
    before this one ended, or what a run that was resumed does once more.

    Runs that have failed or have no score yet are left out.

    Args:
        folder: of the sweep.
        keys: scores to aggregate.
        index_key: what steps are counted by: `global_step` or `epoch`.
        replace_slash: figures are named `max/test_mean_score`, not `max/test/mean_score`.

    Attributes:
        result: what was aggregated last; None if there was nothing.

    Raises:
        FileNotFoundError: the folder holds no runs.
    """

    def __init__(
        self, folder: Path, keys: Sequence[str], index_key: str = "global_step", replace_slash: bool = True
    ) -> None:
        self.result: Aggregate | None = None
        self._folder = folder
        self._keys, self._index_key, self._replace_slash = list(keys), index_key, replace_slash
        self._runs: dict[Path, RunFolder] = {}
        self._frames: dict[str, pd.DataFrame] = {}
        self._find_runs()
        self._metrics = metrics_folder(folder)

    def update(self) -> bool:
        """Reads what was logged since; returns whether there are new figures."""
        self._find_runs()
        alive = [run for run in self._runs.values() if not run.has_failed]
        frames = {run.name: run.scores(self._keys, self._index_key) for run in alive}
        if frames.keys() == self._frames.keys() and all(frames[run] is self._frames[run] for run in frames):
            return False
        self._frames = frames
        self.result = aggregate(frames, self._keys, self._index_key, self._replace_slash)
        if self.result is None:
            return False
        self._write(self.result)
        return True

    def is_over(self, silence: float) -> bool:
        """Whether all runs are; see `RunFolder.is_over`."""
        return all(run.is_over(silence) for run in self._runs.values())

    @property
    def labels(self) -> dict[str, str]:
        """Of all runs by name, with their seeds."""
        return {run.name: str(run) for run in self._runs.values()}

    def _find_runs(self) -> None:
        self._runs |= {run.path: run for run in find_runs(self._folder) if run.path not in self._runs}

    def _write(self, result: Aggregate) -> None:
        with atomic_path(self._metrics / "logs.json.txt") as path, JsonLogger(path) as log:
            for record in result.records:
                log.log(record)
        names = [name for name in result.last if "/" in name]
        half_widths = {name: result.half_width(name) for name in names}
        content = {
            **result.last,
            "half_width_95": {name: value for name, value in half_widths.items() if math.isfinite(value)},
            "runs": result.of_runs,
        }
        with atomic_path(self._metrics / "metrics.json") as path:
            path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        write_sweep_report(self._metrics / "report.html", self._folder, result, self.labels, self._frames, self._keys)


def metrics_folder(sweep: Path) -> Path:
    """Where the figures of a sweep are; made if it is missing."""
    folder = sweep / "metrics"
    folder.mkdir(exist_ok=True)
    return folder


def follow(monitor: Monitor, interval: float, log: LogFunction) -> None:
    """Updates every `interval` seconds until all runs are over; each new record is logged too, `log(record, step)`.

    A KeyboardInterrupt while nothing is to be done lets it update once more and end.
    """
    logged, is_over = -1, False
    while True:
        is_over = is_over or monitor.is_over(
            SILENT_INTERVALS * interval
        )  # before the update, which then misses nothing
        if monitor.update() and monitor.result is not None:
            logger.info(_progress(monitor.result))
            for record in monitor.result.records:
                if record["global_step"] > logged:
                    logged = int(record["global_step"])
                    log(record, logged)
        if is_over:
            return
        try:
            time.sleep(interval)
        except KeyboardInterrupt:
            is_over = True


def _progress(result: Aggregate) -> str:
    scores = [name.partition("/")[2] for name in result.last if name.startswith("max/")]
    figures = [
        f"{score} {result.last[f'last/{score}']:.3f}, best {result.last[f'max/{score}']:.3f}" for score in scores
    ]
    return f"step {result.last['global_step']}, mean of {len(result.of_runs)} runs: {'; '.join(figures)}"
