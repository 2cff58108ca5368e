"""From a client's message to the reply."""

import asyncio
import logging
import time
from concurrent.futures import Executor
from dataclasses import dataclass, field

import numpy as np

from diffusion_policy.serving.batcher import Batcher
from diffusion_policy.serving.debug_recorder import DebugRecorder, Record
from diffusion_policy.serving.engine import DeviceError, Query
from diffusion_policy.serving.limits import RequestError
from diffusion_policy.serving.metrics import Metrics
from diffusion_policy.serving.observation_reader import Obs
from diffusion_policy.serving.session import Session
from diffusion_policy.serving.wire import WireError, pack

logger = logging.getLogger(__name__)

LOGGED_REFUSALS = 5
"""Of one client; the others are counted."""
LONGEST_ERROR = 1000


@dataclass
class _Progress:
    """How far a request has come."""

    start: float = field(default_factory=time.perf_counter)
    obs: Obs | None = None
    actions: np.ndarray | None = None
    timing: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    kind: str | None = None


class RequestHandler:
    """Answers requests: with actions, or with one line of text that says why there are none.

    Args:
        readers: threads that read requests.
        batcher: predicts.
        metrics: told of each request.
        recorder: keeps each request, if any.
    """

    def __init__(self, readers: Executor, batcher: Batcher, metrics: Metrics, recorder: DebugRecorder | None) -> None:
        self._readers = readers
        self._batcher = batcher
        self._metrics = metrics
        self._recorder = recorder

    async def reply(self, session: Session, message: bytes | str) -> bytes | str:
        """What a client gets for its message. Whatever goes wrong stays with this request."""
        done = _Progress()
        try:
            await self._answer(session, message, done)
        except (RequestError, WireError) as error:
            done.kind, done.error = "request", " ".join(str(error).split())[:LONGEST_ERROR]
            _log_refusal(session, done.error)
        except DeviceError as error:
            done.kind, done.error = "device", f"{error}. The server stops"
        except Exception as error:
            logger.exception("%s: a request failed", session.name)
            reason = str(error) if isinstance(error, FloatingPointError) else type(error).__name__
            done.kind, done.error = "policy", f"the policy failed: {reason}. The server's log says more"
        seconds = time.perf_counter() - done.start
        session.last_total_ms = 1e3 * seconds
        self._metrics.request(seconds, done.kind)
        if self._recorder is not None and isinstance(message, bytes):
            self._recorder.record(Record(session.name, message, done.obs, done.actions, done.timing, done.error))
        if done.error is not None:
            return done.error
        return pack({**({} if done.actions is None else {"actions": done.actions}), "server_timing": done.timing})

    async def _answer(self, session: Session, message: bytes | str, done: _Progress) -> None:
        session.rate.take()
        if isinstance(message, str):
            raise RequestError("a request is a binary message of msgpack, this is text")
        loop = asyncio.get_running_loop()
        done.obs = await loop.run_in_executor(self._readers, session.read, message)
        done.timing["read_ms"] = 1e3 * (time.perf_counter() - done.start)
        if session.last_total_ms is not None:
            done.timing["prev_total_ms"] = session.last_total_ms
        if done.obs is None:
            return
        answer = await asyncio.wrap_future(self._batcher.submit(Query(done.obs, session.episode)))
        done.actions = answer.actions
        done.timing["queue_ms"] = 1e3 * answer.queue_seconds
        done.timing["infer_ms"] = 1e3 * answer.infer_seconds
        done.timing["batch_size"] = answer.batch_size


def _log_refusal(session: Session, line: str) -> None:
    session.n_refused += 1
    if session.n_refused <= LOGGED_REFUSALS:
        logger.warning("%s: refused: %s", session.name, line)
    if session.n_refused == LOGGED_REFUSALS:
        logger.warning("%s: further refusals are only counted, see /metrics", session.name)
