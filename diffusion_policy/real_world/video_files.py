"""What is in a video file, with errors that say which file it is."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.common.pyav import av

Image = NDArray[np.uint8]


def resolution(path: str | Path) -> tuple[int, int]:
    """Width and height of a video, px.

    Raises:
        ValueError: it is no video.
    """
    with reading(path), av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        return context.width, context.height


def all_frames(path: str | Path) -> Iterator[Image]:
    """The frames of a video, RGB `(H, W, 3)`, of which there is at least one.

    Raises:
        ValueError: it is no video, or is damaged.
    """
    n_frames = 0
    with reading(path), av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            yield np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
            n_frames += 1
    if not n_frames:
        raise ValueError(f"{path} has no frames")


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Says which video it was that could not be decoded in the block.

    Raises:
        ValueError: that.
    """
    try:
        yield
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(
            f"{path} cannot be decoded ({error}): is it a whole video? Copy it again, or leave its camera out"
        ) from error
