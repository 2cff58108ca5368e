"""Several RealSense cameras."""

from collections.abc import Mapping, Sequence
from multiprocessing.managers import SharedMemoryManager
from pathlib import Path
from typing import Any

from diffusion_policy.common.video_recorder import VideoRecorder
from diffusion_policy.real_world.cameras.capture_loop import FrameTransform
from diffusion_policy.real_world.cameras.frame_source import CameraError
from diffusion_policy.real_world.cameras.multi_camera import MultiCamera
from diffusion_policy.real_world.cameras.per_camera import options_by_camera, repeat_to_list
from diffusion_policy.real_world.cameras.realsense_source import connected_serials
from diffusion_policy.real_world.single_realsense import SingleRealsense

__all__ = ["MultiRealsense", "SingleRealsense", "repeat_to_list"]


class MultiRealsense(MultiCamera):
    """D400 cameras, each in a process of its own.

    Args:
        serial_numbers: which, in this order; None for all that are connected.
        advanced_mode_config, transform, vis_transform, recording_transform, video_recorder: one, or one for each.

    The other arguments are those of `SingleRealsense`.

    Raises:
        CameraError: no camera is connected.
    """

    def __init__(
        self,
        serial_numbers: Sequence[str] | None = None,
        shm_manager: SharedMemoryManager | None = None,
        resolution: tuple[int, int] = (1280, 720),
        capture_fps: float = 30,
        put_fps: float | None = None,
        put_downsample: bool = True,
        record_fps: float | None = None,
        enable_color: bool = True,
        enable_depth: bool = False,
        enable_infrared: bool = False,
        get_max_k: int = 30,
        advanced_mode_config: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        transform: FrameTransform | Sequence[FrameTransform] | None = None,
        vis_transform: FrameTransform | Sequence[FrameTransform] | None = None,
        recording_transform: FrameTransform | Sequence[FrameTransform] | None = None,
        video_recorder: VideoRecorder | Sequence[VideoRecorder] | None = None,
        verbose: bool = False,
        playback_files: Sequence[str | Path] = (),
    ) -> None:
        serials = connected_serials(playback_files) if serial_numbers is None else list(serial_numbers)
        if not serials:
            raise CameraError(
                "No RealSense camera is connected: check cables (USB 3) and udev rules, see rs-enumerate-devices."
            )
        by_camera = options_by_camera(
            len(serials),
            advanced_mode_config=advanced_mode_config,
            transform=transform,
            vis_transform=vis_transform,
            recording_transform=recording_transform,
            video_recorder=video_recorder,
        )
        super().__init__(
            {
                serial: SingleRealsense(
                    shm_manager=shm_manager,
                    serial_number=serial,
                    resolution=resolution,
                    capture_fps=capture_fps,
                    put_fps=put_fps,
                    put_downsample=put_downsample,
                    record_fps=record_fps,
                    enable_color=enable_color,
                    enable_depth=enable_depth,
                    enable_infrared=enable_infrared,
                    get_max_k=get_max_k,
                    verbose=verbose,
                    playback_files=playback_files,
                    **options,
                )
                for serial, options in zip(serials, by_camera, strict=True)
            }
        )
