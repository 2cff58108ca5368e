"""Disks that refuse: real ones, as far as a test can make them."""

import ctypes
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CAPABILITY_VERSION = 0x20080522
_MAY_WRITE_ANYWHERE = 1 << 1  # CAP_DAC_OVERRIDE


@contextmanager
def full_disk(free: int) -> Iterator[None]:
    """No file of this process can grow beyond `free` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """The permissions of a folder forbid to write to it."""
    mode = folder.stat().st_mode
    folder.chmod(0o555)
    try:
        yield
    finally:
        folder.chmod(mode)


@contextmanager
def bound_by_permissions() -> Iterator[None]:
    """Permissions bind root too, here and in threads that start here."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, words = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    if libc.capget(header, words):
        raise OSError(ctypes.get_errno(), "capget failed")
    before = words[0]
    words[0] = before & ~_MAY_WRITE_ANYWHERE
    _set(libc, header, words)
    try:
        yield
    finally:
        words[0] = before
        _set(libc, header, words)


def _set(libc: ctypes.CDLL, header: ctypes.Array, words: ctypes.Array) -> None:
    if libc.capset(header, words):
        raise OSError(ctypes.get_errno(), "capset failed")
