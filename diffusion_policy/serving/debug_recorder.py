"""Requests as they passed each stage, kept in files for `python -m diffusion_policy.serving.inspect`."""

import json
import logging
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_policy.common.atomic_file import atomic_path
from diffusion_policy.serving.observation_reader import Obs
from diffusion_policy.serving.wire import WireError, unpack

logger = logging.getLogger(__name__)

MAX_WAITING = 16
RECEIVED, SEEN, ACTIONS, META = "received/", "policy/", "actions", "meta"
"""What arrays in a file are called, or begin with."""
Ranges = Mapping[str, tuple[list[float], list[float]]]
"""Least and largest values in training, of actions and observations by key."""


@dataclass
class Record:
    """A request of a client, as it was received, and what came of it as far as it came.

    Attributes:
        client: who sent it.
        packed: the message.
        obs: what the policy saw.
        actions: what it answered.
        timing: of the stages (ms).
        error: why there is no answer.
        time: when (s since 1970).
    """

    client: str
    packed: bytes
    obs: Obs | None
    actions: np.ndarray | None
    timing: dict[str, float]
    error: str | None
    time: float = field(default_factory=time.time)


class DebugRecorder:
    """Writes one `.npz` for each request, in a thread: what was received, what the policy saw, what it answered.

    Args:
        folder: made if absent.
        ranges: of the training data, to compare with.
    """

    def __init__(self, folder: str | Path, ranges: Ranges) -> None:
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._ranges = ranges
        self._start = time.strftime("%Y%m%d-%H%M%S")
        self._n_written = 0
        self._records: queue.Queue[Record | None] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._run, name="debug", daemon=True)
        self._thread.start()

    def record(self, record: Record) -> None:
        """Keeps a request. Drops it, with a warning, if the disk is too slow."""
        try:
            self._records.put_nowait(record)
        except queue.Full:
            logger.warning("--debug: the disk is too slow, a request of %s was not saved", record.client)

    def close(self) -> None:
        """Writes what waits."""
        self._records.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (record := self._records.get()) is not None:
            try:
                self._write(record)
            except Exception as error:  # serving goes on without
                logger.warning("--debug: a request of %s was not saved: %s", record.client, error)

    def _write(self, record: Record) -> None:
        arrays, options = _received(record.packed)
        arrays |= {SEEN + key: value for key, value in (record.obs or {}).items()}
        if record.actions is not None:
            arrays[ACTIONS] = record.actions
        meta = {key: getattr(record, key) for key in ("time", "client", "timing", "error")}
        arrays[META] = np.array(json.dumps({**meta, "options": options, "ranges": self._ranges}))
        path = self._folder / f"{self._start}_{self._n_written:06d}.npz"
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        self._n_written += 1


def _received(packed: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a request, JPEGs as their bytes, and its other entries."""
    try:
        message = unpack(packed)
    except WireError:
        message = packed
    arrays, options = {}, {}
    for name, value in _leaves(message):
        if isinstance(value, np.ndarray):
            arrays[RECEIVED + name] = value
        elif isinstance(value, bytes):
            arrays[RECEIVED + name] = np.frombuffer(value, np.uint8)
        else:
            options[name] = value.item() if isinstance(value, np.generic) else value
    return arrays, options


def _leaves(message: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(message, dict):
        yield "message", message if isinstance(message, bytes) else type(message).__name__
        return
    for key, value in message.items():
        name = str(key).replace("\0", "")[:80]
        if isinstance(value, list):
            yield from ((f"{name}[{i}]", each) for i, each in enumerate(value) if isinstance(each, bytes | np.ndarray))
        elif isinstance(value, bytes | np.ndarray | np.generic | bool | int | float | None):
            yield name, value
        else:
            yield name, type(value).__name__
