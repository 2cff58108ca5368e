"""A log of one JSON object a line: appended as training goes, readable at any time."""

import copy
import io
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from numbers import Integral, Real
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from diffusion_policy.common.atomic_file import atomic_path

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


def read_json_log(path: str | os.PathLike[str], required_keys: Iterable[str] = (), **kwargs: Any) -> "pd.DataFrame":
    """The complete records that mention any of `required_keys`, one row each; damaged lines are left out.

    Args:
        required_keys: text to look for in a record's line; without any, the frame is empty.
        **kwargs: further arguments of `pandas.read_json`.
    """
    required_keys = tuple(required_keys)
    with open(path, "rb") as file:
        lines = [line.decode(errors="replace") for line in _complete_lines(file)]
    chosen = [line for line in lines if any(key in line for key in required_keys)]
    try:
        return _frame(chosen, **kwargs)
    except (ValueError, TypeError):
        return _frame([line for line in chosen if _parsed(line) is not None], **kwargs)


class JsonLogger:
    """Appends records to a file, each flushed as one line.

    Start it with `start`, or as a context manager: a last line that a killed process left incomplete is cut
    off.

    Args:
        path: file to append to; created if missing.
        filter_fn: `(key, value) -> bool`, which entries of a record to keep; by default those with a number.
    """

    def __init__(self, path: str | os.PathLike[str], filter_fn: Callable[[str, Any], bool] | None = None) -> None:
        self.path = Path(path)
        self.filter_fn = filter_fn or (lambda key, value: isinstance(value, Real))
        self.file: TextIO | None = None
        self.last_log: dict[str, Any] | None = None

    def start(self) -> None:
        """Opens the file; `get_last_log` then gives its last complete record."""
        self.path.touch()
        last_line, size = None, 0
        with self.path.open("rb+") as file:
            for line in _complete_lines(file):
                last_line, size = line, size + len(line)
            file.truncate(size)
        self.last_log = _parsed(last_line) if last_line is not None else None
        self.file = self.path.open("a", buffering=1, encoding="utf-8")

    def stop(self) -> None:
        """Closes the file."""
        if self.file is not None:
            self.file.close()
        self.file = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self.stop()

    def log(self, data: Mapping[str, Any]) -> None:
        """Appends a record of the entries that pass the filter; numbers of any type become int or float."""
        file = self._opened()
        record = {key: _plain(value) for key, value in data.items() if self.filter_fn(key, value)}
        file.write(json.dumps(record) + "\n")
        self.last_log = record

    def get_last_log(self) -> dict[str, Any] | None:
        """A copy of the last record, also one of an earlier run; None where there is none."""
        return copy.deepcopy(self.last_log)

    def rewind(self, global_step: int) -> None:
        """Drops the records from `global_step` on, so that a resumed run can log these steps anew.

        Call it once after `start`. The file is written aside and renamed: it is never half-rewound.
        """
        self._opened()
        self.stop()
        with atomic_path(self.path) as rewound, self.path.open("rb") as source, rewound.open("wb") as target:
            for line in _complete_lines(source):
                record = _parsed(line)
                if record is None or record.get("global_step", global_step - 1) < global_step:
                    target.write(line)
        self.start()

    def _opened(self) -> TextIO:
        if self.file is None:
            raise RuntimeError(f"the log {self.path} is not open: call start(), or use it in a with statement")
        return self.file


def _frame(lines: list[str], **kwargs: Any) -> "pd.DataFrame":
    import pandas as pd  # takes a second, which those who only write need not spend

    return pd.read_json(io.StringIO("".join(lines)), **{"lines": True, **kwargs}) if lines else pd.DataFrame()


def _complete_lines(file: io.BufferedIOBase) -> Iterator[bytes]:
    return (line for line in file if line.endswith(b"\n"))


def _parsed(line: bytes | str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, TypeError):
        record = None
    if not isinstance(record, dict):
        log.warning("a line of the log is no JSON object: %.80r", line)
        return None
    return record


def _plain(value: Any) -> Any:
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value
