"""What a person drives the robot with."""

from typing import Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

# libspnav: x right, y up, z away from the user. Robot, seen by a user whom it faces: x towards the user, y right, z up.
TX_ZUP_SPNAV = np.array([[0, 0, -1], [1, 0, 0], [0, 1, 0]])


class TeleopError(RuntimeError):
    """A device that cannot be used."""


class TeleopDevice(Protocol):
    """A device whose motion is read at any time; a context manager opens and closes it."""

    def get_motion_state_transformed(self) -> NDArray[np.floating]:
        """Translation and rotation (6,) asked for, each in [-1, 1], in a frame whose z axis points up."""

    def is_button_pressed(self, button_id: int) -> bool:
        """Whether a button is held down."""

    @property
    def fault(self) -> TeleopError | None:
        """What is wrong: returned, not raised. With a fault the motion is zero, and no button pressed."""

    def __enter__(self) -> Self: ...

    def __exit__(self, exc_type: object, exc_val: object, exc_tb: object) -> None: ...


class MotionScale:
    """Makes numbers of a device a motion in [-1, 1].

    Args:
        max_value: the device's number for a motion of 1. SpaceMice reach 350 to 500.
        deadzone: motion, of each axis (6,) or of all, that counts as none.
    """

    def __init__(self, max_value: float, deadzone: ArrayLike, dtype: type[np.floating]) -> None:
        if not max_value > 0:
            raise ValueError(f"max_value is {max_value}, expected a positive number")
        self.max_value = max_value
        self.deadzone = np.broadcast_to(np.asarray(deadzone, dtype=dtype), (6,))
        self.dtype = dtype

    def __call__(self, values: ArrayLike) -> NDArray[np.floating]:
        """Motion (6,) of the device's numbers (6,)."""
        state = np.clip(np.asarray(values, self.dtype) / self.dtype(self.max_value), -1, 1)
        state[np.abs(state) < self.deadzone] = 0
        return state


def z_up(state: NDArray[np.floating]) -> NDArray[np.floating]:
    """A motion (6,) of libspnav's frame in one whose z axis points up."""
    return (state.reshape(2, 3) @ TX_ZUP_SPNAV.T.astype(state.dtype)).reshape(6)
