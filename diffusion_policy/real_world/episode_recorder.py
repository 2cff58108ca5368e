"""Episodes of a robot as they happen, and on disk when they are over."""

import logging
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.common.timestamp_accumulator import TimestampActionAccumulator, TimestampObsAccumulator
from diffusion_policy.real_world.recorded_dataset import REPLAY_BUFFER, VIDEOS, video_folder

log = logging.getLogger(__name__)


class EpisodeRecorder:
    """Adds episodes to a folder of recordings, see `recorded_dataset`.

    An episode's numbers are in memory until it is over, and are then written whole, or not at all should the process be
    killed meanwhile; the episodes before are never written to. Videos are written by the cameras, into the folder that
    `start` returns.

    Args:
        output_dir: made if it is not there; its parent has to be.
        frequency: of steps (Hz).
    """

    def __init__(self, output_dir: str | Path, frequency: float) -> None:
        self.output_dir = Path(output_dir).expanduser().absolute()
        if not self.output_dir.parent.is_dir():
            raise FileNotFoundError(f"there is no folder {self.output_dir.parent} to make {self.output_dir.name} in")
        (self.output_dir / VIDEOS).mkdir(parents=True, exist_ok=True)
        self.replay_buffer = ReplayBuffer.create_from_path(self.output_dir / REPLAY_BUFFER, mode="a")
        self._dt = 1 / frequency
        self._episode: _Episode | None = None

    @property
    def is_recording(self) -> bool:
        """Whether an episode is under way."""
        return self._episode is not None

    @property
    def n_episodes(self) -> int:
        """How many episodes there are, without the one under way, whose number this is."""
        return self.replay_buffer.n_episodes

    def start(self, start_time: float) -> Path:
        """Begins an episode whose step 0 is at `start_time` (s, wall clock), ending the one under way.

        Returns:
            An empty folder for its videos.
        """
        self.end()
        folder = video_folder(self.output_dir, self.n_episodes)
        if folder.exists():  # of an episode that was under way when its process was killed
            aside = folder.with_name(f"{folder.name}.unfinished.{time.time_ns()}")
            folder.rename(aside)
            log.warning("videos of an episode that was not completed are kept in %s", aside)
        folder.mkdir(parents=True)
        self._episode = _Episode(start_time, self._dt)
        return folder

    def put_observations(self, obs: Mapping[str, NDArray[Any]], timestamps: NDArray[np.float64]) -> None:
        """Adds what the robot observed, `(k, ...)` by key; what was added before is ignored."""
        if self._episode is not None:
            self._episode.obs.put(obs, timestamps)

    def put_actions(self, actions: ArrayLike, timestamps: NDArray[np.float64], stages: ArrayLike) -> None:
        """Adds what the robot was told to do, `(k, Da)`, instead of what it was told before for the same steps."""
        if self._episode is not None:
            self._episode.actions.put(actions, timestamps)
            self._episode.stages.put(np.asarray(stages, np.int64), timestamps)

    def end(self, last_time: float = np.inf) -> int:
        """Saves the episode under way, if there is one, up to `last_time` (s).

        Returns:
            How many steps it has. Without any it is dropped.
        """
        episode, self._episode = self._episode, None
        if episode is None:
            return 0
        arrays = episode.arrays(last_time)
        n_steps = len(arrays["timestamp"])
        if n_steps:
            self.replay_buffer.add_episode(arrays, compressors="disk")
        else:
            self._remove_videos()
        return n_steps

    def drop(self) -> int | None:
        """Drops the episode under way, or else the last one that was saved; returns its number, if there is one."""
        if self._episode is not None:
            self._episode = None
        elif self.n_episodes:
            self.replay_buffer.drop_episode()
        else:
            return None
        self._remove_videos()
        return self.n_episodes

    def _remove_videos(self) -> None:
        shutil.rmtree(video_folder(self.output_dir, self.n_episodes), ignore_errors=True)


class _Episode:
    """What has happened since an episode began."""

    def __init__(self, start_time: float, dt: float) -> None:
        self.obs = TimestampObsAccumulator(start_time, dt)
        self.actions = TimestampActionAccumulator(start_time, dt)
        self.stages = TimestampActionAccumulator(start_time, dt)

    def arrays(self, last_time: float) -> dict[str, NDArray[Any]]:
        """Steps for which there are both observations and actions, `(N, ...)` by key of the replay buffer."""
        timestamps = self.obs.timestamps[: len(self.actions)]
        n_steps = int(np.count_nonzero(timestamps <= last_time))
        arrays = {
            "timestamp": timestamps,
            "action": self.actions.actions,
            "stage": self.stages.actions,
            **self.obs.data,
        }
        return {key: values[:n_steps] for key, values in arrays.items()}
