"""robosuite for policies on images."""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from diffusion_policy.common.shape_meta import ShapeMeta
from diffusion_policy.env.robomimic.robomimic_wrapper import RobomimicWrapper
from diffusion_policy.env.robomimic.robosuite_env import RobosuiteEnv


def cameras_of(shape_meta: ShapeMeta) -> dict[str, tuple[int, int]]:
    """(height, width) in px by camera of robosuite.

    Raises:
        ValueError: a camera's key does not end in `_image`.
    """
    if strange := [key for key in shape_meta.rgb_keys if not key.endswith("_image")]:
        raise ValueError(f"shape_meta.obs has the cameras {strange}, expected names such as 'agentview_image'")
    return {key.removesuffix("_image"): shape_meta.obs[key][1:] for key in shape_meta.rgb_keys}  # type: ignore[misc]


def create_env(
    env_meta: Mapping[str, Any], shape_meta: Mapping[str, Any], enable_render: bool = True, abs_action: bool = False
) -> RobosuiteEnv:
    """The environment of a dataset; without `enable_render` it has no images, and OpenGL is not opened."""
    cameras = cameras_of(ShapeMeta.parse(shape_meta)) if enable_render else None
    return RobosuiteEnv(env_meta, cameras, abs_action)


class RobomimicImageWrapper(RobomimicWrapper):
    """Observes what `shape_meta` names: images `(3, H, W)` float32 in [0, 1], other observations `(D,)` float32.

    Args:
        env: with the cameras that `cameras_of(shape_meta)` says; without any, it shows the spaces but cannot be reset.
        shape_meta: see ShapeMeta.
        render_obs_key: the camera among them that `render` shows.
        For the others see RobomimicWrapper.

    Raises:
        ValueError: an observation does not exist, or has another shape.
    """

    def __init__(
        self,
        env: RobosuiteEnv,
        shape_meta: Mapping[str, Any],
        init_state: NDArray[np.float64] | None = None,
        render_obs_key: str = "agentview_image",
    ) -> None:
        super().__init__(env, init_state)
        self.shape_meta = ShapeMeta.parse(shape_meta)
        if render_obs_key not in self.shape_meta.rgb_keys:
            raise ValueError(f"render_obs_key is {render_obs_key!r}, expected one of {self.shape_meta.rgb_keys}")
        self.render_obs_key = render_obs_key
        self._check_low_dim()
        bounds = {
            key: (0.0, 1.0) if key in self.shape_meta.rgb_keys else (-np.inf, np.inf) for key in self.shape_meta.obs
        }
        self.observation_space = gymnasium.spaces.Dict(
            {key: gymnasium.spaces.Box(*bounds[key], shape, np.float32) for key, shape in self.shape_meta.obs.items()}
        )
        self._frame: NDArray[np.uint8] | None = None

    def get_observation(self, raw_obs: dict[str, NDArray[Any]] | None = None) -> dict[str, NDArray[np.float32]]:
        raw_obs = self.env.get_observation() if raw_obs is None else raw_obs
        self._frame = raw_obs[self.render_obs_key]
        obs: dict[str, NDArray[np.float32]] = {}
        for key in self.shape_meta.obs:
            if key in self.shape_meta.rgb_keys:
                obs[key] = np.moveaxis(raw_obs[key], -1, 0).astype(np.float32) / np.float32(255)
            else:
                obs[key] = raw_obs[key].astype(np.float32)
        return obs

    def render(self, mode: str = "rgb_array") -> NDArray[np.uint8]:
        """What the camera `render_obs_key` observed last, `(H, W, 3)`."""
        if self._frame is None:
            raise RuntimeError("reset the environment before it is rendered")
        return self._frame

    def _check_low_dim(self) -> None:
        cameras, self.env.cameras = self.env.cameras, {}
        raw_obs = self.env.get_observation()
        self.env.cameras = cameras
        for key in self.shape_meta.low_dim_keys:
            if key not in raw_obs:
                raise ValueError(f"{self.env.name} has no observation {key!r}; it has {sorted(raw_obs)}")
            if raw_obs[key].shape != self.shape_meta.obs[key]:
                expected = list(self.shape_meta.obs[key])
                raise ValueError(f"{key!r} has shape {list(raw_obs[key].shape)}, shape_meta says {expected}")
