"""Frames of many videos into zarr arrays: decoded in some threads, compressed in others."""

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from threading import BoundedSemaphore, Event

from tqdm import tqdm

from diffusion_policy.common.zarr_array import ZarrArray, read_array
from diffusion_policy.real_world.video_files import Image, reading
from diffusion_policy.real_world.video_recorder import read_video


@dataclass(frozen=True)
class VideoRows:
    """A video, of which a frame every `step_duration` s belongs into each of the `rows` of an array, one by one.

    Attributes:
        wanted: the rows to write.
        transform: what becomes of each frame.
    """

    path: Path
    step_duration: float
    array: ZarrArray
    rows: range
    wanted: Collection[int]
    transform: Callable[[Image], Image]


def copy_frames(
    videos: Sequence[VideoRows], n_decoding_threads: int, n_encoding_threads: int, max_waiting: int, verify: bool
) -> None:
    """Writes the frames of videos into their rows.

    Args:
        n_decoding_threads: videos at a time.
        n_encoding_threads: frames at a time.
        max_waiting: decoded frames in memory at most.
        verify: read each row back.

    Raises:
        ValueError: a video cannot be decoded or has too few frames, or a row reads otherwise than it was written.
    """
    room, stop = BoundedSemaphore(max_waiting), Event()
    total = sum(len(video.wanted) for video in videos)
    with (
        tqdm(total=total, desc="frames of videos", unit=" frames", mininterval=1) as progress,
        ThreadPoolExecutor(n_encoding_threads) as encoders,
        ThreadPoolExecutor(n_decoding_threads) as decoders,
    ):

        def write(video: VideoRows, row: int, frame: Image) -> None:
            try:
                video.array[row] = frame
                if verify and read_array(video.array, slice(row, row + 1)).shape[1:] != frame.shape:
                    raise ValueError(f"row {row} of {video.array.path} cannot be read back")
                progress.update()
            finally:
                room.release()

        def copy(video: VideoRows) -> None:
            writes: list[Future[None]] = []
            for row, frame in zip(video.rows, _frames(video), strict=False):
                if stop.is_set():
                    return
                if row in video.wanted:
                    room.acquire()
                    writes.append(encoders.submit(write, video, row, frame))
            for each in writes:
                each.result()

        try:
            for copied in as_completed([decoders.submit(copy, video) for video in videos]):
                copied.result()
        except BaseException:
            stop.set()
            decoders.shutdown(cancel_futures=True)
            raise


def _frames(video: VideoRows) -> Iterator[Image]:
    n_frames = 0
    with reading(video.path):
        for frame in read_video(
            str(video.path), dt=video.step_duration, img_transform=video.transform, thread_type="FRAME", thread_count=1
        ):
            yield frame
            n_frames += 1
    if n_frames < len(video.rows):
        raise ValueError(
            f"{video.path} ends after {n_frames} of the {len(video.rows)} steps of its episode: drop that episode, "
            "or leave its camera out"
        )
