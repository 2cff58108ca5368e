"""What a camera is to the process that reads it."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

# `color` (H, W, 3) uint8 BGR, `depth` (H, W) uint16, `infrared` (H, W) uint8: those that are enabled. And two times (s,
# wall clock): `camera_capture_timestamp`, as the camera has it, `camera_receive_timestamp`, when the frame was here.
Frame = dict[str, Any]

AUTO_EXPOSURE, EXPOSURE, GAIN = "enable_auto_exposure", "exposure", "gain"
AUTO_WHITE_BALANCE, WHITE_BALANCE = "enable_auto_white_balance", "white_balance"


class CameraError(RuntimeError):
    """A camera that is absent, cannot do what is asked, or has stopped delivering."""


class FrameTimeout(CameraError):
    """No frame came in time; the next may."""


@dataclass(frozen=True)
class Intrinsics:
    """Pinhole model of the color image, in px, and metres a unit of depth (0 without depth)."""

    fx: float
    fy: float
    cx: float
    cy: float
    depth_scale: float = 0.0

    def matrix(self) -> NDArray[np.float64]:
        """Camera matrix (3, 3)."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]])


class FrameSource(Protocol):
    """A camera. It is made in one process, then opened, read and closed in another, and must be picklable before.

    Attributes:
        name: serial number or path, unique among the cameras of a robot; errors mention it.
        resolution: width and height (px).
        fps: frames a second that it delivers (Hz).
    """

    name: str
    resolution: tuple[int, int]
    fps: float

    def example(self) -> Frame:
        """Zeros with the shapes and types of its frames."""

    def open(self) -> None:
        """Starts the stream. Raises CameraError if that is not possible."""

    def read(self, timeout: float) -> Frame:
        """The next frame, in arrays of its own. Raises FrameTimeout after `timeout` s."""

    def set_option(self, option: str, value: float) -> None:
        """Sets exposure, gain, white balance ... of the color image.

        Raises:
            CameraError: the camera does not have `option`.
            ValueError: `value` is out of its range.
        """

    def intrinsics(self) -> Intrinsics:
        """Of the open camera. Raises CameraError if it does not know them."""

    def close(self) -> None:
        """Ends the stream; may be called in any state."""


def example_frame(
    resolution: tuple[int, int], color: bool = True, depth: bool = False, infrared: bool = False
) -> Frame:
    """Zeros with the shapes and types of a frame of `resolution` (width, height)."""
    width, height = resolution
    frame: Frame = {"camera_capture_timestamp": 0.0, "camera_receive_timestamp": 0.0}
    if color:
        frame["color"] = np.zeros((height, width, 3), np.uint8)
    if depth:
        frame["depth"] = np.zeros((height, width), np.uint16)
    if infrared:
        frame["infrared"] = np.zeros((height, width), np.uint8)
    return frame


def check_in_range(camera: str, option: str, value: float, low: float, high: float, step: float = 0) -> None:
    """Raises ValueError unless `value` is within `low` .. `high` and a multiple of `step` above `low`."""
    if not low <= value <= high:
        raise ValueError(f"Camera {camera}: {option} is {value}, expected {low:g} to {high:g}.")
    if step > 0 and abs((value - low) / step - round((value - low) / step)) > 1e-3:
        raise ValueError(f"Camera {camera}: {option} is {value}, expected {low:g} to {high:g} in steps of {step:g}.")
