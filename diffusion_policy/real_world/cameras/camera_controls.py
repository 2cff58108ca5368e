"""What a camera in another process can be told."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.real_world.cameras.frame_source import (
    AUTO_EXPOSURE,
    AUTO_WHITE_BALANCE,
    EXPOSURE,
    GAIN,
    WHITE_BALANCE,
    CameraError,
    Intrinsics,
)
from diffusion_policy.real_world.cameras.recording_thread import RecordingReport

CALL_TIMEOUT = 5.0  # s
FLUSH_TIMEOUT = 60.0  # s that the last frames of a video may take


class CameraControls(ABC):
    """Methods of a camera that are calls in its process. They raise CameraError when that does not answer."""

    @abstractmethod
    def _call(self, name: str, *args: object, timeout: float = CALL_TIMEOUT) -> Any:
        """What `name(*args)` returns, or raises, in the camera's process."""

    def set_color_option(self, option: Any, value: float) -> None:
        """Sets an option of the color image, by name or as librealsense's `rs.option`.

        Raises:
            CameraError: the camera does not have it. Also if set before the start, by `start_wait`, as the next.
            ValueError: the value is out of range.
        """
        self._call("set_option", str(getattr(option, "name", option)), float(value))

    def set_exposure(self, exposure: float | None = None, gain: float | None = None) -> None:
        """Fixes exposure (0.1 ms) and gain, those that are given; without either the camera chooses."""
        self.set_color_option(AUTO_EXPOSURE, float(exposure is None and gain is None))
        if exposure is not None:
            self.set_color_option(EXPOSURE, exposure)
        if gain is not None:
            self.set_color_option(GAIN, gain)

    def set_white_balance(self, white_balance: float | None = None) -> None:
        """Fixes the white balance (K); None lets the camera choose."""
        self.set_color_option(AUTO_WHITE_BALANCE, float(white_balance is None))
        if white_balance is not None:
            self.set_color_option(WHITE_BALANCE, white_balance)

    def get_intrinsics(self) -> NDArray[np.float64]:
        """Camera matrix (3, 3) of the color image."""
        return self._intrinsics().matrix()

    def get_depth_scale(self) -> float:
        """Metres a unit of depth."""
        return self._intrinsics().depth_scale

    def _intrinsics(self) -> Intrinsics:
        result: Intrinsics | None = self._call("intrinsics")
        if result is None:
            raise CameraError("The intrinsics of a camera are known when it runs: start it first.")
        return result

    def start_recording(self, video_path: str | Path, start_time: float = -1) -> None:
        """Records to `video_path`; its first frame is that of `start_time` (s), or, if negative, the next."""
        self._call("start_recording", str(video_path), None if start_time < 0 else start_time)

    def stop_recording(self) -> RecordingReport | None:
        """Completes the video. Returns what became of its frames; None if there was no recording."""
        report: RecordingReport | None = self._call("stop_recording", timeout=FLUSH_TIMEOUT)
        return report

    def restart_put(self, start_time: float) -> None:
        """Makes `start_time` (s) step 0 of the grid."""
        self._call("restart_put", start_time)
