"""The cameras and the arm as an environment wants them."""

import math
from collections.abc import Sequence

import numpy as np

from diffusion_policy.common.cv2_util import get_image_transform, optimal_row_cols
from diffusion_policy.real_world.cameras.capture_loop import FrameTransform
from diffusion_policy.real_world.cameras.frame_source import CameraError, Frame, FrameSource
from diffusion_policy.real_world.cameras.multi_camera import MultiCamera
from diffusion_policy.real_world.motion_limits import MotionLimits
from diffusion_policy.real_world.multi_camera_visualizer import MultiCameraVisualizer
from diffusion_policy.real_world.rtde_interpolation_controller import RTDEInterpolationController
from diffusion_policy.real_world.video_recorder import VideoRecorder

Size = tuple[int, int]  # width, height (px)

ROBOT_HZ = 125
HISTORY = 2.0  # s of the arm's states that are kept: a program that is busy for so long loses none
INIT_JOINTS = np.deg2rad([0, -90, -90, -90, 90, 0])
CORNER = math.sqrt(3)  # speeds are given along an axis; along all three of them the arm may go so much faster


def make_cameras(
    sources: Sequence[FrameSource],
    observed_size: Size,
    frequency: float,
    n_frames: int,
    as_floats: bool,
    record_raw_video: bool,
    threads_per_video: int,
    crf: int,
    view_size: Size | None,
) -> tuple[MultiCamera, MultiCameraVisualizer | None]:
    """Cameras, and a window that shows them all.

    Args:
        observed_size: of the images that `get` gives, RGB, scaled to cover it, of which the middle is taken.
        frequency: of videos (Hz) unless they are raw.
        n_frames: that are kept for `get`.
        as_floats: `get` gives float32 in [0, 1].
        record_raw_video: videos are of what cameras see, else of what `get` gives.
        threads_per_video, crf: of the encoder.
        view_size: of the window, at most; None for no window.

    Raises:
        CameraError: there is no camera, or they are of different sizes or rates.
    """
    if not sources:
        raise CameraError("no camera was found: connect one, or choose another kind of camera")
    kinds = {(source.resolution, source.fps) for source in sources}
    if len(kinds) > 1:
        raise CameraError(f"expected cameras of one resolution and rate, got {sorted(kinds)}")
    ((size, fps),) = kinds
    observed = _color_transform(size, observed_size, as_floats)
    view_columns, view_rows, view_transform = 1, 1, None
    if view_size is not None:
        ratio = observed_size[0] / observed_size[1]
        width, height, view_columns, view_rows = optimal_row_cols(len(sources), ratio, view_size)
        view_transform = _color_transform(size, (width, height), as_floats=False, bgr_to_rgb=False)
    cameras = MultiCamera.of_sources(
        sources,
        put_fps=fps,
        put_downsample=False,
        get_max_k=n_frames,
        transform=observed,
        vis_transform=view_transform,
        recording_transform=None if record_raw_video else _color_transform(size, observed_size, as_floats=False),
        video_recorder=[
            VideoRecorder.create_h264(
                fps=fps if record_raw_video else frequency,
                input_pix_fmt="bgr24" if record_raw_video else "rgb24",
                crf=crf,
                thread_type="FRAME",
                thread_count=threads_per_video,
            )
            for _ in sources
        ],
    )
    if view_size is None:
        return cameras, None
    return cameras, MultiCameraVisualizer(cameras, view_rows, view_columns, rgb_to_bgr=False)


def make_ur_robot(
    address: str,
    max_pos_speed: float,
    max_rot_speed: float,
    tcp_offset: float,
    init_joints: bool,
    n_states: int,
    limits: MotionLimits | None,
    patience: float,
) -> RTDEInterpolationController:
    """A UR arm; arguments as of `RealEnv`, of which at least `n_states` states are kept."""
    return RTDEInterpolationController(
        shm_manager=None,
        robot_ip=address,
        frequency=ROBOT_HZ,
        lookahead_time=0.1,
        gain=300,
        max_pos_speed=max_pos_speed * CORNER,
        max_rot_speed=max_rot_speed * CORNER,
        launch_timeout=3,
        tcp_offset_pose=[0, 0, tcp_offset, 0, 0, 0],
        joints_init=INIT_JOINTS.tolist() if init_joints else None,
        joints_init_speed=1.05,
        get_max_k=max(n_states, round(HISTORY * ROBOT_HZ)),
        motion_limits=limits,
        watchdog_frequency=1 / patience,
        max_silence=patience,
    )


def _color_transform(size: Size, wanted: Size, as_floats: bool, bgr_to_rgb: bool = True) -> FrameTransform:
    scale = get_image_transform(input_res=size, output_res=wanted, bgr_to_rgb=bgr_to_rgb)

    def transform(frame: Frame) -> Frame:
        image = scale(frame["color"])
        return {**frame, "color": image.astype(np.float32) / 255 if as_floats else image}

    return transform
