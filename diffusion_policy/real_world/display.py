"""Whether there is a screen to show windows on, and whether they are still there."""

import os
import re
import socket

import cv2

_LOCAL = re.compile(r"(?:unix)?:(\d+)(?:\.\d+)?")
_REMOTE = re.compile(r"([^:/]+):(\d+)(?:\.\d+)?")
_FIRST_PORT = 6000
_TIMEOUT = 2.0  # s


def has_display() -> bool:
    """Whether OpenCV can open a window, for which it needs X. Without a server that answers, it aborts the process."""
    display = os.environ.get("DISPLAY", "")
    if local := _LOCAL.fullmatch(display):
        path = f"/tmp/.X11-unix/X{local[1]}"
        return any(_answers(socket.AF_UNIX, address) for address in (path, f"\0{path}"))
    if remote := _REMOTE.fullmatch(display):
        return _answers(socket.AF_INET, (remote[1], _FIRST_PORT + int(remote[2])))
    return False


def is_window_open(title: str) -> bool:
    """Whether nobody has closed a window of OpenCV's that was shown."""
    try:
        return bool(cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) >= 1)
    except cv2.error:  # with its last window Qt closes as well
        return False


def _answers(family: socket.AddressFamily, address: str | tuple[str, int]) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(_TIMEOUT)
        try:
            connection.connect(address)
        except OSError:
            return False
    return True
