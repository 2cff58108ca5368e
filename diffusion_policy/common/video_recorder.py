"""Writes frames to a video file."""

from fractions import Fraction
from math import floor, isfinite
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_policy.common.pyav import av

GRID_TOLERANCE = 1e-5  # of a frame: a time this little before a grid point counts as on it


class VideoRecorder:
    """Records one video at a time; reusable. The file takes its name when it is complete, at `stop`.

    Args:
        fps: frames per second (Hz).
        codec: name of an FFmpeg encoder.
        input_pix_fmt: FFmpeg pixel format of the images given to `write_frame`.
        **kwargs: attributes of the PyAV stream, such as `pix_fmt`, `options`, `bit_rate`, `thread_count`.
    """

    def __init__(self, fps: float, codec: str, input_pix_fmt: str, **kwargs: Any) -> None:
        if not fps > 0:
            raise ValueError(f"fps is {fps}, expected a positive number.")
        self.fps = fps
        self.codec = codec
        self.input_pix_fmt = input_pix_fmt
        self.kwargs = kwargs
        self._video: VideoFile | None = None

    @classmethod
    def create_h264(
        cls,
        fps: float,
        codec: str = "h264",
        input_pix_fmt: str = "rgb24",
        output_pix_fmt: str = "yuv420p",
        crf: int = 18,
        profile: str = "high",
        **kwargs: Any,
    ) -> "VideoRecorder":
        """H.264 that browsers play. `crf`: 0 (lossless) to 51; 18 looks lossless."""
        options = {"crf": str(crf), "profile": profile}
        return cls(fps, codec, input_pix_fmt, pix_fmt=output_pix_fmt, options=options, **kwargs)

    def is_ready(self) -> bool:
        """True between `start` and `stop`."""
        return self._video is not None

    def start(self, file_path: str | Path, start_time: float | None = None) -> None:
        """Begins a video, completing the one before.

        With `start_time` (s), frames are placed by their `frame_time`: the video keeps time even where frames
        come late or are lost.
        """
        self.stop()
        self._video = self._create_file(Path(file_path), start_time)

    def write_frame(self, img: np.ndarray, frame_time: float | None = None) -> int:
        """Appends an image, `(H, W, 3)` uint8 for the RGB formats, H and W even for yuv420p.

        If recording began with a `start_time`, the image fills the grid of `1 / fps` s up to `frame_time`
        (s): it is repeated after a gap, and dropped where the grid is full.

        Returns:
            How many places of the video it took.
        """
        video = self._video
        if video is None:
            raise RuntimeError("write_frame before start: call start(file_path) first.")
        n_repeats = 1 if video.start_time is None else self._places_to_fill(video, frame_time)
        if n_repeats == 0:
            return 0
        if video.stream is None:
            self._add_stream(video, *img.shape[:2])
        video.write(self._to_frame(img), n_repeats)
        return n_repeats

    def stop(self) -> None:
        """Completes the file; without any frame there will be none."""
        video, self._video = self._video, None
        if video is not None:
            video.finish()

    def abort(self) -> None:
        """Drops the video that is being recorded."""
        video, self._video = self._video, None
        if video is not None:
            video.drop()

    def _create_file(self, path: Path, start_time: float | None) -> "VideoFile":
        return PartialVideoFile(path, start_time)

    def _to_frame(self, img: np.ndarray) -> av.VideoFrame:
        return av.VideoFrame.from_ndarray(img, format=self.input_pix_fmt)

    def _places_to_fill(self, video: "VideoFile", frame_time: float | None) -> int:
        if frame_time is None or not isfinite(frame_time):
            raise ValueError(f"frame_time is {frame_time}: a recording with a start_time needs the time of each frame.")
        place = floor((frame_time - video.start_time) * self.fps + GRID_TOLERANCE)
        return max(place + 1 - video.n_frames, 0)

    def _add_stream(self, video: "VideoFile", height: int, width: int) -> None:
        if self.kwargs.get("pix_fmt") == "yuv420p" and (height % 2 or width % 2):
            raise ValueError(f"Frame is {height} x {width} px, but yuv420p needs even sizes: resize or crop it.")
        rate = Fraction(self.fps).limit_denominator(65535)
        video.stream = video.container.add_stream(self.codec, rate=rate, width=width, height=height, **self.kwargs)


class VideoFile:
    """A video being written, and what its container's format is told by `options`."""

    def __init__(self, path: Path, start_time: float | None, options: dict[str, str]) -> None:
        if not path.parent.is_dir():
            raise FileNotFoundError(f"There is no folder {path.parent} to record {path.name} in.")
        self.path = path
        self.container = av.open(str(path), mode="w", options=options if path.suffix == ".mp4" else {})
        self.stream: Any = None
        self.start_time: Any = start_time
        self.n_frames = 0

    def write(self, frame: av.VideoFrame, n_repeats: int) -> None:
        """Appends `frame` as often as asked."""
        size = (self.stream.height, self.stream.width)
        if (frame.height, frame.width) != size:
            given = (frame.height, frame.width)
            raise ValueError(f"Frame is {given} px (height, width), but {self.path} began with {size}.")
        for _ in range(n_repeats):
            frame.pts = self.n_frames
            frame.time_base = 1 / self.stream.codec_context.framerate
            self.container.mux(self.stream.encode(frame))
            self.n_frames += 1

    def finish(self) -> None:
        """Writes what the encoder still holds and closes the file, or removes it if it has no frame."""
        if self.n_frames == 0:
            self.drop()
            return
        try:
            self.container.mux(self.stream.encode())
        finally:
            self.container.close()

    def drop(self) -> None:
        """Removes the file."""
        self.container.close()
        self.path.unlink(missing_ok=True)


class PartialVideoFile(VideoFile):
    """A video written under a temporary name beside its own."""

    def __init__(self, path: Path, start_time: float | None) -> None:
        self.final_path = path
        # faststart: a browser can play the file while it loads
        super().__init__(path.with_name(f"{path.stem}.part{path.suffix}"), start_time, {"movflags": "faststart"})

    def finish(self) -> None:
        """Completes the file, which then takes its name."""
        try:
            super().finish()
            if self.n_frames > 0:
                self.path.replace(self.final_path)
        finally:
            self.drop()
