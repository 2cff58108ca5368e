"""Demonstrations whose observations and actions are vectors, of whatever task."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffusion_policy.dataset.base_dataset import BaseLowdimDataset
from diffusion_policy.dataset.replay_buffer_dataset import ReplayBufferDataset
from diffusion_policy.dataset.zarr_loading import InMemory, load_zarr
from diffusion_policy.model.common.normalizer import LinearNormalizer


class ObsActionDataset(ReplayBufferDataset, BaseLowdimDataset):
    """Windows of arrays of a replay buffer: some of them, side by side, are `obs`, one is `action`.

    Arguments as of ReplayBufferDataset. A subclass fills the replay buffer.
    """

    obs_keys: Sequence[str] = ("obs",)

    range_eps = 1e-4
    """Entries that range over less than this in all the data are shifted, not scaled."""

    def transform(self, windows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        leading = windows[self.action_key].ndim - 1
        parts = [windows[key].flatten(leading).to(torch.float32) for key in self.obs_keys]
        return {"obs": torch.cat(parts, dim=-1), "action": windows[self.action_key].to(torch.float32)}

    def get_normalizer(self, mode: str = "limits", **kwargs: Any) -> LinearNormalizer:
        return super().get_normalizer(mode, **{"range_eps": self.range_eps, **kwargs})


class LowdimDataset(ObsActionDataset):
    """Demonstrations of any task in a zarr.

    Args:
        zarr_path: folder, zip or URL with `data/<key>` `(N, ...)` and `meta/episode_ends`.
        obs_keys: arrays that are the observation, side by side in this order.
        action_key: array of actions `(N, Da)`.
        obs_dim, action_dim: what the policy is built for, if it is to be checked.
        in_memory: whether the arrays are read into memory, or stay where they are; "auto": if they fit.
        For the others see ReplayBufferDataset.
    """

    def __init__(
        self,
        zarr_path: str,
        horizon: int = 1,
        pad_before: int = 0,
        pad_after: int = 0,
        obs_keys: Sequence[str] = ("obs",),
        action_key: str = "action",
        seed: int = 42,
        val_ratio: float = 0.0,
        max_train_episodes: int | None = None,
        obs_dim: int | None = None,
        action_dim: int | None = None,
        in_memory: InMemory = "auto",
    ) -> None:
        self.obs_keys, self.action_key = list(obs_keys), action_key
        replay_buffer = load_zarr(zarr_path, [*self.obs_keys, action_key], in_memory=in_memory)
        super().__init__(
            replay_buffer,
            horizon=horizon,
            pad_before=pad_before,
            pad_after=pad_after,
            seed=seed,
            val_ratio=val_ratio,
            max_train_episodes=max_train_episodes,
        )
        steps = {key: value[0] for key, value in self[0].items()}
        check_dims(zarr_path, steps, obs=obs_dim, action=action_dim)


def check_dims(source: object, steps: Mapping[str, Any], **expected: int | None) -> None:
    """Refuses steps, by name, that are no vectors of the expected length (None: of any)."""
    for name, dim in expected.items():
        shape = list(steps[name].shape)
        if dim is not None and shape != [dim]:
            raise ValueError(f"{source}: {name!r} has steps of shape {shape}, expected [{dim}]: is it of this task?")
