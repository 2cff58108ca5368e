"""Runs jobs on a cluster to their end: starts those that die again, and says what happened to them."""

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from diffusion_policy.sweep.cluster import Cluster, Resources
from diffusion_policy.sweep.worker import FAILURE, GRACE, worker_fn

logger = logging.getLogger(__name__)

TAIL_LINES = 20
_CURSOR_MOVES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_PROGRESS = re.compile(r"\d+%\|")


@dataclass
class Job:
    """A command that a worker runs.

    Attributes:
        name: for messages.
        command: and its arguments.
        resources: that it takes.
        retries: how often it is started again if it dies.
        on_retry: further arguments when it is.
        folder: that only one attempt may work in at a time, and where a failure is noted.
        log: file that shows what it did; with `capture`, its output.
        essential: whether its failure is one of the whole.
        node_id: machine that it must run on.
    """

    name: str
    command: Sequence[str]
    resources: Resources
    retries: int = 0
    on_retry: Sequence[str] = ()
    folder: Path | None = None
    log: Path | None = None
    capture: bool = True
    essential: bool = True
    node_id: str | None = None
    attempts: int = field(default=0, init=False)

    def start(self, cluster: Cluster) -> object:
        """Starts it, or starts it again; returns the task."""
        again = self.attempts > 0
        self.attempts += 1
        return cluster.start(
            worker_fn,
            self.resources,
            self.node_id,
            command_args=[*self.command, *(self.on_retry if again else ())],
            log=self.log if self.capture else None,
            lock=self.folder and str(self.folder / ".lock"),
        )


def run_jobs(cluster: Cluster, jobs: Sequence[Job], fail_fast: bool = False) -> list[Job]:
    """Runs jobs side by side, as many as there is room for, until the essential ones have ended; then stops the others.

    However this ends, also by KeyboardInterrupt, no job goes on: they are interrupted, and killed if they do not end.

    Args:
        fail_fast: the first essential job that fails for good ends the others.

    Returns:
        The essential jobs that failed.
    """
    for job in jobs:
        if job.folder is not None:
            (job.folder / FAILURE).unlink(missing_ok=True)
    running = {job.start(cluster): job for job in jobs}
    failed: list[Job] = []
    try:
        while any(job.essential for job in running.values()) and not (failed and fail_fast):
            for task in cluster.ended(running):
                job = running.pop(task)
                reason = cluster.failure(task)
                if reason is None:
                    logger.info("%s: done", job.name)
                elif job.attempts <= job.retries:
                    again = f"Starting it again ({job.attempts} of {job.retries})"
                    logger.warning("%s: %s. %s%s", job.name, reason, again, _quoted(_tail(job.log)))
                    running[job.start(cluster)] = job
                else:
                    _note_failure(job, reason)
                    failed += [job] * job.essential
    finally:
        if any(job.essential for job in running.values()):
            logger.info("Stopping %s", ", ".join(job.name for job in running.values()))
        cluster.stop(running, timeout=GRACE + 10)
    return failed


def _note_failure(job: Job, reason: str) -> None:
    tail = _tail(job.log)
    attempts = f" after {job.attempts} attempts" if job.attempts > 1 else ""
    consequence = "" if job.essential else ". The others go on without it"
    logger.error("%s: %s%s%s%s", job.name, reason, attempts, consequence, _quoted(tail))
    if job.folder is not None and job.essential:
        (job.folder / FAILURE).write_text(f"{reason}{attempts}\n\n{tail}\n", encoding="utf-8")


def _tail(log: Path | None) -> str:
    """The last lines of a log; of progress bars only what was shown last."""
    if log is None or not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(-min(file.seek(0, os.SEEK_END), 2**16), os.SEEK_END)
        text = _CURSOR_MOVES.sub("", file.read().decode(errors="replace"))
    lines = [line for line in re.split("[\r\n]+", text) if line.strip()]
    return "\n".join([line for line in lines if not _PROGRESS.search(line) or line is lines[-1]][-TAIL_LINES:])


def _quoted(tail: str) -> str:
    return tail and ". The end of its log:\n" + "\n".join(f"    | {line}" for line in tail.splitlines())
