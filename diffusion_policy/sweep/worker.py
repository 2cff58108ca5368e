"""Runs a command where a cluster has room for it; what is here runs on the machine of the worker."""

import logging
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO

logger = logging.getLogger(__name__)

GRACE = 60.0
"""Seconds that a command has to end once it was asked to."""

FAILURE = "failure.txt"
"""File of a job's folder that says why the job was given up."""

_BOUND = Path(__file__).with_name("bound.py")


class CommandFailed(RuntimeError):
    """A command that ended neither well nor because it was interrupted."""


def worker_fn(
    command_args: Sequence[str],
    data_src: str | os.PathLike[str] | None = None,
    unbuffer_python: bool = False,
    log: str | os.PathLike[str] | None = None,
    lock: str | os.PathLike[str] | None = None,
) -> int:
    """Runs a command in the working folder to its end; SIGINT goes on to it and what it has started.

    Neither the command nor what it starts outlives this process (on Linux); `python` is this interpreter.

    Args:
        command_args: the command and its arguments.
        data_src: folder to be found as `./data`.
        unbuffer_python: Python's output arrives as it is written.
        log: file that the output is appended to; None: it goes where this process's goes.
        lock: file that is locked while a process of the command lives; waits a minute for it to be free.

    Returns:
        0, or -2 (-SIGINT) if it was interrupted.

    Raises:
        CommandFailed: for any other end.
        FileNotFoundError: there is no `data_src` on this machine, or no folder for the log.
        FileExistsError: `./data` is in the way.
    """
    if data_src is not None:
        link_data(data_src)
    path = (str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))
    environment = {**os.environ, "PATH": os.pathsep.join(path)}
    if unbuffer_python:
        environment["PYTHONUNBUFFERED"] = "1"
    command = [sys.executable, "-IS", _BOUND, str(os.getpid()), lock or "", *command_args]
    with open(log, "ab") if log else nullcontext() as output:
        code = _run(command, environment, output)
    if code not in (0, -signal.SIGINT):
        raise CommandFailed(f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}")
    return code


def link_data(data_src: str | os.PathLike[str]) -> None:
    """Makes `./data` a link to a folder; if it is that folder itself, makes it if it is missing.

    Raises:
        FileNotFoundError: there is no such folder on this machine.
        FileExistsError: there is a folder or a file `./data`, and it is another.
    """
    source, link = Path(data_src).expanduser().resolve(), Path("data")
    if link.resolve() == source:
        source.mkdir(exist_ok=True)
        return
    if not source.is_dir():
        raise FileNotFoundError(f"there is no folder {source} (data_src) on {platform.node()} to link ./data to")
    if link.exists() and not link.is_symlink():
        raise FileExistsError(
            f"{link.absolute()} is to be a link to {source} (data_src), but there is a folder or file of that name: "
            "move it away, or leave data_src out"
        )
    if link.is_symlink():
        logger.warning("%s linked to %s, and now does to %s", link.absolute(), link.readlink(), source)
    temporary = Path(f".data.{os.getpid()}.tmp")
    temporary.symlink_to(source)
    temporary.replace(link)


def _run(command: Sequence[str | os.PathLike[str]], environment: dict[str, str], output: IO[bytes] | None) -> int:
    """The command's return code; that of SIGINT if it was interrupted, in whatever way it then ended."""
    with _interrupts() as interrupts:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output and subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            n_sent = 0
            while process.poll() is None:
                if len(interrupts) > n_sent:
                    n_sent = len(interrupts)
                    os.killpg(process.pid, signal.SIGINT)
                if interrupts and time.monotonic() > interrupts[0] + GRACE:
                    break
                time.sleep(0.1)
        finally:
            if process.returncode != 0:  # also what it has started, if it could not end that itself
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        return -signal.SIGINT if interrupts else code


@contextmanager
def _interrupts() -> Iterator[list[float]]:
    """The times at which SIGINT came while the block ran; it is not raised as KeyboardInterrupt."""
    times: list[float] = []
    before = signal.signal(signal.SIGINT, lambda *_: times.append(time.monotonic()))
    try:
        yield times
    finally:
        signal.signal(signal.SIGINT, before)
