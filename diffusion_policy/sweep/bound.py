"""Runs a command that ends with its parent, alone in a folder; a script without packages that leads a process group.

Usage: python bound.py PARENT_PID LOCK_FILE_OR_EMPTY COMMAND [ARGUMENT ...]

When the parent dies, however it does, the kernel tells this process, which then kills its whole group (on Linux).
SIGINT is passed on to the command; what it ended with is what this process ends with.
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
    signal.pthread_sigmask(signal.SIG_SETMASK, [signal.SIGINT])  # until there is somebody to pass it on to
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
    _ask_for_signal_when_parent_dies(signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("the process that asked for this command has died")
    held = [_locked(lock)] if lock else []  # until the last process that was given it has ended
    signal.signal(signal.SIGINT, lambda *_: process.send_signal(signal.SIGINT))
    try:
        process = subprocess.Popen(command, pass_fds=held, preexec_fn=_begin_command)
    except OSError as error:
        sys.exit(f"cannot run {command[0]!r}: {error.strerror}")
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    code = process.wait()
    if code < 0:
        with suppress(OSError):  # SIGKILL has no other handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


def _begin_command() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    _ask_for_signal_when_parent_dies(signal.SIGKILL)


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


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
