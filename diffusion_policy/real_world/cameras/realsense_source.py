"""RealSense cameras, through librealsense."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_policy.real_world.cameras.frame_source import (
    CameraError,
    Frame,
    FrameTimeout,
    Intrinsics,
    check_in_range,
    example_frame,
)


def librealsense() -> Any:
    """The module `pyrealsense2`."""
    try:
        import pyrealsense2
    except ImportError as error:
        raise ImportError(
            "RealSense cameras need pyrealsense2, which is not installed: pip install 'diffusion_policy[real]'"
        ) from error
    return pyrealsense2


def connected_serials(playback_files: Sequence[str | Path] = ()) -> list[str]:
    """Serial numbers of the D400 cameras that are connected, and of those in recorded files."""
    _context, devices = _devices(playback_files)
    return sorted(devices)


def _devices(playback_files: Sequence[str | Path]) -> tuple[Any, dict[str, Any]]:
    rs = librealsense()
    context = rs.context()
    recorded = []
    for file in playback_files:
        if not Path(file).is_file():
            raise FileNotFoundError(f"There is no RealSense recording {file}.")
        recorded.append(context.load_device(str(file)))
    found = [*context.query_devices(), *recorded]
    d400 = [d for d in found if d.supports(rs.camera_info.product_line) and _info(d, "product_line") == "D400"]
    return context, {_info(device, "serial_number"): device for device in d400}


def _info(device: Any, name: str) -> str:
    return str(device.get_info(getattr(librealsense().camera_info, name)))


class RealSenseSource:
    """A D400 camera, or a recording of one (.db3) that librealsense plays.

    Args:
        serial_number: of the camera.
        resolution: width and height (px) of all streams.
        fps: of all streams (Hz).
        enable_color, enable_depth, enable_infrared: the streams; depth is aligned to color.
        advanced_mode_config: settings as RealSense Viewer saves them as JSON.
        playback_files: recordings to look for the camera in.
    """

    def __init__(
        self,
        serial_number: str,
        resolution: tuple[int, int] = (1280, 720),
        fps: float = 30,
        enable_color: bool = True,
        enable_depth: bool = False,
        enable_infrared: bool = False,
        advanced_mode_config: Mapping[str, Any] | None = None,
        playback_files: Sequence[str | Path] = (),
    ) -> None:
        if not (enable_color or enable_depth or enable_infrared):
            raise ValueError(f"Camera {serial_number} has no stream enabled: enable color, depth or infrared.")
        self.name = serial_number
        self.resolution = resolution
        self.fps = fps
        self._streams = {"color": enable_color, "depth": enable_depth, "infrared": enable_infrared}
        self._advanced_mode_config = advanced_mode_config
        self._playback_files = tuple(playback_files)
        self._pipeline: Any = None

    def example(self) -> Frame:
        """Zeros with the shapes and types of its frames."""
        return example_frame(self.resolution, **self._streams)

    def open(self) -> None:
        """Starts the streams.

        Raises:
            CameraError: it is not connected, is in use, or cannot deliver what is asked for.
        """
        rs = librealsense()
        self._context, devices = _devices(self._playback_files)
        if self.name not in devices:  # the pipeline would look for it for 15 s
            found = ", ".join(sorted(devices)) or "none"
            raise CameraError(f"RealSense camera {self.name} is not connected. Connected are: {found}.")
        config = rs.config()
        config.enable_device(self.name)
        formats = {"color": rs.format.bgr8, "depth": rs.format.z16, "infrared": rs.format.y8}
        for stream, is_enabled in self._streams.items():
            if is_enabled:
                config.enable_stream(getattr(rs.stream, stream), *self.resolution, formats[stream], int(self.fps))
        pipeline = rs.pipeline(self._context)
        try:
            self._profile = pipeline.start(config)
            self._pipeline = pipeline
            self._set_up()
        except RuntimeError as error:
            width, height = self.resolution
            streams = ", ".join(name for name, is_enabled in self._streams.items() if is_enabled)
            asked = f"{streams} of {width} x {height} px at {self.fps} Hz"
            raise CameraError(f"RealSense camera {self.name} does not start with {asked}: {error}") from error

    def _set_up(self) -> None:
        rs = librealsense()
        device = self._profile.get_device()
        self._align = rs.align(rs.stream.color) if self._streams["color"] and self._streams["depth"] else None
        global_time = rs.option.global_time_enabled  # times of frames are the computer's
        for sensor in device.query_sensors():
            if sensor.supports(global_time) and not sensor.is_option_read_only(global_time):
                sensor.set_option(global_time, 1)
        if self._advanced_mode_config is not None:
            try:
                rs.rs400_advanced_mode(device).load_json(json.dumps(dict(self._advanced_mode_config)))
            except RuntimeError as error:
                raise CameraError(f"RealSense camera {self.name} refuses advanced_mode_config: {error}") from error

    def read(self, timeout: float) -> Frame:
        """The next frame. Raises FrameTimeout after `timeout` s."""
        try:
            frames = self._pipeline.wait_for_frames(int(timeout * 1000))
        except RuntimeError as error:
            raise FrameTimeout(f"RealSense camera {self.name}: {error}") from error
        receive_time = time.time()
        if self._align is not None:
            frames = self._align.process(frames)
        frame: Frame = {
            "camera_capture_timestamp": frames.get_timestamp() / 1000,
            "camera_receive_timestamp": receive_time,
        }
        for stream, is_enabled in self._streams.items():
            if is_enabled:
                image = getattr(frames, f"get_{stream}_frame")()
                frame[stream] = np.array(image.get_data())  # a copy: librealsense has few buffers
                if stream == "color":
                    frame["camera_capture_timestamp"] = image.get_timestamp() / 1000
        return frame

    def set_option(self, option: str, value: float) -> None:
        """Sets an option of the color image, named as in `rs.option`."""
        key = getattr(librealsense().option, option, None)
        sensor = self._color_sensor()
        if key is None or not sensor.supports(key):
            raise CameraError(f"RealSense camera {self.name} has no option {option}.")
        if sensor.is_option_read_only(key):
            raise CameraError(f"RealSense camera {self.name}: {option} cannot be set now (it is read-only).")
        allowed = sensor.get_option_range(key)
        check_in_range(self.name, option, value, allowed.min, allowed.max, allowed.step)
        sensor.set_option(key, value)

    def _color_sensor(self) -> Any:
        sensors = self._profile.get_device().query_sensors()
        rs = librealsense()
        for sensor in sensors:
            if any(profile.stream_type() == rs.stream.color for profile in sensor.get_stream_profiles()):
                return sensor
        raise CameraError(f"RealSense camera {self.name} has no color sensor.")

    def intrinsics(self) -> Intrinsics:
        """Of the color image, or of the one that is enabled."""
        rs = librealsense()
        stream = next(name for name, is_enabled in self._streams.items() if is_enabled)
        model = self._profile.get_stream(getattr(rs.stream, stream)).as_video_stream_profile().get_intrinsics()
        scale = self._profile.get_device().first_depth_sensor().get_depth_scale() if self._streams["depth"] else 0.0
        return Intrinsics(model.fx, model.fy, model.ppx, model.ppy, scale)

    def close(self) -> None:
        """Ends the streams."""
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            pipeline.stop()
