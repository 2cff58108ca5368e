"""What the server bears from its clients."""

import time
from dataclasses import dataclass


class RequestError(ValueError):
    """A request that is refused. Its text is for the client: one line that says what to do."""


@dataclass(frozen=True)
class Limits:
    """Bounds on what a client may cost.

    Attributes:
        max_connections: clients at a time.
        max_rate: requests a second of one client.
        max_message_bytes: of a request.
        max_fragments: pieces that it may come in.
        max_pixels: of an image, looked up before a JPEG is decoded.
        send_timeout: time that a client may take to receive an answer (s).
        drain_timeout: time that answers may take after the server was told to stop (s).
    """

    max_connections: int = 64
    max_rate: float = 500.0
    max_message_bytes: int = 32 << 20
    max_fragments: int = 1024
    max_pixels: int = 3840 * 2160
    send_timeout: float = 10.0
    drain_timeout: float = 30.0


class RateLimit:
    """A bucket that holds a second's worth of requests and fills at `rate` a second."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._left = max(rate, 1.0)
        self._then = time.monotonic()

    def take(self) -> None:
        """Counts a request.

        Raises:
            RequestError: it is one too many.
        """
        now = time.monotonic()
        self._left = min(self._left + (now - self._then) * self._rate, max(self._rate, 1.0))
        self._then = now
        if self._left < 1:
            raise RequestError(f"more than {self._rate:g} requests a second: ask less often")
        self._left -= 1
