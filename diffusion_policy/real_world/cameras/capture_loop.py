"""The work of a camera's process: frames from the source to the rings and the recording."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from diffusion_policy.common.timestamp_accumulator import get_accumulate_timestamp_idxs
from diffusion_policy.common.video_recorder import VideoRecorder
from diffusion_policy.real_world.cameras.arrival_clock import ArrivalClock
from diffusion_policy.real_world.cameras.frame_source import Frame, FrameSource, FrameTimeout
from diffusion_policy.real_world.cameras.recording_thread import RecordingReport, RecordingThread
from diffusion_policy.shared_memory.shared_memory_ring_buffer import SharedMemoryRingBuffer

logger = logging.getLogger(__name__)

FrameTransform = Callable[[Frame], Frame]
READ_TIMEOUT = 0.1  # s: how long a call may have to wait while no frame comes


class PutGrid:
    """Which steps of a grid of times a frame stands for.

    Args:
        fps: of the grid (Hz).
        start_time: of step 0 (s).
        downsample: every step gets its frame, the first that is not before it; else every frame is put once, at the
            step it is in.
    """

    def __init__(self, fps: float, start_time: float, downsample: bool) -> None:
        self.fps = fps
        self.start_time = start_time
        self.downsample = downsample
        self._next_step: int | None = None

    def steps(self, receive_time: float) -> list[int]:
        """Steps of a frame received at that time (s)."""
        if not self.downsample:
            return [int((receive_time - self.start_time) * self.fps)]
        _, steps, self._next_step = get_accumulate_timestamp_idxs(
            [receive_time], self.start_time, 1 / self.fps, next_global_idx=self._next_step, allow_negative=True
        )
        return steps


class CaptureLoop:
    """Reads `source` until told to stop, and does what it is asked between two frames.

    Args:
        transform, vis_transform, recording_transform: of what is put into `ring`, into `vis_ring`, and recorded.
    """

    def __init__(
        self,
        source: FrameSource,
        grid: PutGrid,
        ring: SharedMemoryRingBuffer,
        vis_ring: SharedMemoryRingBuffer,
        recorder: VideoRecorder,
        transform: FrameTransform | None,
        vis_transform: FrameTransform | None,
        recording_transform: FrameTransform | None,
    ) -> None:
        self._source = source
        self._grid = grid
        self._ring = ring
        self._vis_ring = vis_ring
        self._recorder = recorder
        self._transform = transform
        self._vis_transform = vis_transform
        self._recording_transform = recording_transform
        self._clock = ArrivalClock()
        self._recording: RecordingThread | None = None
        self._stopping = False

    @property
    def handlers(self) -> dict[str, Callable[..., object]]:
        """What can be asked of the loop, by name."""
        return {
            "set_option": self._source.set_option,
            "intrinsics": self._source.intrinsics,
            "start_recording": self._start_recording,
            "stop_recording": self._stop_recording,
            "restart_put": self._restart_put,
            "stop": self._stop,
        }

    def run(self, answer_calls: Callable[[], None], frame_came: Callable[[float], None]) -> None:
        """Calls `answer_calls` between frames, and `frame_came` with the monotonic time (s) of each."""
        while True:
            answer_calls()
            if self._stopping:
                break
            try:
                frame = self._source.read(READ_TIMEOUT)
            except FrameTimeout:
                continue
            self._put(frame)
            frame_came(time.monotonic())
        if self._recording is not None:
            self._recording.stop().result()

    def _put(self, frame: Frame) -> None:
        receive_time, arrival_time = frame["camera_receive_timestamp"], self._clock.time_of(frame)
        steps = self._grid.steps(receive_time)
        try:
            if steps:
                item = _transformed(frame, self._transform)
                for step in steps[-self._ring.get_max_k :]:
                    self._ring.put({**item, "step_idx": step, "timestamp": receive_time}, wait=False)
            vis = _transformed(frame, self._vis_transform)
            self._vis_ring.put({**vis, "step_idx": steps[-1] if steps else -1, "timestamp": receive_time}, wait=False)
        except TimeoutError as error:  # a burst of late frames; the next ones are put
            logger.info("camera %s: a frame was not put: %s", self._source.name, error)
        if self._recording is not None:
            self._recording.write(frame, arrival_time)

    def _start_recording(self, path: str, start_time: float | None) -> None:
        if self._recording is not None:
            raise RuntimeError(f"Camera {self._source.name} is recording already: stop that recording first.")
        self._recording = RecordingThread(self._recorder, Path(path), start_time, self._recording_transform)

    def _stop_recording(self) -> "Future[RecordingReport] | None":
        recording, self._recording = self._recording, None
        return None if recording is None else recording.stop()

    def _restart_put(self, start_time: float) -> None:
        self._grid = PutGrid(self._grid.fps, start_time, self._grid.downsample)

    def _stop(self) -> None:
        self._stopping = True


def _transformed(frame: Frame, transform: FrameTransform | None) -> Frame:
    return frame if transform is None else transform(dict(frame))
