"""The cameras of a robot, together."""

import numbers
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.managers import SharedMemoryManager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.common.video_recorder import VideoRecorder
from diffusion_policy.real_world.cameras.camera_process import SingleCamera
from diffusion_policy.real_world.cameras.capture_loop import FrameTransform
from diffusion_policy.real_world.cameras.frame_source import CameraError, FrameSource
from diffusion_policy.real_world.cameras.per_camera import options_by_camera, repeat_to_list
from diffusion_policy.real_world.cameras.recording_thread import RecordingReport
from diffusion_policy.real_world.start_stop import StartStop

T = TypeVar("T")


class MultiCamera(StartStop):
    """Several cameras, each in a process of its own. What is given by camera comes as a list or by index.

    Args:
        cameras: by name.
    """

    def __init__(self, cameras: Mapping[str, SingleCamera]) -> None:
        if not cameras:
            raise ValueError("There is no camera.")
        self.cameras = dict(cameras)

    @classmethod
    def of_sources(
        cls,
        sources: Sequence[FrameSource],
        shm_manager: SharedMemoryManager | None = None,
        put_fps: float | None = None,
        put_downsample: bool = True,
        record_fps: float | None = None,
        get_max_k: int = 30,
        transform: FrameTransform | Sequence[FrameTransform] | None = None,
        vis_transform: FrameTransform | Sequence[FrameTransform] | None = None,
        recording_transform: FrameTransform | Sequence[FrameTransform] | None = None,
        video_recorder: VideoRecorder | Sequence[VideoRecorder] | None = None,
        verbose: bool = False,
    ) -> "MultiCamera":
        """Cameras of any kind, in the order of `sources`. The other arguments are those of `SingleCamera`."""
        by_camera = options_by_camera(
            len(sources),
            transform=transform,
            vis_transform=vis_transform,
            recording_transform=recording_transform,
            video_recorder=video_recorder,
        )
        return MultiCamera(
            {
                source.name: SingleCamera(
                    shm_manager,
                    source,
                    put_fps=put_fps,
                    put_downsample=put_downsample,
                    record_fps=record_fps,
                    get_max_k=get_max_k,
                    verbose=verbose,
                    **options,
                )
                for source, options in zip(sources, by_camera, strict=True)
            }
        )

    @property
    def n_cameras(self) -> int:
        return len(self.cameras)

    # ---- starting and stopping

    @property
    def is_ready(self) -> bool:
        """Whether frames have come from all cameras."""
        return all(camera.is_ready for camera in self.cameras.values())

    def start(self, wait: bool = True, put_start_time: float | None = None) -> None:
        """Starts all cameras, as `SingleCamera.start` does."""
        put_start_time = time.time() if put_start_time is None else put_start_time
        for camera in self.cameras.values():
            camera.start(wait=False, put_start_time=put_start_time)
        if wait:
            self.start_wait()

    def start_wait(self) -> None:
        """Waits for the first frame of each; stops all and raises CameraError if one does not start."""
        try:
            for camera in self.cameras.values():
                camera.start_wait()
        except Exception:
            self.stop()
            raise

    def stop(self, wait: bool = True) -> None:
        """Stops all cameras."""
        for camera in self.cameras.values():
            camera.stop(wait=False)
        if wait:
            self.stop_wait()

    def stop_wait(self) -> None:
        """Waits for all to end."""
        for camera in self.cameras.values():
            camera.end_wait()

    # ---- frames

    @property
    def fault(self) -> CameraError | None:
        """What is wrong with the first camera that has a fault: returned, not raised."""
        return next((fault for camera in self.cameras.values() if (fault := camera.fault) is not None), None)

    def get(
        self, k: int | None = None, out: dict[int, dict[str, NDArray[Any]]] | None = None
    ) -> dict[int, dict[str, NDArray[Any]]]:
        """The latest frame, or the last `k`, of each camera by index, as `SingleCamera.get` returns them."""
        out = {} if out is None else out
        for index, camera in enumerate(self.cameras.values()):
            out[index] = camera.get(k, out.get(index))
        return out

    def get_vis(self, out: dict[str, NDArray[Any]] | None = None) -> dict[str, NDArray[Any]]:
        """The latest frames for viewing, as arrays `(n_cameras, ...)`."""
        cameras = list(self.cameras.values())
        if out is None:
            frames = [camera.get_vis() for camera in cameras]
            return {key: np.stack([frame[key] for frame in frames]) for key in frames[0]}
        for index, camera in enumerate(cameras):
            camera.get_vis({key: array[index] for key, array in out.items()})
        return out

    # ---- what the cameras do

    def _each(self, action: Callable[..., T], *values: Sequence[Any]) -> list[T]:
        """`action(camera, *its values)` of all cameras at once; the first error is raised after all have ended."""
        with ThreadPoolExecutor(self.n_cameras) as pool:
            return list(pool.map(action, self.cameras.values(), *values))

    def set_color_option(self, option: Any, value: float | Sequence[float]) -> None:
        """As `SingleCamera.set_color_option`; one value, or one for each camera."""
        values = repeat_to_list(value, self.n_cameras, numbers.Number)
        self._each(lambda camera, value: camera.set_color_option(option, value), values)

    def set_exposure(
        self, exposure: float | Sequence[float] | None = None, gain: float | Sequence[float] | None = None
    ) -> None:
        """As `SingleCamera.set_exposure`; one value, or one for each camera."""
        exposures, gains = (repeat_to_list(x, self.n_cameras, numbers.Number) for x in (exposure, gain))
        self._each(SingleCamera.set_exposure, exposures, gains)

    def set_white_balance(self, white_balance: float | Sequence[float] | None = None) -> None:
        """As `SingleCamera.set_white_balance`; one value, or one for each camera."""
        self._each(SingleCamera.set_white_balance, repeat_to_list(white_balance, self.n_cameras, numbers.Number))

    def get_intrinsics(self) -> NDArray[np.float64]:
        """Camera matrices (n_cameras, 3, 3) of the color images."""
        return np.stack(self._each(SingleCamera.get_intrinsics))

    def get_depth_scale(self) -> NDArray[np.float64]:
        """Metres a unit of depth, of each camera (n_cameras,)."""
        return np.array(self._each(SingleCamera.get_depth_scale))

    def start_recording(self, video_path: str | Path | Sequence[str | Path], start_time: float) -> None:
        """Records the camera of index `i` to `video_path/i.mp4`, or to the `i`-th of a list of paths.

        All videos begin with the frame of `start_time` (s).
        """
        if isinstance(video_path, str | Path):
            Path(video_path).mkdir(parents=True, exist_ok=True)
            video_path = [Path(video_path) / f"{index}.mp4" for index in range(self.n_cameras)]
        paths = repeat_to_list(video_path, self.n_cameras, ())
        self._each(lambda camera, path: camera.start_recording(path, start_time), paths)

    def stop_recording(self) -> list[RecordingReport | None]:
        """Completes the videos, as `SingleCamera.stop_recording` does."""
        return self._each(SingleCamera.stop_recording)

    def restart_put(self, start_time: float) -> None:
        """Makes `start_time` (s) step 0 of all grids."""
        self._each(lambda camera: camera.restart_put(start_time))
