"""A spacenavd without a device: libspnav connects to its socket and sees the SpaceMouse that is played here."""

import multiprocessing
import selectors
import socket
import struct
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from diffusion_policy.real_world.child_process import attach_to_parent, end
from diffusion_policy.real_world.start_stop import StartStop
from diffusion_policy.real_world.teleop_device import TX_ZUP_SPNAV

FULL_DEFLECTION = 350  # what a device reaches
_MAGIC = 0x7FAA5500  # and the version, in the handshake of protocol 1
_REQUEST = 0x7FAA0000
_ANSWERS = {0x2002: 6, 0x2003: 2}  # number of axes, of buttons
_MOTION, _PRESS, _RELEASE, _DEVICE = range(4)
_PERIOD = 16  # ms between motions, which the device would count

_Packet = tuple[int, ...]


class SimulatedSpacenavd(StartStop):
    """A daemon in a process of its own, and what the device does.

    Args:
        socket_path: where it listens; None for a temporary place. libspnav looks where $SPNAV_SOCKET says.
        protocol: 0, as daemons before 1.0, which do not tell of plugging, or 1.
    """

    def __init__(self, socket_path: str | Path | None = None, protocol: int = 1) -> None:
        self._folder = tempfile.TemporaryDirectory() if socket_path is None else None
        self.socket_path = str(Path(self._folder.name) / "spnav.sock" if self._folder else socket_path)
        self.protocol = protocol
        self._is_plugged = True
        self._lock = threading.Lock()

    def start(self) -> None:
        """Returns when clients can connect."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(self.socket_path)
        listener.listen()
        self._control, other_end = multiprocessing.Pipe()
        arguments = (listener, other_end, self.protocol)
        self._process = multiprocessing.Process(target=_serve, args=arguments, name="spacenavd", daemon=True)
        self._process.start()
        listener.close()
        other_end.close()

    def stop(self) -> None:
        """Ends the daemon: clients lose their connection."""
        with suppress(OSError):  # it was killed
            self._control.send(None)
        end(self._process, timeout=2)
        Path(self.socket_path).unlink(missing_ok=True)

    def __exit__(self, exc_type: object, exc_val: object, exc_tb: object) -> None:
        self.stop()
        if self._folder is not None:
            self._folder.cleanup()

    def move(self, motion: ArrayLike) -> None:
        """Deflects the cap so that the robot's frame sees `motion` (6,), of which 1 is full deflection."""
        values = (np.asarray(motion, float).reshape(2, 3) @ TX_ZUP_SPNAV).reshape(6) * FULL_DEFLECTION
        self._send((_MOTION, *np.rint(np.clip(values, -FULL_DEFLECTION, FULL_DEFLECTION)).astype(int).tolist()))

    def press(self, button: int, is_pressed: bool = True) -> None:
        """Presses or releases a button."""
        self._send((_PRESS if is_pressed else _RELEASE, button))

    def plug(self, is_plugged: bool) -> None:
        """Plugs the device in or out."""
        self._is_plugged = True
        self._send((_DEVICE, 0 if is_plugged else 1))
        self._is_plugged = is_plugged

    def _send(self, packet: _Packet) -> None:
        if self._is_plugged:
            with self._lock:
                self._control.send(packet)


class _Client:
    """A connection, and the bytes of it that were not understood yet."""

    def __init__(self, connection: socket.socket, protocol: int) -> None:
        self.connection = connection
        self.protocol = protocol
        self.is_ready = False  # before the handshake is over, libspnav takes every byte for an answer to it
        self._received = b""

    def read(self) -> None:
        """Answers what the client says.

        Raises:
            OSError: it is gone.
        """
        data = self.connection.recv(4096)
        if not data:
            raise ConnectionError
        self._received += data
        if not self.is_ready and self.protocol == 1 and len(self._received) >= 4:
            self._received = self._received[4:]
            self.connection.send(struct.pack("=i", _MAGIC | 1))
            self.is_ready = True
        elif not self.is_ready and len(self._received) >= 8:
            self.is_ready = True  # the handshake that went unanswered, then the sensitivity of protocol 0
        while self.is_ready and self.protocol == 1 and len(self._received) >= 32:
            self._answer(self._received[:32])
            self._received = self._received[32:]

    def _answer(self, request: bytes) -> None:
        kind, *data = struct.unpack("=8i", request)
        data[0] = _ANSWERS.get(kind & ~_REQUEST, data[0])
        self.connection.send(struct.pack("=8i", kind, *data[:6], 0))

    def tell(self, packet: _Packet) -> None:
        """Sends an event, which is lost if the client does not read."""
        if self.is_ready and (packet[0] != _DEVICE or self.protocol == 1):
            event = struct.pack("=8i", *packet, *[0] * (7 - len(packet)), _PERIOD if packet[0] == _MOTION else 0)
            with suppress(BlockingIOError):
                self.connection.send(event, socket.MSG_DONTWAIT)


class _Daemon:
    """The process's work: events of the device from `control` to whoever has connected to `listener`."""

    def __init__(self, listener: socket.socket, control: Connection, protocol: int) -> None:
        self._listener = listener
        self._control = control
        self._protocol = protocol
        self._clients: dict[socket.socket, _Client] = {}
        self._selector = selectors.DefaultSelector()
        for source in (listener, control):
            self._selector.register(source, selectors.EVENT_READ)

    def run(self) -> None:
        """Serves until told to end."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._control:
                    packet = self._control.recv()
                    if packet is None:
                        return
                    for client in list(self._clients.values()):
                        self._try(client, partial(_Client.tell, packet=packet))
                elif key.fileobj is self._listener:
                    connection, _ = self._listener.accept()
                    self._selector.register(connection, selectors.EVENT_READ)
                    self._clients[connection] = _Client(connection, self._protocol)
                elif key.fileobj in self._clients:
                    self._try(self._clients[key.fileobj], _Client.read)

    def _try(self, client: _Client, action: Callable[[_Client], None]) -> None:
        try:
            action(client)
        except OSError:
            self._selector.unregister(client.connection)
            del self._clients[client.connection]
            client.connection.close()


def _serve(listener: socket.socket, control: Connection, protocol: int) -> None:
    attach_to_parent()
    _Daemon(listener, control, protocol).run()
