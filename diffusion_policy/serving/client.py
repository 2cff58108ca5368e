"""The robot's side of remote inference. It needs numpy, msgpack and websockets, and no torch."""

import contextlib
import logging
import math
import socket
import ssl
import struct
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from diffusion_policy.serving.wire import WireError, keep_freed_memory, pack, unpack

try:
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
    from websockets.sync.client import ClientConnection, connect
except ImportError as error:
    raise ImportError(
        "remote inference needs websockets, which is not installed: pip install 'diffusion_policy[serve]'",
        name="websockets",
    ) from error

logger = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0  # s, between attempts to connect
MAX_REPLY_BYTES = 64 << 20


class PolicyServerError(RuntimeError):
    """The server refuses a request, and says why. The connection lives on."""


class PolicyClient:
    """Asks a policy server for actions.

    Not for several threads at a time: give each a client of its own, which also is an episode of its own to the
    server.

    Args:
        host: name, address or URI of the server: `10.0.0.5`, `ws://10.0.0.5:8000`, `wss://...` for TLS.
        port: where it listens, if the URI does not say.
        api_key: that the server was started with.
        timeout: time that an answer may take, a lost connection made anew included (s).
        connect_timeout: time to wait for a server that is not there yet (s).
        ssl_context: for `wss://`, to trust certificates that the system does not know.

    Raises:
        ConnectionError: no server came in time.
        PermissionError: it wants another key.
        ValueError: that is no address.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int | None = None,
        api_key: str | None = None,
        *,
        timeout: float = 10.0,
        connect_timeout: float = 60.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.uri = (host if "://" in host else f"ws://{host}") + ("" if port is None else f":{port}")
        self.timeout = timeout
        self._headers = {"Authorization": f"Api-Key {api_key}"} if api_key else None
        self._ssl = ssl_context
        self._websocket: ClientConnection | None = None
        self._metadata: dict[str, Any] = {}
        keep_freed_memory()
        self._connect(time.monotonic() + connect_timeout)

    def get_server_metadata(self) -> dict[str, Any]:
        """What the server said of its policy: `n_obs_steps`, `n_action_steps`, `shape_meta`, `observation_keys`, ..."""
        return self._metadata

    def infer(self, obs: Mapping[str, Any], seed: int | None = None) -> dict[str, Any]:
        """Asks for actions.

        If the connection is lost, it is made anew and the request sent again; a history of single observations and a
        random stream begin anew then, with a warning.

        Args:
            obs: by the policy's keys, or the short ones (`observation/image`, `observation/image_1`, ...,
                `observation/state`): images `(H, W, C)` uint8 or JPEG bytes, vectors `(D,)`; or `n_obs_steps` of each,
                `(To, ...)`, images as JPEG in a list.
            seed: of the policy's randomness from here on; it goes on from the request before if None.

        Returns:
            `actions` `(Ta, Da)` float32, and `server_timing` (ms).

        Raises:
            PolicyServerError: the server refuses the observation.
            TimeoutError: no answer in time; the next request makes a new connection.
            ConnectionError: the server is gone.
        """
        reply = self._ask(obs if seed is None else {**obs, "seed": seed})
        reply["actions"] = reply["actions"].copy()  # what was received cannot be written to
        return reply

    def reset(self, seed: int | None = None) -> None:
        """Starts an episode: the server forgets the observations so far. Errors are those of `infer`.

        Args:
            seed: of the policy's randomness in it; it goes on from the episode before if None.
        """
        self._ask({"reset": True} if seed is None else {"reset": True, "seed": seed})

    def close(self) -> None:
        """Ends the connection."""
        websocket, self._websocket = self._websocket, None
        if websocket is not None:
            websocket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        packed, deadline = pack(request), time.monotonic() + self.timeout
        if self._websocket is not None:
            with contextlib.suppress(ConnectionClosed):
                return self._exchange(self._websocket, packed, deadline)
        logger.warning("%s: the connection was lost; its history and random stream begin anew", self.uri)
        try:
            return self._exchange(self._connect(deadline), packed, deadline)
        except ConnectionClosed as error:
            raise ConnectionError(f"{self.uri} closed the connection: {error}") from error

    def _exchange(self, websocket: ClientConnection, packed: bytes, deadline: float) -> dict[str, Any]:
        try:
            websocket.send(packed)
            reply = websocket.recv(max(deadline - time.monotonic(), 0))
        except BaseException as error:
            self._abandon()  # what comes now would be taken for the answer to the next request
            if isinstance(error, TimeoutError):
                raise TimeoutError(f"{self.uri} gave no answer within {self.timeout:g} s") from None
            raise
        if isinstance(reply, str):
            raise PolicyServerError(reply)
        return _read(reply)

    def _abandon(self) -> None:
        websocket, self._websocket = self._websocket, None
        if websocket is not None:
            _hang_up(websocket)

    def _connect(self, deadline: float) -> ClientConnection:
        self._abandon()
        pause = FIRST_PAUSE
        while True:
            try:
                self._websocket = self._handshake(max(deadline - time.monotonic(), FIRST_PAUSE))
                return self._websocket
            except (OSError, InvalidHandshake, ConnectionClosed) as error:
                status = error.response.status_code if isinstance(error, InvalidStatus) else None
                if status in (401, 403):
                    raise PermissionError(f"{self.uri} refuses the API key (HTTP {status})") from error
                if isinstance(error, ssl.SSLError) or time.monotonic() + pause > deadline:
                    raise ConnectionError(f"no policy server at {self.uri}: {error}") from error
                logger.info("waiting for the server at %s: %s", self.uri, error)
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _handshake(self, timeout: float) -> ClientConnection:
        end = time.monotonic() + timeout
        try:
            websocket = connect(
                self.uri,
                additional_headers=self._headers,
                ssl=self._ssl,
                compression=None,
                max_size=MAX_REPLY_BYTES,
                open_timeout=timeout,
                close_timeout=2,
            )
        except InvalidURI as error:
            raise ValueError(f"{self.uri!r} is no address of a server, such as ws://10.0.0.5:8000") from error
        try:
            _limit_sending(websocket.socket, self.timeout)
            greeting = websocket.recv(max(end - time.monotonic(), 0))
            if isinstance(greeting, str):
                raise ConnectionError(greeting)
            self._metadata = _read(greeting)
        except BaseException:
            _hang_up(websocket)
            raise
        return websocket


def _limit_sending(sock: socket.socket, seconds: float) -> None:
    """Ends a connection whose peer takes nothing for so long; websockets bounds only receiving."""
    fraction, whole = math.modf(seconds)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(whole), int(fraction * 1e6)))


def _hang_up(websocket: ClientConnection) -> None:
    """Without a closing handshake, which a peer that does not answer would not answer either."""
    with contextlib.suppress(OSError):
        websocket.socket.shutdown(socket.SHUT_RDWR)


def _read(data: bytes) -> dict[str, Any]:
    message = unpack(data)
    if not isinstance(message, dict):
        raise WireError(f"expected a map from the server, got a {type(message).__name__}")
    return message
