"""The videos of an episode."""

import logging
from pathlib import Path

from diffusion_policy.real_world.cameras.multi_camera import MultiCamera
from diffusion_policy.real_world.cameras.recording_thread import RecordingReport

log = logging.getLogger(__name__)


class EpisodeVideos:
    """Lets cameras record `<camera>.mp4`, one episode after the other.

    Args:
        cameras: of one rate.
        fps: that rate (Hz).
    """

    def __init__(self, cameras: MultiCamera, fps: float) -> None:
        self._cameras, self._fps = cameras, fps

    def start(self, folder: Path, start_time: float) -> None:
        """Records to a folder an episode whose step 0 is at `start_time` (wall clock, s).

        Raises:
            CameraError: a camera does not record.
        """
        self._cameras.restart_put(start_time)
        paths = [folder / f"{i}.mp4" for i in range(self._cameras.n_cameras)]
        self._cameras.start_recording(paths, video_start_time(start_time, self._fps))

    def stop(self) -> list[RecordingReport]:
        """Completes the videos; of those that fail, what there is stays.

        Returns:
            What became of the frames of each, if none failed.
        """
        try:
            return [report for report in self._cameras.stop_recording() if report is not None]
        except Exception as error:
            log.error("a video was not completed: %s", error)
            return []


def video_start_time(start_time: float, fps: float) -> float:
    """When the video of an episode that begins at `start_time` has to begin (s).

    Each place of a video gets the first frame that is not before it. As it begins half a frame earlier, what it shows
    is at most half a frame away from the moment that the place stands for.
    """
    return start_time - 0.5 / fps
