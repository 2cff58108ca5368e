"""Small recordings of a robot, as the field's datasets lay them out, whose frames say which ones they are."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.real_world.video_recorder import VideoRecorder

DT, FPS = 0.1, 30
RESOLUTION = (48, 32)  # width, height


def frame(episode: int, camera: int, index: int) -> np.ndarray:
    """The image of a moment: brighter with `index`, greener with `camera`, steeper to the right with `episode`."""
    width, height = RESOLUTION
    rising = 20 + 2 * index % 120 + np.linspace(0, 10 + 40 * episode, width)[None, :, None]
    return (rising + np.array([0, 15 * camera, 10]) + np.zeros((height, 1, 1))).astype(np.uint8)


def mean_difference(image: np.ndarray, other: np.ndarray) -> float:
    """How far images `(H, W, 3)` of 0 to 255 are from each other; 6 for frames of successive steps, 1 for a codec."""
    return float(np.abs(image.astype(float) - other).mean())


def numbers(n_steps: int, start_time: float, seed: int) -> dict[str, np.ndarray]:
    """Arrays of an episode as RealEnv writes them."""
    rng = np.random.default_rng(seed)
    return {
        "timestamp": start_time + DT * np.arange(n_steps),
        "action": rng.normal(size=(n_steps, 6)),
        "stage": np.zeros(n_steps, np.int64),
        **{
            f"robot_{name}": rng.normal(size=(n_steps, 6))
            for name in ("eef_pose", "eef_pose_vel", "joint", "joint_vel")
        },
    }


def write_video(path: Path, episode: int, camera: int, n_frames: int) -> None:
    recorder = VideoRecorder.create_h264(fps=FPS, crf=5)
    path.parent.mkdir(parents=True, exist_ok=True)
    recorder.start(path)
    for index in range(n_frames):
        recorder.write_frame(frame(episode, camera, index))
    recorder.stop()


def write_recordings(folder: Path, lengths: Sequence[int] = (12, 9, 15), cameras: Sequence[int] = (0, 2)) -> Path:
    """A folder with a replay buffer and videos."""
    buffer = ReplayBuffer.create_from_path(folder / "replay_buffer.zarr", mode="a")
    for episode, n_steps in enumerate(lengths):
        buffer.add_episode(numbers(n_steps, 1.7e9 + 100 * episode, episode), compressors="disk")
        for camera in cameras:
            path = folder / "videos" / str(episode) / f"{camera}.mp4"
            write_video(path, episode, camera, round(n_steps * DT * FPS))
    return folder
