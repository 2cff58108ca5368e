"""What the SpaceMouse says now, whatever becomes of device and daemon."""

import time

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.real_world.spnav import ButtonEvent, DeviceEvent, MotionEvent, SpnavConnection, load_library

RECONNECT_INTERVAL = 0.5  # s
# Daemons of protocol 0 do not tell of unplugging. A hand is never still: its events come some 60 times a second.
LONGEST_HOLD = 1.0  # s


class SpaceMouseReader:
    """Keeps the latest motion and the buttons that are pressed; zeros while there is a fault, and reconnects.

    Attributes:
        motion: (6,) x, y, z, rx, ry, rz as libspnav has them.
        buttons: (n_buttons,) whether each is pressed.
        fault: what is wrong; None when the device can be used.

    Raises:
        OSError: libspnav is not installed.
    """

    def __init__(self, n_buttons: int = 2) -> None:
        load_library()
        self.motion: NDArray[np.int64] = np.zeros(6, np.int64)
        self.period = 0  # ms between the last two motions
        self.buttons: NDArray[np.bool_] = np.zeros(n_buttons, bool)
        self.fault: str | None = None
        self._connection: SpnavConnection | None = None
        self._motion_time = self._last_attempt = -np.inf

    def update(self) -> None:
        """Takes in what has happened since the last call; tries to connect where there is no connection."""
        now = time.monotonic()
        if self._connection is None:
            if now - self._last_attempt < RECONNECT_INTERVAL:
                return
            self._last_attempt = now
            self._connect()
        if self._connection is not None:
            self._read(self._connection, now)

    def close(self) -> None:
        """Ends the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._rest()

    def _connect(self) -> None:
        try:
            self._connection = SpnavConnection()
            self.fault = None
        except (ConnectionError, RuntimeError) as error:
            self.fault = self.fault or str(error)  # that the daemon has ended says more than that there is none

    def _read(self, connection: SpnavConnection, now: float) -> None:
        for event in connection.events():
            if isinstance(event, MotionEvent):
                self.motion, self.period = event
                self._motion_time = now
            elif isinstance(event, ButtonEvent):
                if 0 <= event.button < len(self.buttons):
                    self.buttons[event.button] = event.is_pressed
            elif isinstance(event, DeviceEvent):
                self.fault = None if event.is_added else "The SpaceMouse was unplugged: plug it in again."
        if not connection.is_alive():
            self.close()
            self.fault = "spacenavd has ended: start it again (sudo systemctl start spacenavd)."
        if self.fault is not None or (connection.protocol == 0 and now - self._motion_time > LONGEST_HOLD):
            self._rest(keep_buttons=self.fault is None)

    def _rest(self, keep_buttons: bool = False) -> None:
        self.motion = np.zeros(6, np.int64)
        if not keep_buttons:
            self.buttons[:] = False
