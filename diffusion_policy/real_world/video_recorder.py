"""Videos of cameras: recorded as they happen, read at any rate."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from diffusion_policy.common import video_recorder
from diffusion_policy.common.pyav import av
from diffusion_policy.common.timestamp_accumulator import get_accumulate_timestamp_idxs

# The file is a sequence of fragments, one a frame, until it is closed, when it gets the one index of a plain file.
SURVIVES_KILL = {"movflags": "hybrid_fragmented+frag_every_frame", "flush_packets": "1"}
JITTER = 0.3  # of a frame: how much earlier or later than its turn one may come without a repetition or a gap
CV2_TO_YUV420P = {"bgr24": cv2.COLOR_BGR2YUV_I420, "rgb24": cv2.COLOR_RGB2YUV_I420}


class VideoRecorder(video_recorder.VideoRecorder):
    """Writes each frame to the file as it comes: if the process is killed, the video ends with its last frame.

    The file has its name from the beginning. See the base class for the arguments.
    """

    @classmethod
    def create_h264(
        cls,
        fps: float,
        codec: str = "h264",
        input_pix_fmt: str = "rgb24",
        output_pix_fmt: str = "yuv420p",
        crf: int = 18,
        profile: str = "high",
        preset: str = "veryfast",
        **kwargs: Any,
    ) -> "VideoRecorder":
        """H.264 that keeps up with a camera.

        Args:
            crf: 0 (lossless) to 51; 18 looks lossless.
            preset: x264's trade of time for size. 1280 x 720 px take 4 to 7 ms with `veryfast`, 3 with `ultrafast`.
        """
        options = {"crf": str(crf), "profile": profile, "preset": preset, "tune": "zerolatency"}
        return cls(fps, codec, input_pix_fmt, pix_fmt=output_pix_fmt, options=options, **kwargs)

    def _create_file(self, path: Path, start_time: float | None) -> video_recorder.VideoFile:
        return video_recorder.VideoFile(path, start_time, SURVIVES_KILL)

    def _places_to_fill(self, video: video_recorder.VideoFile, frame_time: float | None) -> int:
        n_places = super()._places_to_fill(video, frame_time)
        if n_places == 1 or video.n_frames == 0 or frame_time is None:
            return n_places
        # Frames of a camera whose phase is near the grid's would fall, by jitter, now before and now behind its points.
        lateness = (frame_time - video.start_time) * self.fps - video.n_frames
        return 1 if -JITTER <= lateness < 1 + JITTER else n_places

    def _to_frame(self, img: np.ndarray) -> av.VideoFrame:
        conversion = CV2_TO_YUV420P.get(self.input_pix_fmt) if self.kwargs.get("pix_fmt") == "yuv420p" else None
        if conversion is None:
            return super()._to_frame(img)
        planes = np.asarray(cv2.cvtColor(img, conversion), np.uint8)  # in a third of PyAV's time
        return av.VideoFrame.from_ndarray(planes, format="yuv420p")


def read_video(
    video_path: str | Path,
    dt: float,
    video_start_time: float = 0.0,
    start_time: float = 0.0,
    img_transform: Callable[[np.ndarray], np.ndarray] | None = None,
    thread_type: str = "AUTO",
    thread_count: int = 0,
    max_pad_frames: int = 10,
) -> Iterator[np.ndarray]:
    """Yields an image `(H, W, 3)` uint8 RGB for each time `start_time + i * dt`: the first frame at or after it.

    The last one is repeated `max_pad_frames` times.

    Args:
        video_path: what to read; one that ends abruptly, as after a kill, is read up to where it ends.
        dt: seconds between images.
        video_start_time: time (s) of the first frame.
        start_time: time (s) of the first image.
        img_transform: applied to every image.
        thread_type, thread_count: of the decoder, as PyAV has them.

    Raises:
        ValueError: the video has no frame.
    """
    frame: av.VideoFrame | None = None
    next_idx = 0
    with av.open(str(video_path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = thread_type
        stream.codec_context.thread_count = thread_count
        for frame in container.decode(stream):
            _, idxs, next_idx = get_accumulate_timestamp_idxs(
                [video_start_time + frame.time], start_time=start_time, dt=dt, next_global_idx=next_idx
            )
            if idxs:
                yield from [_image(frame, img_transform)] * len(idxs)
    if frame is None:
        raise ValueError(f"{video_path} has no frame: its recording ended before the first one came")
    if max_pad_frames > 0:
        yield from [_image(frame, img_transform)] * max_pad_frames


def _image(frame: av.VideoFrame, transform: Callable[[np.ndarray], np.ndarray] | None) -> np.ndarray:
    image = frame.to_ndarray(format="rgb24")
    return image if transform is None else transform(image)
