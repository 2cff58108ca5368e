"""X servers of the tests' own, and what a person does on them."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def running_xvfb() -> Iterator[str]:
    """Gives the name (`:N`) of a display that nobody else uses."""
    read_end, write_end = os.pipe()
    command = ["Xvfb", "-displayfd", str(write_end), "-screen", "0", "1600x1000x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[write_end], stderr=subprocess.DEVNULL)
    os.close(write_end)
    try:
        with os.fdopen(read_end) as number:
            yield f":{number.readline().strip()}"
    finally:
        server.terminate()
        server.wait(timeout=10)


def xdotool(*arguments: str) -> str:
    """Presses keys, finds windows ... on $DISPLAY; what it prints."""
    return subprocess.run(["xdotool", *arguments], check=True, capture_output=True, text=True, timeout=20).stdout


def close_window(window: str) -> None:
    """What a window manager does when the cross is clicked."""
    from Xlib.display import Display
    from Xlib.protocol.event import ClientMessage

    connection = Display()
    protocols, delete = (connection.intern_atom(name) for name in ("WM_PROTOCOLS", "WM_DELETE_WINDOW"))
    target = connection.create_resource_object("window", int(window))
    target.send_event(ClientMessage(window=target, client_type=protocols, data=(32, [delete, 0, 0, 0, 0])))
    connection.sync()
    connection.close()
