"""The controller's sockets: one thread reads all of them, the controller's tick writes states."""

import contextlib
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, cast

from diffusion_policy.real_world.sim.ur_robot import UrRobot
from diffusion_policy.real_world.sim.ur_sessions import DashboardSession, Owners, RtdeSession, ScriptSession, Session

logger = logging.getLogger(__name__)

DASHBOARD_PORT, SCRIPT_PORT, RTDE_PORT = 29999, 30003, 30004


class UrServer:
    """Serves a robot on its three ports of one address.

    Args:
        robot: to serve.
        host: a loopback address whose ports are free.
        lock: held whenever the robot is touched.
        observer_lag: see `RtdeSession`.

    Raises:
        OSError: a port is taken.
    """

    def __init__(self, robot: UrRobot, host: str, lock: threading.Lock, observer_lag: int) -> None:
        self._lock = lock
        self._selector = selectors.DefaultSelector()
        self._sessions: dict[socket.socket, Session] = {}
        self._listeners: list[socket.socket] = []
        self.is_frozen = False
        owners: Owners = {}
        makers: dict[int, Callable[[], Session]] = {
            RTDE_PORT: lambda: RtdeSession(robot, owners, observer_lag),
            SCRIPT_PORT: lambda: ScriptSession(robot),
            DASHBOARD_PORT: lambda: DashboardSession(robot),
        }
        for port, make_session in makers.items():
            listener = socket.create_server((host, port))
            self._listeners.append(listener)
            self._selector.register(listener, selectors.EVENT_READ, make_session)

    def serve_forever(self) -> None:
        """Accepts clients and reads what they send; for a thread."""
        while True:
            if self.is_frozen:
                time.sleep(0.002)
                continue
            for key, _ in self._selector.select(timeout=0.1):
                connection = cast("socket.socket", key.fileobj)
                with self._lock:
                    if key.data is not None:
                        self._accept(connection, key.data)
                    elif connection in self._sessions:
                        self._read(connection)

    def send_states(self, n_ticks: int, states: dict[str, Any]) -> None:
        """Sends clients what they asked for; one that does not read misses it. The lock must be held."""
        if self.is_frozen:
            return
        for connection, session in list(self._sessions.items()):
            if data := session.data(n_ticks, states):
                try:
                    connection.send(data, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    pass
                except OSError:
                    self._close(connection)

    def drop_connections(self, refuse: bool) -> None:
        """Closes every connection; with `refuse` there will be no new ones. The lock must be held."""
        for connection in list(self._sessions):
            self._close(connection)
        while refuse and self._listeners:
            listener = self._listeners.pop()
            self._selector.unregister(listener)
            listener.close()

    def _accept(self, listener: socket.socket, make_session: Callable[[], Session]) -> None:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sessions[connection] = session = make_session()
        self._selector.register(connection, selectors.EVENT_READ)
        connection.sendall(session.greeting())

    def _read(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(1 << 16)
            if data:
                connection.sendall(self._sessions[connection].receive(data))
        except Exception as error:
            logger.warning("A client is dropped: %r", error)
            data = b""
        if not data:
            self._close(connection)

    def _close(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        self._sessions.pop(connection).close()
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()
