from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from diffusion_policy.common.pyav import av
from diffusion_policy.gym_util.video_recording_wrapper import VideoRecorder, VideoRecordingWrapper


class Screen(gymnasium.Env):
    """Shows its step count as brightness."""

    observation_space = spaces.Box(0, 99, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, dtype: Any = np.uint8) -> None:
        self.dtype = dtype
        self.t = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.t += 1
        return np.zeros(1, np.float32), 0.0, False, False, {}

    def render(self, mode: str = "human", height: int = 64, width: int = 64) -> np.ndarray:
        assert mode == "rgb_array"
        return np.full((height, width, 3), 10 * self.t, self.dtype)


def recording(env: gymnasium.Env, path: Path | None, **kwargs: Any) -> VideoRecordingWrapper:
    return VideoRecordingWrapper(env, VideoRecorder.create_h264(fps=10), file_path=path, **kwargs)


def brightness(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        means = [frame.to_ndarray(format="rgb24").mean() for frame in container.decode(video=0)]
    return np.round(np.array(means) / 10).astype(int).tolist()


def play(env: VideoRecordingWrapper, n_steps: int) -> None:
    for _ in range(n_steps):
        env.step(np.zeros(1, np.float32))


@pytest.mark.parametrize(("steps_per_render", "expected"), [(1, [1, 2, 3, 4, 5, 6]), (2, [1, 3, 5]), (4, [3])])
def test_frames_are_those_of_every_nth_step(tmp_path: Path, steps_per_render: int, expected: list[int]) -> None:
    env = recording(Screen(), tmp_path / "a.mp4", steps_per_render=steps_per_render)
    env.reset()
    play(env, 6)
    assert env.render() == str(tmp_path / "a.mp4")
    assert brightness(tmp_path / "a.mp4") == expected


def test_reset_completes_the_video_and_counts_anew(tmp_path: Path) -> None:
    env = recording(Screen(), tmp_path / "a.mp4", steps_per_render=3)
    env.reset()
    play(env, 4)
    env.reset()
    assert brightness(tmp_path / "a.mp4") == [2]
    env.file_path = tmp_path / "b.mp4"
    play(env, 5)
    assert env.render() == str(tmp_path / "b.mp4")
    assert brightness(tmp_path / "b.mp4") == [2, 5]


def test_without_a_path_nothing_is_recorded(tmp_path: Path) -> None:
    env = recording(Screen(), None)
    env.reset()
    play(env, 3)
    assert env.render() is None
    assert list(tmp_path.iterdir()) == []


def test_too_short_for_a_frame_gives_no_video(tmp_path: Path) -> None:
    env = recording(Screen(), tmp_path / "a.mp4", steps_per_render=10)
    env.reset()
    play(env, 3)
    assert env.render() is None


def test_closing_drops_an_incomplete_video(tmp_path: Path) -> None:
    env = recording(Screen(), tmp_path / "a.mp4")
    env.reset()
    play(env, 3)
    env.close()
    assert list(tmp_path.iterdir()) == []


def test_render_arguments_reach_the_environment(tmp_path: Path) -> None:
    env = recording(Screen(), tmp_path / "a.mp4", height=32, width=48)
    env.reset()
    play(env, 1)
    env.render()
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert (container.streams.video[0].height, container.streams.video[0].width) == (32, 48)


def test_gymnasium_envs_whose_mode_is_fixed(tmp_path: Path) -> None:
    env = recording(gymnasium.make("Pendulum-v1", render_mode="rgb_array"), tmp_path / "a.mp4")
    env.reset(seed=0)
    play(env, 2)
    assert env.render() is not None
    assert len(brightness(tmp_path / "a.mp4")) == 2


@pytest.mark.filterwarnings("ignore:.*calling render method without")
def test_frames_that_are_not_images_are_refused(tmp_path: Path) -> None:
    env = recording(Screen(np.float32), tmp_path / "a.mp4")
    env.reset()
    with pytest.raises(TypeError, match=r"float32.*uint8"):
        play(env, 1)
    env = recording(gymnasium.make("Pendulum-v1"), tmp_path / "a.mp4")
    env.reset()
    with pytest.raises(TypeError, match="render_mode"):
        play(env, 1)
    with pytest.raises(ValueError, match="steps_per_render"):
        recording(Screen(), None, steps_per_render=0)
