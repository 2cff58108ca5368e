"""Webcams (UVC), video files and network streams, through OpenCV."""

import os
import time
from pathlib import Path

import cv2
import numpy as np

from diffusion_policy.real_world.cameras.frame_source import (
    AUTO_EXPOSURE,
    AUTO_WHITE_BALANCE,
    EXPOSURE,
    GAIN,
    WHITE_BALANCE,
    CameraError,
    Frame,
    FrameTimeout,
    Intrinsics,
    example_frame,
)

_PROPERTIES = {
    AUTO_EXPOSURE: cv2.CAP_PROP_AUTO_EXPOSURE,
    EXPOSURE: cv2.CAP_PROP_EXPOSURE,
    GAIN: cv2.CAP_PROP_GAIN,
    AUTO_WHITE_BALANCE: cv2.CAP_PROP_AUTO_WB,
    WHITE_BALANCE: cv2.CAP_PROP_WB_TEMPERATURE,
    "brightness": cv2.CAP_PROP_BRIGHTNESS,
    "contrast": cv2.CAP_PROP_CONTRAST,
    "saturation": cv2.CAP_PROP_SATURATION,
    "sharpness": cv2.CAP_PROP_SHARPNESS,
}
_V4L2_EXPOSURE = {1.0: 3, 0.0: 1}  # V4L2 calls these "aperture priority" and "manual"


class OpenCVSource:
    """Any camera that OpenCV opens.

    Args:
        device: number of a webcam, its path (/dev/v4l/by-id/... stays the same when others are plugged in), the path of
            a video, which is played at its own rate, or a URL.
        resolution: width and height (px).
        fps: frames a second (Hz).
        pixel_format: four letters; most webcams reach their full rate with MJPG only.
        intrinsics: of the images, if they are known.
    """

    def __init__(
        self,
        device: int | str,
        resolution: tuple[int, int] = (1280, 720),
        fps: float = 30,
        pixel_format: str = "MJPG",
        intrinsics: Intrinsics | None = None,
    ) -> None:
        if len(pixel_format) != 4:
            raise ValueError(f"pixel_format is {pixel_format!r}, expected four letters, such as MJPG or YUYV")
        self.name = str(device)
        self.resolution = (resolution[0], resolution[1])
        self.fps = fps
        self._device = int(device) if str(device).isdecimal() else str(device)
        self._is_file = isinstance(self._device, str) and Path(self._device).is_file()
        self._pixel_format = pixel_format
        self._intrinsics = intrinsics
        self._capture: cv2.VideoCapture | None = None

    def example(self) -> Frame:
        """Zeros with the shapes and types of its frames."""
        return example_frame(self.resolution)

    def open(self) -> None:
        """Starts the stream. Raises CameraError if there is no such camera, or it has another resolution."""
        os.environ.setdefault(
            "OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "1"
        )  # s that a read waits for a camera; 10 otherwise
        capture = cv2.VideoCapture(self._device)
        if not capture.isOpened():
            raise CameraError(f"Camera {self.name} cannot be opened. {_webcams()}")
        self._capture = capture
        width, height = self.resolution
        if not self._is_file:
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*self._pixel_format))
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
            capture.set(cv2.CAP_PROP_FPS, self.fps)
            capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        delivered = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        if delivered != self.resolution:
            raise CameraError(
                f"Camera {self.name} delivers {delivered[0]} x {delivered[1]} px, not {width} x {height}: "
                f"ask for what it has (v4l2-ctl --list-formats-ext)."
            )
        self._next_time = time.monotonic()

    def read(self, timeout: float) -> Frame:
        """The next frame. Raises FrameTimeout if there is none."""
        assert self._capture is not None, "open it first"
        if self._is_file:
            self._wait_for_its_time(timeout)
        succeeded, color = self._capture.read()
        receive_time = time.time()
        if not succeeded:
            time.sleep(timeout if self._is_file else 0)
            raise FrameTimeout(f"Camera {self.name} has delivered no frame.")
        return {
            "color": np.asarray(color, np.uint8),
            "camera_capture_timestamp": receive_time,
            "camera_receive_timestamp": receive_time,
        }

    def _wait_for_its_time(self, timeout: float) -> None:
        wait = self._next_time - time.monotonic()
        time.sleep(min(max(wait, 0), timeout))
        if wait > timeout:
            raise FrameTimeout(f"{self.name} has no frame yet.")
        self._next_time += 1 / self.fps

    def set_option(self, option: str, value: float) -> None:
        """Sets exposure, gain, white_balance, enable_auto_exposure ... in the units of the camera's driver."""
        assert self._capture is not None, "open it first"
        key = _PROPERTIES.get(option)
        if option == AUTO_EXPOSURE and self._capture.getBackendName() == "V4L2":
            value = _V4L2_EXPOSURE[float(bool(value))]
        if key is None or not self._capture.set(key, value):
            raise CameraError(f"Camera {self.name} does not let {option} be set to {value:g}.")
        if (actual := self._capture.get(key)) != value:
            raise ValueError(
                f"Camera {self.name}: {option} is {value:g}, which it made {actual:g}: it is out of range."
            )

    def intrinsics(self) -> Intrinsics:
        """As they were given."""
        if self._intrinsics is None:
            raise CameraError(f"The intrinsics of camera {self.name} are not known: calibrate it and give them.")
        return self._intrinsics

    def close(self) -> None:
        """Ends the stream."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None


def _webcams() -> str:
    found = sorted(str(path) for path in Path("/dev").glob("video*"))
    return f"Webcams are: {', '.join(found)}." if found else "No webcam is connected."
