"""Demonstrations of an arm in MuJoCo as images, pose of the tool and opening of the gripper."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.common.zarr_store import open_group
from diffusion_policy.dataset.base_dataset import BaseImageDataset
from diffusion_policy.dataset.data_checks import check_finite
from diffusion_policy.dataset.image_loading import float_images, load_images
from diffusion_policy.dataset.replay_buffer_dataset import ReplayBufferDataset
from diffusion_policy.model.common.normalize_util import get_image_range_normalizer
from diffusion_policy.model.common.normalizer import LinearNormalizer


class MujocoImageDataset(ReplayBufferDataset, BaseImageDataset):
    """Samples: `obs` with `image` `(T, 3, H, W)` and `agent_pos` `(T, D)`; `action` `(T, Da)`.

    `agent_pos` is the arrays `state_keys` side by side, and what is fitted of it is what is observed of it.

    Args:
        zarr_path: folder or zip with the arrays; images `(N, H, W, 3)` of whole numbers from 0 to 255.
        image_key, state_keys, action_key: names of the arrays.
        For the others see ReplayBufferDataset.
    """

    def __init__(
        self,
        zarr_path: str,
        horizon: int = 1,
        pad_before: int = 0,
        pad_after: int = 0,
        seed: int = 42,
        val_ratio: float = 0.0,
        max_train_episodes: int | None = None,
        image_key: str = "img",
        state_keys: Sequence[str] = ("robot_tcp_pose", "gripper_width"),
        action_key: str = "action",
    ) -> None:
        self.image_key, self.state_keys, self.action_key = image_key, list(state_keys), action_key
        super().__init__(
            _load(zarr_path, image_key, [*self.state_keys, action_key]),
            horizon=horizon,
            pad_before=pad_before,
            pad_after=pad_after,
            seed=seed,
            val_ratio=val_ratio,
            max_train_episodes=max_train_episodes,
        )

    def transform(self, windows: Mapping[str, Tensor]) -> dict[str, Any]:
        obs = {"image": float_images(windows[self.image_key]), "agent_pos": self._agent_pos(windows)}
        return {"obs": obs, "action": windows[self.action_key].to(torch.float32)}

    def fitted_data(self) -> dict[str, Tensor]:
        states = {key: torch.from_numpy(self.replay_buffer[key]) for key in self.state_keys}
        return {"action": self.get_all_actions(), "agent_pos": self._agent_pos(states)}

    def get_normalizer(self, mode: str = "limits", **kwargs: Any) -> LinearNormalizer:
        """Vectors fitted as `LinearNormalizer.fit` does, images from [0, 1] to [-1, 1]."""
        normalizer = super().get_normalizer(mode, **kwargs)
        normalizer["image"] = get_image_range_normalizer()
        return normalizer

    def _agent_pos(self, values: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([values[key].to(torch.float32) for key in self.state_keys], dim=-1)


def _load(zarr_path: str, image_key: str, other_keys: list[str]) -> ReplayBuffer:
    group = open_group(zarr_path)
    with closing(group.store):
        stored = ReplayBuffer(group)
        missing = sorted({image_key, *other_keys} - set(stored.keys()))
        if missing:
            raise KeyError(
                f"{zarr_path} has no {missing}; it has {sorted(stored.keys())}. Name its arrays by image_key, "
                "state_keys and action_key"
            )
        buffer = ReplayBuffer.copy_from_store(group, keys=other_keys)
        check_finite(buffer, zarr_path)
        images = load_images(stored[image_key], image_key, np.asarray(buffer.episode_ends), zarr_path)
    data = {**{key: buffer[key] for key in other_keys}, image_key: images}
    return ReplayBuffer(root={"data": data, "meta": {"episode_ends": np.asarray(buffer.episode_ends)}})
