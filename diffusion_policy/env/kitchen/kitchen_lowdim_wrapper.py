"""The kitchen with a state to start from, and with images of a given size."""

from typing import Any

import gymnasium
import numpy as np

from diffusion_policy.env.kitchen.base import KitchenBase


class KitchenLowdimWrapper(gymnasium.Env):
    """Starts episodes where it is told.

    Args:
        env: the kitchen.
        init_qpos: positions `(30,)` at the start of an episode; None: the kitchen's own. It may be set later.
        init_qvel: velocities `(29,)` there.
        render_hw: height and width of images (px).
    """

    metadata = KitchenBase.metadata
    render_mode = "rgb_array"

    def __init__(
        self,
        env: KitchenBase,
        init_qpos: np.ndarray | None = None,
        init_qvel: np.ndarray | None = None,
        render_hw: tuple[int, int] = (240, 360),
    ) -> None:
        self.env = env
        self.init_qpos, self.init_qvel = init_qpos, init_qvel
        self.render_hw = render_hw

    @property
    def action_space(self) -> gymnasium.Space:  # type: ignore[override]
        return self.env.action_space

    @property
    def observation_space(self) -> gymnasium.Space:  # type: ignore[override]
        return self.env.observation_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode; returns what is observed `(60,)` and infos."""
        obs, info = self.env.reset(seed=seed, options=options)
        if self.init_qpos is not None:
            init_qvel = self.env.init_qvel if self.init_qvel is None else self.init_qvel
            self.env.set_state(self.init_qpos, init_qvel)
            obs = self.env.observe()
        return obs, info

    def step(self, a: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """See KitchenBase."""
        return self.env.step(a)

    def render(self, mode: str = "rgb_array") -> np.ndarray:
        """An image `(H, W, 3)` uint8."""
        return self.env.render(*self.render_hw)

    def close(self) -> None:
        self.env.close()
