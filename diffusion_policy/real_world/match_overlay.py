"""How scenes of a dataset began, to arrange the next one alike."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.common.cv2_util import get_image_transform
from diffusion_policy.real_world.recorded_dataset import camera_videos, open_recordings
from diffusion_policy.real_world.video_files import all_frames

Image = NDArray[np.uint8]


class MatchOverlay:
    """The first frame of each episode of a dataset, seen by one camera.

    Args:
        dataset_path: folder of recordings.
        camera: its index.
        episode: the one to match; None for that of the number of the episode to come.

    Raises:
        FileNotFoundError: there are no recordings, or a video is missing.
        ValueError: there is no such episode.
    """

    def __init__(self, dataset_path: str | Path, camera: int, episode: int | None = None) -> None:
        key = f"camera_{camera}"
        self._videos = camera_videos(dataset_path, open_recordings(dataset_path).n_episodes, [key])[key]
        if not self._videos or (episode is not None and not 0 <= episode < len(self._videos)):
            raise ValueError(f"{dataset_path} has {len(self._videos)} episodes: no {episode or 0} to match")
        self._episode = episode
        self._first_frames: dict[int, Image] = {}

    def __call__(self, image: Image, next_episode: int) -> Image:
        """`image` `(H, W, 3)` RGB and how the episode to match began, half and half."""
        number = next_episode % len(self._videos) if self._episode is None else self._episode
        if number not in self._first_frames:
            self._first_frames[number] = next(all_frames(self._videos[number]))
        first = self._first_frames[number]
        scaled = get_image_transform(first.shape[1::-1], image.shape[1::-1])(first)
        return ((image.astype(np.uint16) + scaled) // 2).astype(np.uint8)
