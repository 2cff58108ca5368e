"""A RealSense camera in a process of its own."""

from collections.abc import Mapping, Sequence
from multiprocessing.managers import SharedMemoryManager
from pathlib import Path
from typing import Any

from diffusion_policy.common.video_recorder import VideoRecorder
from diffusion_policy.real_world.cameras.camera_process import SingleCamera
from diffusion_policy.real_world.cameras.capture_loop import FrameTransform
from diffusion_policy.real_world.cameras.realsense_source import RealSenseSource, connected_serials


class SingleRealsense(SingleCamera):
    """Captures, transforms and records the streams of one D400 camera.

    Args:
        serial_number: of the camera.
        resolution: width and height (px) of all streams.
        capture_fps: of all streams (Hz).
        enable_color, enable_depth, enable_infrared: the streams; depth is aligned to color.
        advanced_mode_config: settings as RealSense Viewer saves them as JSON.
        playback_files: librealsense's recordings (.db3), to look for the camera in.

    The other arguments are those of `SingleCamera`.
    """

    def __init__(
        self,
        shm_manager: SharedMemoryManager | None,
        serial_number: str,
        resolution: tuple[int, int] = (1280, 720),
        capture_fps: float = 30,
        put_fps: float | None = None,
        put_downsample: bool = True,
        record_fps: float | None = None,
        enable_color: bool = True,
        enable_depth: bool = False,
        enable_infrared: bool = False,
        get_max_k: int = 30,
        advanced_mode_config: Mapping[str, Any] | None = None,
        transform: FrameTransform | None = None,
        vis_transform: FrameTransform | None = None,
        recording_transform: FrameTransform | None = None,
        video_recorder: VideoRecorder | None = None,
        verbose: bool = False,
        playback_files: Sequence[str | Path] = (),
    ) -> None:
        source = RealSenseSource(
            serial_number,
            resolution,
            capture_fps,
            enable_color,
            enable_depth,
            enable_infrared,
            advanced_mode_config,
            playback_files,
        )
        super().__init__(
            shm_manager,
            source,
            put_fps,
            put_downsample,
            record_fps,
            get_max_k,
            transform,
            vis_transform,
            recording_transform,
            video_recorder,
            verbose,
        )

    @staticmethod
    def get_connected_devices_serial() -> list[str]:
        """Serial numbers of the D400 cameras that are connected, sorted."""
        return connected_serials()
