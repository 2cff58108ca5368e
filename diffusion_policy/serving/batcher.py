"""The thread in which the policy computes, for the clients that wait at the moment."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from diffusion_policy.serving.engine import DeviceError, InferenceEngine, Query
from diffusion_policy.serving.metrics import Metrics

logger = logging.getLogger(__name__)

LAST_BATCH_SECONDS = 1.0


@dataclass
class Answer:
    """Actions `(Ta, Da)`, the number of clients answered with them, and the times that took (s)."""

    actions: np.ndarray
    batch_size: int
    queue_seconds: float
    infer_seconds: float


@dataclass
class _Job:
    query: Query
    answer: "Future[Answer]" = field(default_factory=Future)
    arrival: float = field(default_factory=time.perf_counter)


class Batcher:
    """Answers queries in the order they come, together where that is faster.

    Args:
        engine: warmed up.
        max_wait: time that the first query waits for others, if more clients are there (s).
        n_clients: says how many are.
        metrics: told of batches.
        on_failure: told, in this thread, what ended it.
    """

    def __init__(
        self,
        engine: InferenceEngine,
        max_wait: float,
        n_clients: Callable[[], int],
        metrics: Metrics,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._engine = engine
        self._max_wait = max_wait
        self._n_clients = n_clients
        self._metrics = metrics
        self._on_failure = on_failure
        self._waiting: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    def submit(self, query: Query) -> "Future[Answer]":
        """Queues a query; its answer raises what the policy raised."""
        job = _Job(query)
        with self._changed:
            if self._failure is not None:
                raise self._failure
            self._waiting.append(job)
            self._changed.notify()
        return job.answer

    def stop(self) -> None:
        """Ends the thread after the batch it is at, or leaves it alone if that takes for ever."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify()
        self._thread.join(LAST_BATCH_SECONDS)

    def _run(self) -> None:
        try:
            self._engine.use_device()
            while jobs := self._next_jobs():
                self._answer([job for job in jobs if job.answer.set_running_or_notify_cancel()])
        except BaseException as error:
            logger.exception("the policy cannot go on")
            with self._changed:
                self._failure = error
                left = list(self._waiting)
            for job in left:
                job.answer.set_exception(error)
            self._on_failure(error)

    def _next_jobs(self) -> list[_Job]:
        """The queries to answer next; none when the thread is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_stopped)
            if self._is_stopped:
                return []
            end = self._waiting[0].arrival + self._max_wait
            most = max(self._engine.seconds)
            self._changed.wait_for(
                lambda: self._is_stopped or len(self._waiting) >= min(most, self._n_clients()),
                max(end - time.perf_counter(), 0),
            )
            size = self._engine.batch_size(len(self._waiting))
            return [self._waiting.popleft() for _ in range(size)]

    def _answer(self, jobs: list[_Job]) -> None:
        if not jobs:  # all of them have gone
            return
        start = time.perf_counter()
        try:
            actions = self._engine.predict([job.query for job in jobs])
        except DeviceError as error:
            for job in jobs:
                job.answer.set_exception(error)
            raise
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].answer.set_exception(error)
            else:  # one of them is to blame
                for job in jobs:
                    self._answer([job])
            return
        seconds = time.perf_counter() - start
        self._metrics.batch(len(jobs), seconds)
        for job, action in zip(jobs, actions, strict=True):
            if np.isfinite(action).all():
                job.answer.set_result(Answer(action, len(jobs), start - job.arrival, seconds))
            else:
                job.answer.set_exception(FloatingPointError("the policy's action is not finite (NaN or infinite)"))
