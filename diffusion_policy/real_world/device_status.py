"""Whether a device's process is at work."""

import os
import time
from multiprocessing.process import BaseProcess

import numpy as np

from diffusion_policy.shared_memory.shared_ndarray import SharedNDArray

_LONGEST_MESSAGE = 1000  # bytes


class DeviceStatus:
    """Shared between a device's process, which calls `beat` and `fail`, and others, which ask."""

    def __init__(self) -> None:
        self._last_beat = SharedNDArray[np.float64].create_from_array(None, np.array([-np.inf]))
        self._message = SharedNDArray[np.uint8].create_from_shape(None, (_LONGEST_MESSAGE,), np.uint8)

    def beat(self, monotonic_time: float) -> None:
        """The device worked at that time (s)."""
        self._last_beat.get()[0] = monotonic_time

    def fail(self, message: str) -> None:
        """Why the process ends."""
        text = message.encode()[:_LONGEST_MESSAGE]
        self._message.get()[: len(text)] = np.frombuffer(text, np.uint8)

    def age(self) -> float:
        """Seconds since the last beat, infinite before the first."""
        return time.monotonic() - self._last_beat.get().item()

    def problem(self, process: BaseProcess, longest_silence: float) -> str | None:
        """What is wrong, as the rest of a sentence that begins with the device; None if nothing, or not yet started.

        Only the process that started `process` can tell that it ended at once; others see the silence.
        """
        is_parent = process._parent_pid == os.getpid()  # type: ignore[attr-defined]
        if is_parent and process.pid is not None and not process.is_alive():
            message = self._message.get().tobytes().rstrip(b"\0").decode(errors="replace")
            return f"failed: {message}" if message else f"has stopped: its process ended with code {process.exitcode}."
        age = self.age()
        if longest_silence < age < np.inf:
            return f"has delivered nothing for {age:.1f} s."
        return None
