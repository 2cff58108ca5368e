"""Becomes a command that dies with its parent and shares a folder with no other; run as a script, without packages.

Usage: python bound.py PARENT_PID LOCK_FILE_OR_EMPTY COMMAND [ARGUMENT ...]
"""

import ctypes
import fcntl
import os
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
LOCK_TIMEOUT = 60.0


def main(parent: int, lock: str, *command: str) -> None:
    """Replaces this process by the command."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # Ray blocks SIGINT in what it starts,
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # and a shell has what is in its background ignore it
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the process that asked for this command has died")
    if lock:
        os.set_inheritable(_locked(lock), True)  # until the last process of the command has ended
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"cannot run {command[0]!r}: {error.strerror}")


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
