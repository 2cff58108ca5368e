"""The runs of a sweep as they lie in its folder: this framework's or the original's, finished or under way."""

import json
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from diffusion_policy.common.json_logger import read_json_log
from diffusion_policy.sweep.worker import FAILURE

SILENCE = 3600.0
"""Seconds without a record after which a run is taken to be over, though not at its end: it was stopped or died."""


class RunFolder:
    """One run of a sweep, read while it goes on.

    Args:
        path: its folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self._log = path / "logs.json.txt"
        self._read_at: tuple[int, int] | None = None
        self._scores = pd.DataFrame()
        self._num_epochs: int | None = None

    def __str__(self) -> str:
        seed = seed_of(self.path)
        return self.name if seed is None else f"{self.name} (seed {seed})"

    @property
    def has_failed(self) -> bool:
        """Whether the sweep has given it up."""
        return (self.path / FAILURE).exists()

    def scores(self, keys: Sequence[str], index_key: str) -> pd.DataFrame:
        """The records with any of the keys or a validation loss, in the order of their steps.

        A step that was logged twice, by a run that was resumed, counts as logged last. The frame is the same object
        as before if none were logged since.
        """
        try:
            stat = self._log.stat()
        except FileNotFoundError:
            return self._scores
        if (stat.st_size, stat.st_mtime_ns) != self._read_at:
            self._read_at = stat.st_size, stat.st_mtime_ns
            frame = read_json_log(self._log, [*keys, "val_loss"])
            if index_key in frame:
                frame = frame.dropna(subset=index_key).drop_duplicates(index_key, keep="last").sort_values(index_key)
                frame = frame.reset_index(drop=True)
                self._scores = self._scores if frame.equals(self._scores) else frame
        return self._scores

    def is_over(self, silence: float) -> bool:
        """Whether it has failed, logged all of its last epoch, or not logged anything for long.

        Args:
            silence: seconds, for a run of which no config says how many epochs it has; for others it is an hour.
        """
        if self.has_failed:
            return True
        try:
            silent_for = time.time() - self._log.stat().st_mtime
        except FileNotFoundError:
            return False
        # The sweep's config before the run's: the run may be about to be continued for more epochs.
        for config in (self.path.parent / "config.yaml", self.path / ".hydra" / "config.yaml"):
            if self._num_epochs is None:
                self._num_epochs = _of_training(config, "num_epochs")
        if self._num_epochs is None:
            return silent_for > silence
        return silent_for > SILENCE or _ends_epoch(_last_record(self._log), self._num_epochs - 1)


def find_runs(folder: Path) -> list[RunFolder]:
    """The runs in a folder by their number: `train_0`, `train_1`, ..., or `0`, `1`, ... of Hydra's --multirun.

    Raises:
        FileNotFoundError: there are none.
    """
    for pattern in (r"train_(\d+)", r"(\d+)"):
        numbered = [(re.fullmatch(pattern, path.name), path) for path in folder.glob("*/")]
        if runs := sorted((int(match[1]), path) for match, path in numbered if match):
            return [RunFolder(path) for _, path in runs]
    raise FileNotFoundError(
        f"{folder} holds no runs: expected folders train_0, train_1, ... as ray_train_multirun.py makes them, or 0, 1, "
        "... of train.py --multirun"
    )


def seed_of(run: Path) -> int | None:
    """The seed that a run trains with; None if it has not begun, or if its config is gone."""
    return _of_training(run / ".hydra" / "config.yaml", "seed")


def _of_training(config: Path, key: str) -> int | None:
    """A number in `training` of a config; None if it is not there, or not a number that can be told from the file."""
    try:
        value = OmegaConf.select(OmegaConf.load(config), f"training.{key}")
    except Exception:  # of the file, of YAML or of an interpolation: what is asked for here can be done without
        return None
    return value if isinstance(value, int) else None


def _ends_epoch(record: dict[str, Any], epoch: int) -> bool:
    """Whether a record is the one that follows the steps of an epoch."""
    of_epochs = ("val_loss", "train_action_mse_error", "steps_per_second")
    return record.get("epoch", -1) >= epoch and any("/" in key or key in of_epochs for key in record)


def _last_record(log: Path) -> dict[str, Any]:
    """The last complete record of a log; empty if there is none."""
    with log.open("rb") as file:
        file.seek(-min(file.seek(0, os.SEEK_END), 2**16), os.SEEK_END)
        lines = file.read().rpartition(b"\n")[0].splitlines()
    try:
        record = json.loads(lines[-1]) if lines else {}
    except ValueError:
        record = {}
    return record if isinstance(record, dict) else {}
