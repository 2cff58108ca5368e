"""Cameras that see the simulated world."""

import time

import numpy as np

from diffusion_policy.real_world.cameras import frame_source
from diffusion_policy.real_world.cameras.frame_source import (
    CameraError,
    Frame,
    FrameTimeout,
    Intrinsics,
    check_in_range,
    example_frame,
)
from diffusion_policy.real_world.sim.scene_renderer import PinholeCamera, SceneRenderer
from diffusion_policy.real_world.sim.shared_world import SharedWorld
from diffusion_policy.shared_memory.shared_ndarray import SharedNDArray

BUFFERED = 4  # frames that wait to be read; older ones are lost
# As a D415 has them. They are kept, and change nothing.
OPTIONS = {
    frame_source.AUTO_EXPOSURE: (0, 1),
    frame_source.EXPOSURE: (1, 10000),
    frame_source.GAIN: (0, 128),
    frame_source.AUTO_WHITE_BALANCE: (0, 1),
    frame_source.WHITE_BALANCE: (2800, 6500),
}


class SimulatedCamera:
    """A frame source that renders `world` as it was when the frame is due.

    Args:
        name: of the camera.
        world: what it sees.
        view: where it stands.
        resolution: width and height (px).
        fps: frames a second (Hz).
    """

    def __init__(
        self,
        name: str,
        world: SharedWorld,
        view: PinholeCamera,
        resolution: tuple[int, int] = (1280, 720),
        fps: float = 30,
    ) -> None:
        self.name = name
        self.resolution = resolution
        self.fps = fps
        self._world = world
        self._view = view
        self._is_delivering = SharedNDArray[np.bool_].create_from_array(None, np.array([True]))
        self._options: dict[str, float] = {}

    def deliver(self, is_delivering: bool) -> None:
        """From any process: makes the camera stop delivering frames, or go on."""
        self._is_delivering.get()[0] = is_delivering

    def example(self) -> Frame:
        """Zeros with the shapes and types of its frames."""
        return example_frame(self.resolution)

    def open(self) -> None:
        """Starts the clock of frames."""
        self._renderer = SceneRenderer(self._view, self.resolution, self._world.goal)
        self._next_time = time.time()

    def read(self, timeout: float) -> Frame:
        """The next frame. Raises FrameTimeout after `timeout` s."""
        if not self._is_delivering.get()[0]:
            time.sleep(timeout)
            raise FrameTimeout(f"Camera {self.name} has delivered no frame.")
        capture_time = max(self._next_time, time.time() - BUFFERED / self.fps)
        time.sleep(max(capture_time - time.time(), 0))
        self._next_time = capture_time + 1 / self.fps
        state = self._world.state_at(capture_time)
        return {
            "color": self._renderer.render(state.tool_pose, state.block_pose),
            "camera_capture_timestamp": capture_time,
            "camera_receive_timestamp": time.time(),
        }

    def set_option(self, option: str, value: float) -> None:
        """Keeps exposure, gain and white balance within the ranges of a D415."""
        if option not in OPTIONS:
            raise CameraError(f"Camera {self.name} has no option {option}.")
        check_in_range(self.name, option, value, *OPTIONS[option])
        self._options[option] = value

    def intrinsics(self) -> Intrinsics:
        """Of the color image."""
        return self._view.intrinsics(self.resolution)

    def close(self) -> None:
        """Does nothing."""
