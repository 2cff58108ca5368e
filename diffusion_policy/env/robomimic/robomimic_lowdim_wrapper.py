"""robosuite for policies on states."""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from diffusion_policy.env.robomimic.robomimic_wrapper import RobomimicWrapper
from diffusion_policy.env.robomimic.robosuite_env import RobosuiteEnv

OBS_KEYS = ("object", "robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos")


def create_env(env_meta: Mapping[str, Any], obs_keys: Sequence[str], abs_action: bool = False) -> RobosuiteEnv:
    """The environment of a dataset, which observes at least `obs_keys`."""
    return RobosuiteEnv(env_meta, abs_action=abs_action)


class RobomimicLowdimWrapper(RobomimicWrapper):
    """Observes `obs_keys`, one after another, `(Do,)` float32.

    Args:
        render_hw: height and width of what `render` draws (px).
        render_camera_name: the camera that sees it.
        For the others see RobomimicWrapper.

    Raises:
        ValueError: an observation does not exist.
    """

    def __init__(
        self,
        env: RobosuiteEnv,
        obs_keys: Sequence[str] = OBS_KEYS,
        init_state: NDArray[np.float64] | None = None,
        render_hw: tuple[int, int] = (256, 256),
        render_camera_name: str = "agentview",
    ) -> None:
        super().__init__(env, init_state)
        self.obs_keys = tuple(obs_keys)
        self.render_hw = render_hw
        self.render_camera_name = render_camera_name
        raw_obs = env.get_observation()
        if missing := [key for key in obs_keys if key not in raw_obs]:
            raise ValueError(f"{env.name} has no observations {missing}; it has {sorted(raw_obs)}")
        shape = self.get_observation(raw_obs).shape
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, shape, np.float32)

    def get_observation(self, raw_obs: dict[str, NDArray[Any]] | None = None) -> NDArray[np.float32]:
        raw_obs = self.env.get_observation() if raw_obs is None else raw_obs
        return np.concatenate([raw_obs[key] for key in self.obs_keys], dtype=np.float32)

    def render(self, mode: str = "rgb_array") -> NDArray[np.uint8]:
        """An image `(H, W, 3)`."""
        return self.env.render(*self.render_hw, self.render_camera_name)
