"""An end for work that stands still."""

import logging
import os
import threading
import time
from types import TracebackType
from typing import Self

logger = logging.getLogger(__name__)

POLL_SEC = 1.0


class Watchdog:
    """Ends this process if, within a `with` block, `beat` is not called for a while.

    For what cannot be interrupted: a GPU that replays a CUDA graph waits forever for another that is gone, and the
    process for its GPU.

    Args:
        timeout_sec: how long (s); None for ever.
    """

    def __init__(self, timeout_sec: float | None) -> None:
        self._timeout_sec = timeout_sec
        self._last_beat = 0.0
        self._is_over = threading.Event()

    def __enter__(self) -> Self:
        self.beat()
        if self._timeout_sec is not None:
            threading.Thread(target=self._watch, args=(self._timeout_sec,), name="watchdog", daemon=True).start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_over.set()

    def beat(self) -> None:
        """Says that work goes on."""
        self._last_beat = time.monotonic()

    def _watch(self, timeout_sec: float) -> None:
        while not self._is_over.wait(min(POLL_SEC, timeout_sec / 4)):
            still = time.monotonic() - self._last_beat
            if still > timeout_sec:
                logger.error("Nothing has moved for %.0f s: another process is gone or hangs. This one ends", still)
                logging.shutdown()
                os._exit(1)
