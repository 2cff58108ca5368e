"""The SpaceMouse, read by a thread of this process."""

import threading

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffusion_policy.real_world.spacemouse_reader import SpaceMouseReader
from diffusion_policy.real_world.start_stop import StartStop
from diffusion_policy.real_world.teleop_device import MotionScale, TeleopError, z_up

POLL_INTERVAL = 0.005  # s


class Spacemouse(StartStop, threading.Thread):
    """A `TeleopDevice`: the 3Dconnexion device that spacenavd reads.

    Args:
        max_value: 500 for wired models, 300 for wireless ones: a motion of this is 1.
        deadzone: motion (6,), or of every axis, that counts as none.
        dtype: of the motion.
    """

    def __init__(
        self,
        max_value: float = 500,
        deadzone: ArrayLike = (0, 0, 0, 0, 0, 0),
        dtype: type[np.floating] = np.float32,
    ) -> None:
        super().__init__(name="spacemouse", daemon=True)
        self._scale = MotionScale(max_value, deadzone, dtype)
        self._reader = SpaceMouseReader(n_buttons=16)
        self._stopping = threading.Event()

    @property
    def fault(self) -> TeleopError | None:
        """What is wrong with device or daemon: returned, not raised. The motion is then zero."""
        return None if self._reader.fault is None else TeleopError(self._reader.fault)

    def get_motion_state(self) -> NDArray[np.floating]:
        """Motion (6,) in libspnav's frame: x right, y up, z away from the user."""
        return self._scale(self._reader.motion)

    def get_motion_state_transformed(self) -> NDArray[np.floating]:
        """Motion (6,) in the frame of a robot that faces the user: x towards the user, y right, z up."""
        return z_up(self.get_motion_state())

    def is_button_pressed(self, button_id: int) -> bool:
        """Whether button 0 (left), 1 (right), ... is held down."""
        return bool(self._reader.buttons[button_id])

    def stop(self) -> None:
        """Ends the thread and the connection."""
        self._stopping.set()
        self.join()

    def run(self) -> None:
        """The thread's work."""
        try:
            while not self._stopping.wait(POLL_INTERVAL):
                self._reader.update()
        finally:
            self._reader.close()
            self._reader.fault = "The SpaceMouse is not read any more: its thread has ended."
