"""Where a person at a teleoperation device wants the tool."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from diffusion_policy.real_world.teleop_device import TeleopDevice

ROTATE, RAISE = 0, 1
"""Buttons: held down, the first turns instead of moving, the second also moves up and down."""


class TeleopTarget:
    """A pose that moves with the device.

    Args:
        pose: `(6,)` (m, rotation vector in rad) to begin at.
        max_pos_speed: along an axis at full deflection (m/s).
        max_rot_speed: around one (rad/s).
        bounds: lowest and highest x and y, `((2,), (2,))` (m), of a target that stays at its height and does not turn;
            None for a free one.
    """

    def __init__(
        self, pose: ArrayLike, max_pos_speed: float, max_rot_speed: float, bounds: ArrayLike | None = None
    ) -> None:
        self.pose = np.array(pose, np.float64)
        self._max_pos_speed, self._max_rot_speed = max_pos_speed, max_rot_speed
        self._bounds = None if bounds is None else np.asarray(bounds, np.float64)

    def move(self, device: TeleopDevice, duration: float) -> NDArray[np.float64]:
        """The pose `(6,)` after so many seconds of what the device asks for now."""
        motion = np.asarray(device.get_motion_state_transformed(), np.float64)
        step, turn = motion[:3] * self._max_pos_speed * duration, motion[3:] * self._max_rot_speed * duration
        if self._bounds is not None:
            self.pose[:2] = np.clip(self.pose[:2] + step[:2], *self._bounds)
            return self.pose.copy()
        if device.is_button_pressed(ROTATE):
            self.pose[3:] = (Rotation.from_euler("xyz", turn) * Rotation.from_rotvec(self.pose[3:])).as_rotvec()
        else:
            step[2] *= device.is_button_pressed(RAISE)
            self.pose[:3] += step
        return self.pose.copy()
