"""Driving the robot with the keyboard."""

from typing import Self

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.real_world.keyboard_library import Key, KeyCode, Listener
from diffusion_policy.real_world.teleop_device import TeleopError

# For a user whom the robot faces: x towards the user, y right, z up.
_DIRECTIONS = {
    Key.down: (0, 1),
    Key.up: (0, -1),
    Key.right: (1, 1),
    Key.left: (1, -1),
    Key.page_up: (2, 1),
    Key.page_down: (2, -1),
}
_ROTATE = KeyCode.from_char("r")
_SLOWLY = {Key.shift, Key.shift_l, Key.shift_r}
SLOW = 0.25


class KeyboardTeleop:
    """A `TeleopDevice`: arrow keys move along x and y, Page Up and Page Down along z; with R held they rotate about
    these axes; with Shift held they do it slowly.

    Button 0 is pressed while R is, button 1 while Page Up or Page Down is.

    Args:
        speed: motion while a key is held, in (0, 1].
    """

    def __init__(self, speed: float = 0.5) -> None:
        if not 0 < speed <= 1:
            raise ValueError(f"speed is {speed}, expected more than 0 and at most 1")
        self._speed = speed
        self._held: set[Key | KeyCode] = set()
        self._listener: Listener | None = None

    @property
    def fault(self) -> TeleopError | None:
        """What is wrong with the keyboard: returned, not raised. The motion is then zero."""
        if self._listener is not None and not self._listener.is_alive():
            return TeleopError("The keyboard is not read any more: the connection to the display is lost.")
        return None

    def get_motion_state_transformed(self) -> NDArray[np.float32]:
        """Motion (6,): x towards the user, y right, z up, and about these axes."""
        motion = np.zeros(6, np.float32)
        held = self._held_keys()
        first = 3 if _ROTATE in held else 0
        for key, (axis, sign) in _DIRECTIONS.items():
            if key in held:
                motion[first + axis] += sign * self._speed * (SLOW if held & _SLOWLY else 1)
        return motion

    def is_button_pressed(self, button_id: int) -> bool:
        """Whether rotation (0) or height (1) is asked for."""
        keys = {0: {_ROTATE}, 1: {Key.page_up, Key.page_down}}.get(button_id, set())
        return bool(keys & self._held_keys())

    def _held_keys(self) -> set[Key | KeyCode]:
        return set() if self.fault is not None else set(self._held)

    def __enter__(self) -> Self:
        self._listener = Listener(
            on_press=lambda key: self._held.add(_lower(key)), on_release=lambda key: self._held.discard(_lower(key))
        )
        self._listener.start()
        self._listener.wait()
        return self

    def __exit__(self, exc_type: object, exc_val: object, exc_tb: object) -> None:
        if self._listener is not None:
            self._listener.stop()  # its thread ends with the next key
            self._listener = None
        self._held.clear()


def _lower(key: Key | KeyCode) -> Key | KeyCode:
    """With Shift, the release of a letter may be that of the other case."""
    char = getattr(key, "char", None)
    return key if char is None else KeyCode.from_char(char.lower())
