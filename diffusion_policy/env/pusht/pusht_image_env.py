"""Push-T observed through images."""

import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from diffusion_policy.env.pusht.pusht_env import Pixels, PushTEnv


class PushTImageEnv(PushTEnv):
    """Observation: `image` (3, render_size, render_size) in [0, 1] and `agent_pos` (2,) in px, both float32.

    Args: see `PushTEnv`. The action's target is drawn in what `render` returns, not in the observation.
    """

    metadata = {
        "render_modes": ["rgb_array"],
        "render_fps": 10,
        "render.modes": ["rgb_array"],
        "video.frames_per_second": 10,
    }

    def __init__(
        self,
        legacy: bool = False,
        block_cog: tuple[float, float] | None = None,
        damping: float | None = None,
        render_size: int = 96,
    ) -> None:
        super().__init__(
            legacy=legacy, block_cog=block_cog, damping=damping, render_size=render_size, render_action=False
        )
        self.observation_space = spaces.Dict(
            {
                "image": spaces.Box(0, 1, shape=(3, render_size, render_size), dtype=np.float32),
                "agent_pos": spaces.Box(0, self.window_size, shape=(2,), dtype=np.float32),
            }
        )
        self.render_cache: Pixels | None = None

    def _set_state(self, state: ArrayLike) -> None:
        self.render_cache = None
        super()._set_state(state)

    def _get_obs(self) -> dict[str, NDArray[np.float32]]:
        self.render_cache = self._draw_scene(show=False)
        return {
            "image": np.ascontiguousarray(np.moveaxis(self.render_cache, -1, 0), dtype=np.float32) / np.float32(255),
            "agent_pos": np.array(self.agent.position, dtype=np.float32),
        }

    def _render_frame(self, mode: str) -> Pixels:
        if self.render_cache is None:
            self.render_cache = self._draw_scene(show=False)
        pixels = self.render_cache.copy()
        self._draw_action(pixels)
        return pixels
