"""Encoding beside the capture of frames, which must not wait for it."""

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffusion_policy.common.video_recorder import VideoRecorder
from diffusion_policy.real_world.cameras.frame_source import Frame
from diffusion_policy.real_world.real_time import run_in_real_time

logger = logging.getLogger(__name__)

PRIORITY = 1  # in real time, where that is allowed; less than the capture's
BACKLOG = 30  # frames that may wait for the encoder: 83 MB of 1280 x 720 px


@dataclass
class RecordingReport:
    """What became of a recording's frames.

    Attributes:
        path: of the video.
        n_frames: frames of the camera that are in the video.
        n_repeated: places in the video that had no frame of their own and show the one after.
        n_dropped: frames that came and are not in the video: the encoder was far behind, or their place was taken.
    """

    path: Path
    n_frames: int = 0
    n_repeated: int = 0
    n_dropped: int = 0


class RecordingThread:
    """One recording, from construction to `stop`: frames wait in a queue for a thread that encodes them.

    Args:
        recorder: that writes them.
        path: of the video.
        start_time: of its first frame (s); None for whenever that comes, and no grid of times.
        transform: of each frame, done by the thread; its `color` is recorded.

    Raises:
        FileNotFoundError: the video's folder does not exist.
    """

    def __init__(
        self, recorder: VideoRecorder, path: Path, start_time: float | None, transform: Callable[[Frame], Frame] | None
    ) -> None:
        recorder.start(path, start_time)
        self._recorder = recorder
        self._transform = transform
        self._report = RecordingReport(path)
        self._queue: queue.Queue[tuple[Frame, float] | None] = queue.Queue(BACKLOG)
        self._ended: Future[RecordingReport] = Future()
        threading.Thread(target=self._run, name=f"recording {path.name}", daemon=True).start()

    def write(self, frame: Frame, time: float) -> None:
        """Adds a frame of `time` (s), without waiting. It is not to be changed afterwards."""
        try:
            self._queue.put_nowait((frame, time))
        except queue.Full:
            self._report.n_dropped += 1

    def stop(self) -> "Future[RecordingReport]":
        """Ends the recording; the result is there, or the error that broke it, when the file is complete."""
        threading.Thread(target=self._queue.put, args=(None,), daemon=True).start()  # which may have to wait
        return self._ended

    def _run(self) -> None:
        run_in_real_time(PRIORITY)
        try:
            self._encode()
            self._recorder.stop()
        except Exception as error:
            logger.exception("recording of %s broke off", self._report.path)
            self._ended.set_exception(error)
            while self._queue.get() is not None:  # `stop` waits for a place
                pass
        else:
            if self._report.n_dropped:
                logger.warning("frames are missing in a video: %s", self._report)
            self._ended.set_result(self._report)

    def _encode(self) -> None:
        while (item := self._queue.get()) is not None:
            frame, time = item
            image: np.ndarray = (frame if self._transform is None else self._transform(dict(frame)))["color"]
            n_places = self._recorder.write_frame(image, frame_time=time)
            if n_places > 0:
                self._report.n_frames += 1
                self._report.n_repeated += n_places - 1
            elif self._report.n_frames > 0:  # the recording had begun
                self._report.n_dropped += 1
