"""Where a robot's recordings lie: numbers in `replay_buffer.zarr`, images in `videos/<episode>/<camera>.mp4`."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from diffusion_policy.common.replay_buffer import ReplayBuffer

REPLAY_BUFFER = "replay_buffer.zarr"
VIDEOS = "videos"
_END_BYTES = 1 << 16  # of a video: what follows of its frames stands at its ends


def open_recordings(dataset_path: str | os.PathLike[str]) -> ReplayBuffer:
    """The numbers of a folder of recordings, stored as zarr, for reading.

    Raises:
        FileNotFoundError: there is no such folder, or nothing was recorded in it.
    """
    path = Path(dataset_path).expanduser() / REPLAY_BUFFER
    if not path.is_dir():
        raise FileNotFoundError(
            f"no recordings at {dataset_path}: expected a folder with {REPLAY_BUFFER} and {VIDEOS}/, as "
            "demo_real_robot.py writes it"
        )
    return ReplayBuffer.create_from_path(path, mode="r")


def video_folder(dataset_path: str | os.PathLike[str], episode: int) -> Path:
    """Where the videos of an episode are."""
    return Path(dataset_path).expanduser() / VIDEOS / str(episode)


def camera_videos(
    dataset_path: str | os.PathLike[str], n_episodes: int, keys: Iterable[str] | None = None
) -> dict[str, list[Path]]:
    """The videos of each camera, episode by episode, by its key: `camera_0` of `videos/<episode>/0.mp4`.

    Args:
        keys: cameras; None for those of the first episode.

    Raises:
        FileNotFoundError: a video is missing.
        ValueError: a key is no camera's.
    """
    if keys is None:
        numbers = sorted(int(path.stem) for path in video_folder(dataset_path, 0).glob("*.mp4") if path.stem.isdigit())
        keys = [f"camera_{number}" for number in numbers]
    videos = {
        key: [video_folder(dataset_path, episode) / f"{camera_number(key)}.mp4" for episode in range(n_episodes)]
        for key in keys
    }
    missing = [str(path) for paths in videos.values() for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} videos are missing, first {missing[0]}: copy the recordings whole, or leave "
            "that camera out"
        )
    return videos


def camera_number(key: str) -> int:
    """3 of `camera_3`.

    Raises:
        ValueError: it is not of that form.
    """
    prefix, _, number = key.rpartition("_")
    if prefix != "camera" or not number.isdigit():
        raise ValueError(f"{key!r} is no camera of a recording: expected names such as camera_0")
    return int(number)


def step_duration(recordings: ReplayBuffer) -> float:
    """Time between the steps of recordings, s.

    Raises:
        ValueError: no episode has two steps with increasing `timestamp`.
    """
    timestamps, ends = recordings["timestamp"][:], recordings.episode_ends
    if not len(ends):
        raise ValueError("there is no episode in the recordings")
    # Timestamps are seconds since 1970, exact to 2e-7 s: the longest episode gives the most exact step.
    longest = recordings.get_episode_slice(int(np.argmax(recordings.episode_lengths)))
    first, last = timestamps[longest.start], timestamps[longest.stop - 1]
    if not last > first:
        raise ValueError(f"timestamps go from {first} to {last} in an episode: expected at least two that increase")
    return float(last - first) / (longest.stop - longest.start - 1)


def wanted_columns(key: str, shape: tuple[int, ...]) -> slice:
    """Which entries of a stored vector are meant by a `shape`: of a pose or an action, x and y where it is of two."""
    return slice(2) if shape == (2,) and ("pose" in key or key == "action") else slice(None)


def fingerprint(videos: Mapping[str, Sequence[Path]], *others: object) -> str:
    """Of what videos hold, wherever they lie, and of the text of whatever else matters.

    Of each video its size and both its ends are read: one of them lists the sizes of all frames.
    """
    digest = hashlib.sha256(repr(others).encode())
    for key, paths in sorted(videos.items()):
        digest.update(key.encode())
        for path in paths:
            size = path.stat().st_size
            digest.update(size.to_bytes(8, "little"))
            with path.open("rb") as file:
                digest.update(file.read(_END_BYTES))
                file.seek(max(0, size - _END_BYTES))
                digest.update(file.read())
    return digest.hexdigest()
