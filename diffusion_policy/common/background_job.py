"""One job at a time beside the main thread."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class BackgroundJob:
    """Runs functions one after the other in a thread; whoever starts one waits for the one before.

    An error of a job is kept until somebody asks: it is raised by the next `start` or `wait`, once. The interpreter
    ends only when the job has.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: ThreadPoolExecutor | None = None
        self._running: Future[None] | None = None

    def start(self, job: Callable[[], None]) -> None:
        """Waits for the job before and starts this one.

        Raises:
            Exception: that ended the job before; this one is then not started.
        """
        self.wait()
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix=self._name)
        self._running = self._thread.submit(job)

    def wait(self) -> None:
        """Returns when no job runs.

        Raises:
            Exception: that ended the job.
        """
        running, self._running = self._running, None
        if running is not None:
            try:
                running.result()
            except BaseException:
                if not running.done():
                    self._running = running  # the wait was interrupted, not the job
                raise

    @property
    def is_idle(self) -> bool:
        """Whether no job was started since the last `wait`."""
        return self._running is None

    @property
    def has_ended(self) -> bool:
        """Whether `wait` would return, or raise, at once."""
        return self._running is None or self._running.done()
