"""What the server says over HTTP, before there is a connection: health, metrics, and who may come in."""

import hashlib
import hmac
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import Request, Response, ServerConnection

from diffusion_policy.serving.metrics import CONTENT_TYPE, Metrics

SPARE_CONNECTIONS = 64
"""TCP connections beside the clients': handshakes, health checks, metrics."""


class Endpoints:
    """Answers `/healthz` to all, and to those who know the key `/metrics` and the rest, which is the policy's.

    Args:
        metrics: to show, and to count refusals in.
        api_key: that clients must bring as `Authorization: Api-Key ...`; None lets all in.
        max_clients: connections at a time.
        n_clients: says how many there are.
    """

    def __init__(self, metrics: Metrics, api_key: str | None, max_clients: int, n_clients: Callable[[], int]) -> None:
        self._metrics = metrics
        self._expected = _digest(f"Api-Key {api_key}") if api_key else None
        self._max_clients = max_clients
        self._n_clients = n_clients

    def __call__(self, connection: ServerConnection, request: Request) -> Response | None:
        """The answer to a request, or None where the WebSocket handshake may go on."""
        path = request.path.partition("?")[0]
        if path == "/healthz":
            return connection.respond(HTTPStatus.OK, "OK\n")
        if not self._is_allowed(request.headers.get_all("Authorization")):
            response = self._refuse(connection, HTTPStatus.UNAUTHORIZED, "the API key is missing or wrong")
            response.headers["WWW-Authenticate"] = "Api-Key"
            return response
        if path == "/metrics":
            response = connection.respond(HTTPStatus.OK, self._metrics.text())
            del response.headers["Content-Type"]
            response.headers["Content-Type"] = CONTENT_TYPE
            return response
        if self._n_clients() >= self._max_clients:
            reason = f"there are {self._max_clients} clients already: close one, or raise --max-connections"
            return self._refuse(connection, HTTPStatus.SERVICE_UNAVAILABLE, reason)
        return None

    def _refuse(self, connection: ServerConnection, status: HTTPStatus, reason: str) -> Response:
        self._metrics.rejected(status)
        return connection.respond(status, reason + "\n")

    def _is_allowed(self, given: list[str]) -> bool:
        if self._expected is None:
            return True
        # Digests are compared, all of them in the same time, so that neither length nor beginning of the key shows.
        return len(given) == 1 and hmac.compare_digest(_digest(given[0]), self._expected)


class BoundedConnection(ServerConnection):
    """A connection that is cut at once if there are too many.

    Args:
        max_connections: TCP connections that the server has at a time.
        args, kwargs: as for `ServerConnection`.
    """

    def __init__(self, max_connections: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._max_connections = max_connections

    def connection_made(self, transport: Any) -> None:
        """Called when a peer has connected."""
        super().connection_made(transport)
        if len(self.server.handlers) > self._max_connections:
            transport.abort()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
