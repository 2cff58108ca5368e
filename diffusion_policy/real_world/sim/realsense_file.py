"""Recordings in librealsense's own format, made without a camera; its playback delivers them as a camera would."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_policy.real_world.cameras.frame_source import Frame, Intrinsics
from diffusion_policy.real_world.cameras.realsense_source import librealsense

DEPTH_UNIT = 0.001  # m
_EXPOSURE = 120  # 0.1 ms, told with every frame


def write_realsense_file(
    path: str | Path, serial_number: str, frames: Iterable[Frame], intrinsics: Intrinsics, fps: int = 30
) -> None:
    """Records `frames` as camera `serial_number`; it takes as long as they last.

    Args:
        path: of the file, which must end in .db3.
        frames: with `color`, `depth` or `infrared`, all of one size; their `camera_capture_timestamp` (s) is kept.
        intrinsics: of all streams.
    """
    path = Path(path)
    if path.suffix != ".db3":
        raise ValueError(f"librealsense records to files named *.db3, got {path}.")
    frames = iter(frames)
    first = next(frames)
    with _Recording(path, serial_number, first, intrinsics, fps) as recording:
        start = time.monotonic()
        recording.write(first, 0)
        for number, frame in enumerate(frames, start=1):
            time.sleep(max(start + number / fps - time.monotonic(), 0))  # the times of playback are those of writing
            recording.write(frame, number)


class _Recording:
    def __init__(self, path: Path, serial_number: str, example: Frame, intrinsics: Intrinsics, fps: int) -> None:
        rs = librealsense()
        formats = {"color": rs.format.bgr8, "depth": rs.format.z16, "infrared": rs.format.y8}
        device = rs.software_device()
        for key, value in {
            "name": "Intel RealSense D415 (simulated)",
            "serial_number": serial_number,
            "firmware_version": "05.12.07.100",
            "product_id": "0AD3",
            "product_line": "D400",
            "usb_type_descriptor": "3.2",
        }.items():
            device.register_info(getattr(rs.camera_info, key), value)
        color, stereo = device.add_sensor("RGB Camera"), device.add_sensor("Stereo Module")
        color.add_read_only_option(rs.option.exposure, _EXPOSURE)
        stereo.add_read_only_option(rs.option.depth_units, DEPTH_UNIT)
        self._streams: dict[str, tuple[Any, Any]] = {}
        for uid, (name, image_format) in enumerate(formats.items()):
            if name in example:
                sensor = color if name == "color" else stereo
                self._streams[name] = (
                    sensor,
                    sensor.add_video_stream(
                        _stream(uid, getattr(rs.stream, name), image_format, example[name], intrinsics, fps)
                    ),
                )
        profiles = [profile for _, profile in self._streams.values()]
        same_place = rs.extrinsics()
        same_place.rotation, same_place.translation = [1, 0, 0, 0, 1, 0, 0, 0, 1], [0, 0, 0]
        for one in profiles:
            for other in profiles:
                one.register_extrinsics_to(other, same_place)
        self._device = device  # which `recorder` does not keep
        self._recorder = rs.recorder(str(path), device)
        self._sensors = [sensor for sensor in self._recorder.query_sensors() if sensor.get_stream_profiles()]

    def __enter__(self) -> "_Recording":
        for sensor in self._sensors:
            sensor.open(sensor.get_stream_profiles())
            sensor.start(lambda frame: None)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for sensor in self._sensors:
            sensor.stop()
            sensor.close()
        del self._sensors, self._recorder  # this is what completes the file

    def write(self, frame: Frame, number: int) -> None:
        rs = librealsense()
        milliseconds = frame["camera_capture_timestamp"] * 1000
        for name, (sensor, profile) in self._streams.items():
            image = np.ascontiguousarray(frame[name])
            for key, value in {
                "frame_counter": number + 1,
                "sensor_timestamp": milliseconds * 1000,
                "backend_timestamp": milliseconds,
                "time_of_arrival": milliseconds,
                "actual_exposure": _EXPOSURE,
            }.items():
                sensor.set_metadata(getattr(rs.frame_metadata_value, key), int(value))
            video_frame = rs.software_video_frame()
            video_frame.pixels = image.tobytes()
            video_frame.bpp = image.nbytes // (image.shape[0] * image.shape[1])
            video_frame.stride = image.shape[1] * video_frame.bpp
            video_frame.timestamp = milliseconds
            video_frame.domain = rs.timestamp_domain.system_time
            video_frame.frame_number = number + 1
            video_frame.depth_units = DEPTH_UNIT
            video_frame.profile = profile.as_video_stream_profile()
            sensor.on_video_frame(video_frame)


def _stream(uid: int, kind: Any, image_format: Any, image: np.ndarray, model: Intrinsics, fps: int) -> Any:
    rs = librealsense()
    intrinsics = rs.intrinsics()
    intrinsics.height, intrinsics.width = image.shape[:2]
    intrinsics.fx, intrinsics.fy, intrinsics.ppx, intrinsics.ppy = model.fx, model.fy, model.cx, model.cy
    intrinsics.model, intrinsics.coeffs = rs.distortion.none, [0.0] * 5
    stream = rs.video_stream()
    stream.type, stream.fmt, stream.uid, stream.index, stream.fps = kind, image_format, uid, 0, fps
    stream.width, stream.height = intrinsics.width, intrinsics.height
    stream.bpp = image.nbytes // (stream.width * stream.height)
    stream.intrinsics = intrinsics
    return stream
