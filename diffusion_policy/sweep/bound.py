"""Runs a command that ends with its parent, alone in a folder; a script without packages that leads a process group.

Usage: python bound.py PARENT_PID LOCK_FILE_OR_EMPTY COMMAND [ARGUMENT ...]

When the parent dies, however it does, the kernel tells this process, which then kills its whole group (on Linux).
SIGINT is for the group, as from a terminal: this process waits for the command, and ends as the command does.
"""

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

PR_SET_PDEATHSIG = 1
LOCK_TIMEOUT = 60.0


def main(parent: int, lock: str, *command: str) -> None:
    """Runs the command and ends as it does."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # in the background of a shell it is ignored,
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # and blocked in what Ray starts
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
    _ask_for_signal_when_parent_dies(signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("the process that asked for this command has died")
    held = [_locked(lock)] if lock else []  # until the last process that was given it has ended
    interrupts: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))
    try:
        process = subprocess.Popen(
            command, pass_fds=held, preexec_fn=lambda: _ask_for_signal_when_parent_dies(signal.SIGKILL)
        )
    except OSError as error:
        sys.exit(f"cannot run {command[0]!r}: {error.strerror}")
    if interrupts:  # which the command did not see
        process.send_signal(signal.SIGINT)
    code = process.wait()
    if code < 0:
        with suppress(OSError):  # SIGKILL has no other handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


def _ask_for_signal_when_parent_dies(number: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


def _locked(path: str) -> int:
    """Takes the lock as soon as those who hold it, an earlier attempt that is being stopped, are gone."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    deadline = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() > deadline:
                sys.exit(f"another process is at work in {os.path.dirname(path)}: stop it first")
            time.sleep(0.1)
        except OSError as error:
            print(f"{path} cannot be locked ({error.strerror}): going on without", file=sys.stderr)  # noqa: T201
            return descriptor


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
