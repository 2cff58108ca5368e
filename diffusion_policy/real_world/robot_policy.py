"""Policies as a robot asks them: observations of the environment in, actions out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf

from diffusion_policy.common.own_thread import in_own_thread
from diffusion_policy.real_world.real_inference_util import get_real_obs_dict

INFERENCE_STEPS = 16  # of denoising: a robot does not wait for more
Actions = NDArray[np.float64]
Observations = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class ControlSettings:
    """How a policy's answers are executed.

    Attributes:
        steps_per_inference: steps between two questions to the policy.
        action_offset: steps from the last observation to the first action.
        delta_action: actions are changes of the position since the one before, one at a time.
    """

    steps_per_inference: int
    action_offset: int = 0
    delta_action: bool = False


class RobotPolicy(Protocol):
    """Gives actions `(Ta, Da)` for the observations of a `RealEnv`.

    Attributes:
        shape_meta: what it observes, as in a config.
        n_obs_steps: how many steps of it.
        settings: how it is executed.
    """

    shape_meta: Mapping[str, Any]
    n_obs_steps: int
    settings: ControlSettings

    def reset(self) -> None:
        """An episode begins."""

    def predict(self, obs: Observations) -> Actions:
        """Actions `(Ta, Da)`, of which the first belongs to the last step of `obs` and `settings.action_offset`."""

    def close(self) -> None:
        """It is not asked any more."""


class LocalPolicy:
    """The policy of a checkpoint, in this process.

    Args:
        path: checkpoint of this framework or the original, which is opened as `load_policy` says.
        device: "auto", "cpu", "cuda:0", ...
        steps_per_inference: for policies that predict several actions.
        trust: see `load_policy`.
    """

    def __init__(self, path: str, device: str, steps_per_inference: int, trust: bool = False) -> None:
        from diffusion_policy.policy.policy_loading import load_policy

        self._policy, cfg = in_own_thread(lambda: load_policy(path, device, trust))
        self.shape_meta: Mapping[str, Any] = cfg.policy.shape_meta
        self.n_obs_steps: int = getattr(self._policy, "n_obs_steps", 1)
        self.settings = executed(self._policy, cfg, steps_per_inference)

    def reset(self) -> None:
        self._policy.reset()

    def predict(self, obs: Observations) -> Actions:
        import torch

        arrays = get_real_obs_dict(obs, self.shape_meta)
        device = self._policy.device
        batch = {key: torch.from_numpy(value).to(device, torch.float32)[None] for key, value in arrays.items()}
        with torch.inference_mode():
            action = self._policy.predict_action(batch)["action"][0]
        return action.to("cpu", torch.float64).numpy()

    def close(self) -> None:
        pass


class ServedPolicy:
    """A policy on a server, see `diffusion_policy.serving`.

    Args:
        address: `ws://HOST:PORT`.
        steps_per_inference: steps between two questions.
        api_key: that the server wants.
        timeout: time that an answer may take (s).
        connect_timeout: time to wait for a server that is not there yet (s).
    """

    def __init__(
        self,
        address: str,
        steps_per_inference: int,
        api_key: str | None = None,
        timeout: float = 10.0,
        connect_timeout: float = 60.0,
    ) -> None:
        from diffusion_policy.serving.client import PolicyClient

        self._client = PolicyClient(address, api_key=api_key, timeout=timeout, connect_timeout=connect_timeout)
        metadata = self._client.get_server_metadata()
        self.shape_meta: Mapping[str, Any] = metadata["shape_meta"]
        self.n_obs_steps: int = metadata["n_obs_steps"]
        self.settings = ControlSettings(min(steps_per_inference, metadata["n_action_steps"]))

    def reset(self) -> None:
        self._client.reset()

    def predict(self, obs: Observations) -> Actions:
        asked = {key: np.ascontiguousarray(obs[key]) for key in self.shape_meta["obs"]}
        return np.asarray(self._client.infer(asked)["actions"], np.float64)

    def close(self) -> None:
        self._client.close()


def executed(policy: Any, cfg: Any, steps_per_inference: int) -> ControlSettings:
    """Sets a policy up for a robot, as the original does for its kind."""
    delta_action = bool(OmegaConf.select(cfg, "task.dataset.delta_action"))
    if hasattr(policy, "num_inference_steps"):
        policy.num_inference_steps = min(INFERENCE_STEPS, policy.noise_scheduler.config.num_train_timesteps)
        if not policy.pred_action_steps_only:
            policy.n_action_steps = policy.horizon - policy.n_obs_steps + 1
        return ControlSettings(steps_per_inference, 0, delta_action)
    if hasattr(policy, "pred_n_samples"):  # implicit behavioural cloning
        policy.pred_n_iter, policy.pred_n_samples = 5, 4096
        return ControlSettings(1, 1, delta_action)
    return ControlSettings(1, int(cfg.get("n_latency_steps") or 0), delta_action)  # robomimic's
