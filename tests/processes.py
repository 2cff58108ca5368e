"""What tests that start and kill processes share."""

import time
from pathlib import Path


def _stat(pid):
    """State and parent of a process."""
    state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    return state, int(parent)


def is_alive(pid):
    """Whether it runs; one that has ended and that nobody has waited for does not."""
    try:
        return _stat(pid)[0] != "Z"
    except OSError:
        return False


def parent_of(pid):
    return _stat(pid)[1]


def running(*words, without=()):
    """Ids of living processes with all of these words in their command line, and none of the others."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            line = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if any(word in line for word in without) or not all(str(word) in line for word in words):
            continue
        if is_alive(path.name):
            found.append(int(path.name))
    return found


def wait_for(condition, seconds=300, step=0.05):
    """What a condition gives as soon as it holds."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(step)
    return found
