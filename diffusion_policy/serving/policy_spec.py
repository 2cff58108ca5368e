"""What a policy observes and answers, and what a request may call it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffusion_policy.common.shape_meta import ShapeMeta

STATE = "observation/state"
IMAGE = "observation/image"


@dataclass(frozen=True)
class PolicySpec:
    """Shapes of a policy's observations and actions.

    Attributes:
        meta: cameras `(C, H, W)`, sensors `(D,)` and the action.
        n_obs_steps: steps To that it observes.
        n_action_steps: actions Ta that it answers with.
        horizon: steps T that it predicts.
    """

    meta: ShapeMeta
    n_obs_steps: int
    n_action_steps: int
    horizon: int

    @classmethod
    def of(cls, policy: Any, cfg: Mapping[str, Any]) -> "PolicySpec":
        """The spec of a policy that was built from the config of a training run."""
        shape_meta = cfg["policy"].get("shape_meta")
        if shape_meta is None:  # one vector
            obs = {"obs": {"shape": [cfg["obs_dim"]], "type": "low_dim"}}
            shape_meta = {"obs": obs, "action": {"shape": [cfg["action_dim"]]}}
        steps = {name: getattr(policy, name, 1) for name in ("n_obs_steps", "n_action_steps", "horizon")}
        return cls(ShapeMeta.parse(shape_meta), **steps)

    @property
    def short_names(self) -> dict[str, tuple[str, ...]]:
        """Keys of the policy that other names stand for: its cameras in order, and all its sensors side by side."""
        names = {f"{IMAGE}_{i}" if i else IMAGE: (key,) for i, key in enumerate(self.meta.rgb_keys)}
        return {**names, **({STATE: self.meta.low_dim_keys} if self.meta.low_dim_keys else {})}

    @property
    def shape_meta(self) -> dict[str, Any]:
        """As in a config."""
        kinds = {**dict.fromkeys(self.meta.rgb_keys, "rgb"), **dict.fromkeys(self.meta.low_dim_keys, "low_dim")}
        obs = {key: {"shape": list(shape), "type": kinds[key]} for key, shape in self.meta.obs.items()}
        return {"obs": obs, "action": {"shape": [self.meta.action_dim]}}

    def metadata(self) -> dict[str, Any]:
        """What clients are told of it."""
        return {
            "n_obs_steps": self.n_obs_steps,
            "horizon": self.horizon,
            "n_action_steps": self.n_action_steps,
            "shape_meta": self.shape_meta,
            "observation_keys": {name: list(keys) for name, keys in self.short_names.items()},
            "mode": "single_frame" if self.n_obs_steps == 1 else "multi_frame",
        }
