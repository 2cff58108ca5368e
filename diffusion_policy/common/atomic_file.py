"""Files that are never seen half-written."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path beside `path`; its file takes the place of `path` when the block ends well.

    The content reaches the disk before the rename, so that after a crash or a loss of power `path` holds
    either the old content or the new. If the block fails, the temporary file is removed and `path` kept.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, target)
        _sync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: str | os.PathLike[str]) -> list[Path]:
    """Removes the temporary files of killed processes from a folder, to which nobody else may be writing."""
    if not Path(folder).is_dir():
        return []
    leftovers = [path for path in Path(folder).iterdir() if re.fullmatch(r"\..+\.\d+\.tmp", path.name)]
    for path in leftovers:
        path.unlink(missing_ok=True)
    return leftovers


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
