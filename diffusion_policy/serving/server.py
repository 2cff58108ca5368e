"""The policy server: WebSocket connections, each answered in its own time."""

import asyncio
import logging
import os
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from diffusion_policy.serving.batcher import Batcher
from diffusion_policy.serving.debug_recorder import DebugRecorder
from diffusion_policy.serving.endpoints import SPARE_CONNECTIONS, BoundedConnection, Endpoints
from diffusion_policy.serving.engine import InferenceEngine
from diffusion_policy.serving.limits import Limits
from diffusion_policy.serving.metrics import Metrics
from diffusion_policy.serving.observation_reader import ObservationReader
from diffusion_policy.serving.policy_spec import PolicySpec
from diffusion_policy.serving.request_handler import RequestHandler
from diffusion_policy.serving.session import Session
from diffusion_policy.serving.wire import keep_freed_memory, pack

try:
    from websockets.asyncio.server import Server, ServerConnection, serve
    from websockets.exceptions import ConnectionClosed
except ImportError as error:
    raise ImportError(
        "the server needs websockets, which is not installed: pip install 'diffusion_policy[serve]'", name="websockets"
    ) from error

logger = logging.getLogger(__name__)

GOING_AWAY, POLICY_VIOLATION, INTERNAL_ERROR = 1001, 1008, 1011
STOPPING = "the server is stopping: connect again later"


class PolicyServer:
    """Serves a policy to many clients.

    Each connection is a client with an episode of its own. Requests are read in a few threads and answered in the
    engine's; this one only moves bytes, so that nobody waits for a client that is slow or gone.

    Args:
        engine: warmed up.
        spec: the policy's shapes.
        metadata: what clients are told when they connect, beside the spec.
        limits: what clients may cost.
        api_key: that they must bring; None for any.
        max_wait: time that a request may wait for others to be answered with (s).
        recorder: keeps requests for debugging.
    """

    def __init__(
        self,
        engine: InferenceEngine,
        spec: PolicySpec,
        metadata: Mapping[str, Any],
        limits: Limits,
        api_key: str | None = None,
        max_wait: float = 0.002,
        recorder: DebugRecorder | None = None,
    ) -> None:
        self._engine = engine
        self._spec = spec
        self._greeting = pack({**spec.metadata(), **metadata})
        self._limits = limits
        self._max_wait = max_wait
        self._recorder = recorder
        self._reader = ObservationReader(spec, limits.max_pixels)
        self._metrics = Metrics()
        self._endpoints = Endpoints(self._metrics, api_key, limits.max_connections, lambda: len(self._clients))
        self._clients: dict[ServerConnection, asyncio.Task[None] | None] = {}
        self._n_requests = 0
        self._is_stopping = asyncio.Event()
        self._failure: BaseException | None = None

    def stop(self) -> None:
        """Lets the server end when the requests that it has are answered. Call it in the server's event loop."""
        self._is_stopping.set()

    async def run(
        self, sock: socket.socket, tls: ssl.SSLContext | None = None, on_listening: Callable[[], None] = lambda: None
    ) -> None:
        """Serves at a bound socket until `stop` is called.

        Raises:
            DeviceError: the GPU failed.
        """
        keep_freed_memory()
        loop = asyncio.get_running_loop()

        def fail(error: BaseException) -> None:
            self._failure = error
            loop.call_soon_threadsafe(self.stop)

        batcher = Batcher(self._engine, self._max_wait, lambda: len(self._clients), self._metrics, fail)
        readers = ThreadPoolExecutor(min(os.cpu_count() or 1, 8), thread_name_prefix="reader")
        handler = RequestHandler(readers, batcher, self._metrics, self._recorder)
        handshakes = logging.getLogger(f"{__name__}.handshakes")
        handshakes.setLevel(logging.CRITICAL)  # peers that speak no HTTP are no errors of ours
        async with serve(
            partial(self._talk, handler),
            sock=sock,
            ssl=tls,
            process_request=self._endpoints,
            create_connection=partial(BoundedConnection, self._limits.max_connections + SPARE_CONNECTIONS),  # type: ignore[arg-type]
            origins=[None],  # pages in a browser have one
            compression=None,
            max_size=self._limits.max_message_bytes,
            max_queue=1,
            close_timeout=2,
            logger=handshakes,
        ) as server:
            on_listening()
            await self._is_stopping.wait()
            await self._drain(server)
        readers.shutdown(cancel_futures=True)
        batcher.stop()
        if self._failure is not None:
            raise self._failure

    async def _drain(self, server: Server) -> None:
        """Answers what was asked, refuses what is asked now, and says goodbye."""
        logger.info("stopping; requests being answered: %d", self._n_requests)
        server.close(close_connections=False)
        end = time.monotonic() + self._limits.drain_timeout
        while self._n_requests and time.monotonic() < end:
            await asyncio.sleep(0.01)
        code = GOING_AWAY if self._failure is None else INTERNAL_ERROR
        await asyncio.gather(*(client.close(code, "the server stops") for client in self._clients))
        for task in filter(None, self._clients.values()):  # whose answer took too long
            task.cancel()

    async def _talk(self, handler: RequestHandler, client: ServerConnection) -> None:
        session = Session(_name(client), self._reader, self._spec.n_obs_steps, self._limits.max_rate)
        self._clients[client] = asyncio.current_task()
        self._metrics.connections.set(len(self._clients))
        try:
            await self._send(client, self._greeting)
            while True:
                message = await self._receive(client)
                if self._is_stopping.is_set():
                    await self._send(client, STOPPING)
                    continue
                self._n_requests += 1
                try:
                    await self._send(client, await handler.reply(session, message))
                finally:
                    self._n_requests -= 1
        except ConnectionClosed:
            pass
        except Exception:
            logger.exception("%s: the connection failed", session.name)
            raise
        finally:
            del self._clients[client]
            self._metrics.connections.set(len(self._clients))

    async def _receive(self, client: ServerConnection) -> bytes | str:
        """A message; of a text, which is none of a client, nothing but that it was one."""
        parts: list[Any] = []
        async for part in client.recv_streaming():
            parts.append(part)
            if len(parts) > self._limits.max_fragments:
                await client.close(POLICY_VIOLATION, f"more than {self._limits.max_fragments} fragments")
        return "" if isinstance(parts[0], str) else b"".join(parts)

    async def _send(self, client: ServerConnection, message: bytes | str) -> None:
        try:
            async with asyncio.timeout(self._limits.send_timeout):
                await client.send(message)
        except TimeoutError:
            logger.warning("%s takes no answers and is cut off", _name(client))
            client.transport.abort()


def _name(client: ServerConnection) -> str:
    host, port, *_ = client.remote_address
    return f"{host}:{port}"
