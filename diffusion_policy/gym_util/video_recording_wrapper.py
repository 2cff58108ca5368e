"""Records an environment's episodes as videos."""

import inspect
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from diffusion_policy.common.video_recorder import VideoRecorder

__all__ = ["VideoRecorder", "VideoRecordingWrapper"]


class VideoRecordingWrapper(gymnasium.Wrapper):
    """Writes rendered frames to `file_path` while that is set. `reset` and `render` complete the video.

    Args:
        env: environment whose `render` returns images `(H, W, 3)` uint8.
        video_recoder: writes the frames.
        mode: passed to the environment's `render`, if that takes a mode.
        file_path: where to write the next video; None records nothing. May be set at any time before a reset.
        steps_per_render: every so many steps one frame.
        **kwargs: passed to the environment's `render`.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        video_recoder: VideoRecorder,
        mode: str = "rgb_array",
        file_path: str | Path | None = None,
        steps_per_render: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(env)
        if steps_per_render < 1:
            raise ValueError(f"steps_per_render is {steps_per_render}, expected at least 1.")
        self.video_recoder = video_recoder
        self.file_path = file_path
        self.steps_per_render = steps_per_render
        # gymnasium's own environments fix the mode when they are made
        takes_mode = "mode" in inspect.signature(env.render).parameters
        self.render_kwargs = {**kwargs, "mode": mode} if takes_mode else kwargs
        self.step_count = 0

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Completes the previous video and starts an episode."""
        self.video_recoder.stop()
        self.step_count = 1
        return self.env.reset(**kwargs)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps and, where due, records a frame."""
        result = self.env.step(action)
        self.step_count += 1
        if self.file_path is not None and self.step_count % self.steps_per_render == 0:
            self._record_frame(self.file_path)
        return result

    def render(self, mode: str = "rgb_array", **kwargs: Any) -> str | None:
        """Completes the video and returns its path; None if none is being recorded or it has no frames."""
        self.video_recoder.stop()
        recorded = self.file_path is not None and Path(self.file_path).exists()
        return str(self.file_path) if recorded else None

    def close(self) -> None:
        """Drops a video that is not complete, and closes the environment."""
        self.video_recoder.abort()
        super().close()

    def _record_frame(self, file_path: str | Path) -> None:
        if not self.video_recoder.is_ready():
            self.video_recoder.start(file_path)
        frame = self.env.render(**self.render_kwargs)
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8:
            given = getattr(frame, "dtype", type(frame).__name__)
            raise TypeError(f"{self.env} rendered {given}, not a uint8 image: is its render_mode 'rgb_array'?")
        self.video_recoder.write_frame(frame)
