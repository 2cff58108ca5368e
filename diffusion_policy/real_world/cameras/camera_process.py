"""A camera in a process of its own."""

import logging
import multiprocessing as mp
import time
from multiprocessing.managers import SharedMemoryManager
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from diffusion_policy.common.video_recorder import VideoRecorder as BaseVideoRecorder
from diffusion_policy.real_world import child_process
from diffusion_policy.real_world.cameras.camera_controls import CALL_TIMEOUT, CameraControls
from diffusion_policy.real_world.cameras.capture_loop import CaptureLoop, FrameTransform, PutGrid
from diffusion_policy.real_world.cameras.frame_source import CameraError, FrameSource
from diffusion_policy.real_world.device_status import DeviceStatus
from diffusion_policy.real_world.process_calls import ProcessCalls
from diffusion_policy.real_world.real_time import run_in_real_time
from diffusion_policy.real_world.start_stop import StartStop
from diffusion_policy.real_world.video_recorder import VideoRecorder
from diffusion_policy.shared_memory.shared_memory_ring_buffer import SharedMemoryRingBuffer

logger = logging.getLogger(__name__)

START_TIMEOUT = 30.0  # s
STOP_TIMEOUT = 5.0  # s
LOG_INTERVAL = 5  # s
PRIORITY = 10  # in real time, where that is allowed; less than the arm's
SILENCE = 0.8  # s without a frame, and at least 5 frames' time, are a fault
GET_TIME_BUDGET = 0.2  # s
GET_ATTEMPTS = 3
BURST = 2  # times the camera's rate, when it delivers what it could not when it was due


class SingleCamera(CameraControls, StartStop, mp.Process):
    """Captures, transforms, records; this end reads the frames and tells it what to do.

    Args:
        shm_manager: not needed; may be None.
        source: the camera.
        put_fps: how many frames a second `get` sees (Hz); None for the camera's.
        put_downsample: put frames on a grid of `put_fps` from `put_start_time` on; else every frame is put.
        record_fps: of videos (Hz); None for the camera's.
        get_max_k: most frames that `get` returns at once.
        transform: of what `get` returns, a function of a frame (see `frame_source`); None for none.
        vis_transform: of what `get_vis` returns.
        recording_transform: of what is recorded; its `color` is.
        video_recorder: None for H.264 that looks lossless.
        verbose: log how many frames come.
    """

    def __init__(
        self,
        shm_manager: SharedMemoryManager | None,
        source: FrameSource,
        put_fps: float | None = None,
        put_downsample: bool = True,
        record_fps: float | None = None,
        get_max_k: int = 30,
        transform: FrameTransform | None = None,
        vis_transform: FrameTransform | None = None,
        recording_transform: FrameTransform | None = None,
        video_recorder: BaseVideoRecorder | None = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(name=f"camera {source.name}", daemon=True)
        put_fps = source.fps if put_fps is None else put_fps
        if video_recorder is None:
            record_fps = source.fps if record_fps is None else record_fps
            video_recorder = VideoRecorder.create_h264(fps=record_fps, input_pix_fmt="bgr24", crf=18, thread_count=1)
        self.source = source
        self.put_start_time: float | None = None
        self._put_fps, self._put_downsample = put_fps, put_downsample
        self._video_recorder = video_recorder
        self._transforms = transform, vis_transform, recording_transform
        self._verbose, self._n_frames, self._log_time = verbose, 0, time.monotonic()
        self.ring_buffer = self._ring(shm_manager, transform, get_max_k, put_fps)
        self.vis_ring_buffer = self._ring(shm_manager, vis_transform, 1, source.fps)
        self._calls = ProcessCalls()
        self._status = DeviceStatus()

    def _ring(
        self, shm_manager: SharedMemoryManager | None, transform: FrameTransform | None, max_k: int, fps: float
    ) -> SharedMemoryRingBuffer:
        example = self.source.example()
        item = {**(example if transform is None else transform(example)), "step_idx": 0, "timestamp": 0.0}
        return SharedMemoryRingBuffer.create_from_examples(
            shm_manager, item, max_k, GET_TIME_BUDGET, BURST * fps, get_attempts=GET_ATTEMPTS
        )

    # ---- starting and stopping

    @property
    def is_ready(self) -> bool:
        """Whether frames have come."""
        return self._status.age() < np.inf

    def start(self, wait: bool = True, put_start_time: float | None = None) -> None:
        """Starts the camera; `put_start_time` (s) is that of step 0 of the grid, None for now."""
        self.put_start_time = put_start_time
        with child_process.without_opencv_threads():
            super().start()
        if wait:
            self.start_wait()

    def start_wait(self) -> None:
        """Waits for the first frame.

        Raises:
            CameraError: it could not start, or no frame came for 30 s.
        """
        end = time.monotonic() + START_TIMEOUT
        while not self.is_ready:
            if not self.is_alive():
                raise self.fault or CameraError(f"Camera {self.source.name} has ended.")
            if time.monotonic() > end:
                self.stop()
                raise CameraError(f"Camera {self.source.name} has not delivered a frame for {START_TIMEOUT:.0f} s.")
            time.sleep(0.01)

    def stop(self, wait: bool = True) -> None:
        """Ends capture, and a recording, which is completed."""
        if self.pid is not None:
            self._calls.post("stop")
            if wait:
                self.end_wait()

    def end_wait(self) -> None:
        """Waits for the process to end; kills it if it does not."""
        child_process.end(self, STOP_TIMEOUT)

    # ---- frames

    @property
    def fault(self) -> CameraError | None:
        """What is wrong with the camera or its process, known within 1 s: returned, not raised."""
        problem = self._status.problem(self, max(SILENCE, 5 / self.source.fps))
        return None if problem is None else CameraError(f"Camera {self.source.name} {problem}")

    def get(self, k: int | None = None, out: dict[str, NDArray[Any]] | None = None) -> dict[str, NDArray[Any]]:
        """The latest frame, or the last `k`, oldest first, as arrays `(k, ...)`.

        Beside what `transform` gives: `step_idx` on the grid, and `timestamp`, when the frame was received (s).

        Raises:
            CameraError: there is a fault.
        """
        if (fault := self.fault) is not None:
            raise fault
        ring = self.ring_buffer
        return ring.get(out) if k is None else ring.get_last_k(k, out)

    def get_vis(self, out: dict[str, NDArray[Any]] | None = None) -> dict[str, NDArray[Any]]:
        """The latest frame for viewing, by whatever process, be there a fault or not."""
        return self.vis_ring_buffer.get(out)

    def _call(self, name: str, *args: object, timeout: float = CALL_TIMEOUT) -> Any:
        if self.pid is None:  # done as soon as the camera is open
            return self._calls.post(name, *args)
        try:
            return self._calls.call(self, timeout, name, *args)
        except (ConnectionError, TimeoutError) as error:
            raise CameraError(f"Camera {self.source.name}: {error}") from error

    # ---- in the camera's process

    def run(self) -> None:
        """The process's work."""
        child_process.attach_to_parent()
        run_in_real_time(PRIORITY)
        cv2.setNumThreads(1)
        start_time = time.time() if self.put_start_time is None else self.put_start_time
        grid = PutGrid(self._put_fps, start_time, self._put_downsample)
        loop = CaptureLoop(
            self.source, grid, self.ring_buffer, self.vis_ring_buffer, self._video_recorder, *self._transforms
        )
        try:
            self.source.open()
            loop.run(lambda: self._calls.answer(loop.handlers), self._frame_came)
        except Exception as error:
            logger.exception("camera %s ended", self.source.name)
            self._status.fail(str(error))
            raise SystemExit(1) from error
        finally:
            self.source.close()

    def _frame_came(self, monotonic_time: float) -> None:
        self._status.beat(monotonic_time)
        self._n_frames += 1
        if self._verbose and self._n_frames % round(LOG_INTERVAL * self.source.fps) == 0:
            rate = LOG_INTERVAL * self.source.fps / (monotonic_time - self._log_time)
            logger.info("camera %s delivers %.1f frames a second", self.source.name, rate)
            self._log_time = monotonic_time
