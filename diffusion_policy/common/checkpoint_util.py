"""Keeping the k checkpoints of the best metric."""

import logging
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from string import Formatter
from typing import Any, Literal

log = logging.getLogger(__name__)


class TopKCheckpointManager:
    """Says which checkpoints to keep: those of the k best values of a metric seen so far.

    A new checkpoint comes in while there are fewer than k, or when it is strictly better than the worst,
    which then goes; of several that are equally bad, the oldest.

    There are two ways to use it. `saving` deletes the worst file only after the new one is written, so that a
    process killed at any point leaves the best k. `get_ckpt_path` deletes it before it returns, as the
    original did, for training loops written for that.

    Args:
        save_dir: folder of the checkpoints; created when the first one comes.
        monitor_key: metric to compare.
        mode: whether more ('max') or less ('min') of it is better.
        k: how many to keep; 0 keeps none.
        format_str: file name, formatted with the metrics.

    Attributes:
        path_value_map: path of each checkpoint kept and its value, oldest first.
    """

    def __init__(
        self,
        save_dir: str | os.PathLike[str],
        monitor_key: str,
        mode: Literal["max", "min"] = "min",
        k: int = 1,
        format_str: str = "epoch={epoch:03d}-train_loss={train_loss:.3f}.ckpt",
    ) -> None:
        if mode not in ("max", "min"):
            raise ValueError(f"mode must be 'max' or 'min', got {mode!r}")
        if k < 0:
            raise ValueError(f"k must be 0 or more, got {k}")
        self.save_dir = save_dir
        self.monitor_key = monitor_key
        self.mode = mode
        self.k = k
        self.format_str = format_str
        self.path_value_map: dict[str, float] = {}

    @contextmanager
    def saving(self, data: Mapping[str, Any]) -> Iterator[str | None]:
        """Yields the path to save to, or None if the checkpoint is not among the best.

        Leaving the block deletes what is no longer among the best. If the block fails, the new checkpoint is
        forgotten, its file removed, and those before stay. Inside the block, `state_dict` names the new
        checkpoint beside the old ones: saved with it, it fits whatever files a killed process leaves.

        Raises:
            KeyError: `data` lacks the metric, or one that the file name needs.
        """
        before = dict(self.path_value_map)
        path = self._admit(data)
        is_new = path is not None and not os.path.exists(path)
        try:
            yield path
        except BaseException:
            self.path_value_map = before
            if path is not None and is_new:
                Path(path).unlink(missing_ok=True)
            raise
        self._delete_worst()

    def get_ckpt_path(self, data: Mapping[str, Any]) -> str | None:
        """Path to save to, or None if the checkpoint is not among the best; the worst file is deleted first.

        Raises:
            KeyError: `data` lacks the metric, or one that the file name needs.
        """
        path = self._admit(data)
        self._delete_worst()
        return path

    def state_dict(self) -> dict[str, float]:
        """File name of each checkpoint kept and its value, oldest first."""
        return {os.path.basename(path): value for path, value in self.path_value_map.items()}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Takes over the checkpoints of `state` that still exist in `save_dir`."""
        paths = {os.path.join(self.save_dir, os.path.basename(name)): value for name, value in state.items()}
        self.path_value_map = {path: float(value) for path, value in paths.items() if os.path.isfile(path)}

    def recognise_files(self) -> None:
        """Takes over the best k of the checkpoints in `save_dir`, by what their names say; none is deleted.

        For runs whose checkpoints hold no table. A metric in a name is as exact as `format_str` writes it.
        """
        pattern = _pattern_of(self.format_str)
        found = []
        for path in Path(self.save_dir).glob("*"):
            match = re.fullmatch(pattern, path.name)
            values = match.groupdict() if match else {}
            try:
                value, age = float(values[self.monitor_key]), float(values.get("epoch", "nan"))
            except (KeyError, ValueError):
                continue
            if not math.isnan(value):
                found.append(
                    (path.stat().st_mtime if math.isnan(age) else age, os.path.join(self.save_dir, path.name), value)
                )
        found.sort()  # oldest first
        best = sorted(found, key=lambda each: each[2], reverse=self.mode == "max")[: self.k]
        self.path_value_map = {path: value for age, path, value in found if (age, path, value) in best}

    def _admit(self, data: Mapping[str, Any]) -> str | None:
        if self.k == 0:
            return None
        if self.monitor_key not in data:
            raise KeyError(
                f"the metric {self.monitor_key!r} to keep the best checkpoints by is missing; there are "
                f"{sorted(data)}. Choose one as monitor_key, or save checkpoints only when it is computed"
            )
        value = float(data[self.monitor_key])
        if math.isnan(value):
            log.warning("%s is NaN: this checkpoint is not among the best", self.monitor_key)
            return None
        best = sorted(self.path_value_map.values(), reverse=self.mode == "max")[: self.k]
        if len(best) == self.k and not self._is_better(value, best[-1]):
            return None
        path = os.path.join(self.save_dir, self._file_name(data))
        os.makedirs(self.save_dir, exist_ok=True)
        self.path_value_map.pop(path, None)  # a resumed run may save the same epoch again: now the newest
        self.path_value_map[path] = value
        return path

    def _file_name(self, data: Mapping[str, Any]) -> str:
        try:
            return self.format_str.format(**data)
        except KeyError as error:
            raise KeyError(f"format_str {self.format_str!r} needs {error}; there are {sorted(data)}") from error

    def _is_better(self, value: float, than: float) -> bool:
        return value > than if self.mode == "max" else value < than

    def _delete_worst(self) -> None:
        worst_of = min if self.mode == "max" else max
        while len(self.path_value_map) > self.k:
            path = worst_of(self.path_value_map, key=self.path_value_map.__getitem__)
            del self.path_value_map[path]
            Path(path).unlink(missing_ok=True)


def _pattern_of(format_str: str) -> str:
    """A regular expression for what `format_str.format` makes, with a group for each field."""
    pattern, seen = "", set()
    for text, field, _, _ in Formatter().parse(format_str):
        pattern += re.escape(text)
        if field is not None and field.isidentifier() and field not in seen:
            pattern += f"(?P<{field}>.+?)"
            seen.add(field)
        elif field is not None:
            pattern += ".+?"
    return pattern
