"""A window that shows what the cameras see."""

import logging
import multiprocessing as mp
import time

import cv2
import numpy as np
from numpy.typing import NDArray

from diffusion_policy.real_world import child_process
from diffusion_policy.real_world.cameras.multi_camera import MultiCamera
from diffusion_policy.real_world.device_status import DeviceStatus
from diffusion_policy.real_world.display import has_display, is_window_open
from diffusion_policy.real_world.start_stop import StartStop
from diffusion_policy.shared_memory.shared_ndarray import SharedNDArray

logger = logging.getLogger(__name__)

START_TIMEOUT = 10.0  # s
STOP_TIMEOUT = 2.0  # s


class MultiCameraVisualizer(StartStop, mp.Process):
    """Shows the cameras' `get_vis` as a mosaic, in a process of its own. Without a display it does nothing.

    Args:
        realsense: the cameras, of whatever kind.
        row, col: of the mosaic; its cells are filled row by row.
        window_name: title.
        vis_fps: how often a second the window is drawn at most (Hz).
        fill_value: brightness of empty cells.
        rgb_to_bgr: whether the frames are RGB.
    """

    def __init__(
        self,
        realsense: MultiCamera,
        row: int,
        col: int,
        window_name: str = "Multi Cam Vis",
        vis_fps: float = 60,
        fill_value: int = 0,
        rgb_to_bgr: bool = True,
    ) -> None:
        if row * col < realsense.n_cameras:
            raise ValueError(f"{row} x {col} cells cannot show {realsense.n_cameras} cameras.")
        super().__init__(name="camera window", daemon=True)
        self.cameras = realsense
        self.row, self.col = row, col
        self.window_name = window_name
        self.vis_fps = vis_fps
        self.fill_value = fill_value
        self.rgb_to_bgr = rgb_to_bgr
        self._status = DeviceStatus()
        self._stopping = SharedNDArray[np.bool_].create_from_shape(None, (1,), np.bool_)
        self._is_closed = SharedNDArray[np.bool_].create_from_shape(None, (1,), np.bool_)

    @property
    def is_closed(self) -> bool:
        """Whether the operator has closed the window, or its process has died."""
        died = self.pid is not None and not self.is_alive() and not self._stopping.get()[0]
        return bool(self._is_closed.get()[0]) or died

    def start(self, wait: bool = False) -> None:
        """Opens the window."""
        if not has_display():
            logger.warning("There is no display to show the cameras on: no window is opened.")
            return
        with child_process.without_opencv_threads():
            super().start()
        if wait:
            self.start_wait()

    def start_wait(self) -> None:
        """Waits until the window shows something."""
        end = time.monotonic() + START_TIMEOUT
        while self.pid is not None and self._status.age() == np.inf and not self.is_closed:
            if time.monotonic() > end:
                raise TimeoutError(f"The cameras' window was not drawn for {START_TIMEOUT:.0f} s.")
            time.sleep(0.01)

    def stop(self, wait: bool = False) -> None:
        """Closes the window."""
        self._stopping.get()[0] = True
        if wait:
            self.stop_wait()

    def stop_wait(self) -> None:
        """Waits for the process to end."""
        if self.pid is not None:
            child_process.end(self, STOP_TIMEOUT)

    def __exit__(self, exc_type: object, exc_val: object, exc_tb: object) -> None:
        self.stop(wait=True)

    def mosaic(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """One BGR image of `images` (n_cameras, H, W, 3)."""
        n, height, width, channels = images.shape
        cells = np.full((self.row * self.col, height, width, channels), self.fill_value, np.uint8)
        cells[:n] = images
        rows = cells.reshape(self.row, self.col, height, width, channels).swapaxes(1, 2)
        image = rows.reshape(self.row * height, self.col * width, channels)
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), np.uint8) if self.rgb_to_bgr else image

    # ---- in the window's process

    def run(self) -> None:
        """The process's work."""
        child_process.attach_to_parent()
        cv2.setNumThreads(1)
        while not (self.cameras.is_ready or self._stopping.get()[0]):
            time.sleep(0.01)
        shown: NDArray[np.float64] | None = None
        while not self._stopping.get()[0]:
            started = time.monotonic()
            frames = self.cameras.get_vis()
            if shown is None or (frames["timestamp"] != shown).any():
                cv2.imshow(self.window_name, self.mosaic(frames["color"]))
                shown = frames["timestamp"]
                self._status.beat(time.monotonic())
            cv2.pollKey()
            if not is_window_open(self.window_name):
                self._is_closed.get()[0] = True
                return
            time.sleep(max(started + 1 / self.vis_fps - time.monotonic(), 0))
        cv2.destroyAllWindows()
