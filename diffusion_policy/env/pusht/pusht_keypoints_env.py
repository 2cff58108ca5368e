"""Push-T observed through keypoints on the block."""

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike

from diffusion_policy.env.pusht.pusht_env import FloatArray, Pixels, PushTEnv
from diffusion_policy.env.pusht.pymunk_keypoint_manager import PymunkKeypointManager


class PushTKeypointsEnv(PushTEnv):
    """Observation (2 Do,): positions (Do,), then Do times 0 or 1 that say which of them are visible.

    Positions are x, y of the block's keypoints, then those of the agent's keypoints or its centre: Do = 20 with the
    standard 9 keypoints on the block. Hidden positions are given all the same; a policy takes their mask into account.

    Args:
        legacy, block_cog, damping, render_size, reset_to_state, render_action: see `PushTEnv`.
        keypoint_visible_rate: probability of each keypoint to be visible, drawn anew for every observation.
        agent_keypoints: observe the agent's keypoints in place of its centre.
        draw_keypoints: draw the visible keypoints of the latest observation.
        local_keypoint_map: keypoints (N, 2) of `block` and `agent` in their own frames; None for the standard ones.
        color_map: r, g, b of the keypoints of `block` and `agent`.
    """

    def __init__(
        self,
        legacy: bool = False,
        block_cog: tuple[float, float] | None = None,
        damping: float | None = None,
        render_size: int = 96,
        keypoint_visible_rate: float = 1.0,
        agent_keypoints: bool = False,
        draw_keypoints: bool = False,
        reset_to_state: ArrayLike | None = None,
        render_action: bool = True,
        local_keypoint_map: dict[str, FloatArray] | None = None,
        color_map: dict[str, ArrayLike] | None = None,
    ) -> None:
        super().__init__(
            legacy=legacy,
            block_cog=block_cog,
            damping=damping,
            render_size=render_size,
            reset_to_state=reset_to_state,
            render_action=render_action,
        )
        self.keypoint_visible_rate = keypoint_visible_rate
        self.agent_keypoints = agent_keypoints
        self.draw_keypoints = draw_keypoints
        if local_keypoint_map is None:
            self.kp_manager = PymunkKeypointManager.create_from_pusht_env(self, color_map=color_map)
        else:
            self.kp_manager = PymunkKeypointManager(local_keypoint_map, color_map)
        self._visible: dict[str, np.ndarray] = {}

        n_positions = 2 * sum(len(points) for points in self._keypoints().values()) + 2 * (not agent_keypoints)
        high = np.concatenate([np.full(n_positions, float(self.window_size)), np.ones(n_positions)])
        self.observation_space = spaces.Box(low=np.zeros(2 * n_positions), high=high, dtype=np.float64)

    @classmethod
    def genenerate_keypoint_manager_params(cls) -> dict[str, Any]:
        """The standard `local_keypoint_map` and `color_map`, those of the published dataset, as keyword arguments."""
        return PymunkKeypointManager.create_from_pusht_env(PushTEnv()).kwargs

    def _keypoints(self) -> dict[str, FloatArray]:
        bodies = {"block": self.block}
        if self.agent_keypoints:
            bodies["agent"] = self.agent
        return self.kp_manager.get_keypoints_global(bodies, is_obj=True)

    def _get_obs(self) -> FloatArray:
        keypoints = self._keypoints()
        counts = [len(points) for points in keypoints.values()]
        visible = self.np_random.random(sum(counts)) < self.keypoint_visible_rate
        self._visible = dict(zip(keypoints, np.split(visible, np.cumsum(counts)[:-1]), strict=True))

        points = np.concatenate(list(keypoints.values()))
        if not self.agent_keypoints:
            points = np.concatenate([points, [self.agent.position]])
            visible = np.append(visible, True)
        return np.concatenate([points.ravel(), np.repeat(visible, 2)])

    def _render_frame(self, mode: str) -> Pixels:
        pixels = super()._render_frame(mode)
        if self.draw_keypoints:
            shown = {name: points[self._visible[name]] for name, points in self._keypoints().items()}
            self.kp_manager.draw_keypoints(pixels, shown, radius=max(1, self.render_size // 96))
        return pixels
