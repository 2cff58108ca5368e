"""libspnav, the library of the spacenavd daemon that reads 3Dconnexion devices, through ctypes."""

import ctypes
import os
import select
import socket
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LIBRARY = "libspnav.so.0"
_MOTION, _BUTTON, _DEVICE = 1, 2, 3
_DEVICE_REMOVED = 1
_FD_SETSIZE = 1024  # libspnav waits with select(), which aborts the process beyond

_one_connection = threading.Lock()  # libspnav keeps its connection in a global variable


class MotionEvent(NamedTuple):
    """Deflection of the cap."""

    motion: NDArray[np.int64]  # x, y, z, rx, ry, rz, about +-350 at most; y is up, z away from the user
    period: int  # ms since the motion before


class ButtonEvent(NamedTuple):
    """A button went down or up."""

    button: int
    is_pressed: bool


class DeviceEvent(NamedTuple):
    """A device was plugged in or out; daemons before 1.0 do not say so."""

    is_added: bool


Event = MotionEvent | ButtonEvent | DeviceEvent


class _Motion(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("values", ctypes.c_int * 6),
        ("period", ctypes.c_uint),
        ("data", ctypes.POINTER(ctypes.c_int)),
    ]


class _Button(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("press", ctypes.c_int), ("number", ctypes.c_int)]


class _Device(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("operation", ctypes.c_int),
        ("id", ctypes.c_int),
        ("device_type", ctypes.c_int),
        ("usb_id", ctypes.c_int * 2),
    ]


class _Event(ctypes.Union):
    _fields_ = [("type", ctypes.c_int), ("motion", _Motion), ("button", _Button), ("device", _Device)]


class SpnavConnection:
    """The process's connection to spacenavd; close it to open another.

    Raises:
        OSError: libspnav is not installed, or the daemon does not run.
        RuntimeError: this process has a connection already.
    """

    def __init__(self) -> None:
        library = load_library()
        if not _one_connection.acquire(blocking=False):
            raise RuntimeError("This process has a SpaceMouse open already, and libspnav can hold one: close it first.")
        self._library: ctypes.CDLL | None = library
        if library.spnav_open() == -1:
            self._library = None
            _one_connection.release()
            raise ConnectionError(
                "There is no spacenavd to read a SpaceMouse from: plug it in and start the daemon "
                "(sudo apt install spacenavd; sudo systemctl start spacenavd)."
            )
        fd = library.spnav_fd()
        if fd >= _FD_SETSIZE:
            self.close()
            raise RuntimeError(
                f"Too many files are open for libspnav: its own is number {fd}, of {_FD_SETSIZE} it bears."
            )
        self._socket = socket.socket(fileno=os.dup(fd))
        # Daemons before 1.0 speak protocol 0; so do libraries, which have no function to ask for it.
        self.protocol = library.spnav_protocol() if hasattr(library, "spnav_protocol") else 0

    def events(self) -> Iterator[Event]:
        """What has happened since the last call, oldest first, without waiting."""
        event = _Event()
        while self._library is not None and self._library.spnav_poll_event(ctypes.byref(event)) != 0:
            if event.type == _MOTION:
                yield MotionEvent(np.array(event.motion.values[:], np.int64), event.motion.period)
            elif event.type == _BUTTON:
                yield ButtonEvent(event.button.number, bool(event.button.press))
            elif event.type == _DEVICE:
                yield DeviceEvent(event.device.operation != _DEVICE_REMOVED)

    def is_alive(self) -> bool:
        """False when the daemon is gone, of which libspnav itself says nothing."""
        if self._library is None:
            return False
        readable, _, _ = select.select([self._socket], [], [], 0)
        try:
            return not readable or self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        """Ends the connection; may be called again."""
        library, self._library = self._library, None
        if library is not None:
            if hasattr(self, "_socket"):
                self._socket.close()
            library.spnav_close()
            _one_connection.release()


def load_library() -> Any:
    """libspnav. Raises OSError if it is not installed."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise OSError(f"{LIBRARY} reads the SpaceMouse and is not installed: sudo apt install libspnav0") from error
    library.spnav_poll_event.argtypes = [ctypes.POINTER(_Event)]
    return library
