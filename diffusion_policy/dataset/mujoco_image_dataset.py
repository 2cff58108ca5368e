"""Demonstrations of an arm in MuJoCo as images, pose of the tool and opening of the gripper."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffusion_policy.dataset.base_dataset import BaseImageDataset
from diffusion_policy.dataset.image_loading import float_images
from diffusion_policy.dataset.replay_buffer_dataset import ReplayBufferDataset
from diffusion_policy.dataset.zarr_loading import InMemory, load_zarr
from diffusion_policy.model.common.normalize_util import get_image_range_normalizer
from diffusion_policy.model.common.normalizer import LinearNormalizer


class MujocoImageDataset(ReplayBufferDataset, BaseImageDataset):
    """Samples: `obs` with `image` `(T, 3, H, W)` and `agent_pos` `(T, D)`; `action` `(T, Da)`.

    `agent_pos` is the arrays `state_keys` side by side, and what is fitted of it is what is observed of it.

    Args:
        zarr_path: folder, zip or URL with the arrays; images `(N, H, W, 3)` of whole numbers from 0 to 255.
        image_key, state_keys, action_key: names of the arrays.
        in_memory: whether images are read into memory, or stay where they are; "auto": if they fit.
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
        in_memory: InMemory = "auto",
    ) -> None:
        self.image_key, self.state_keys, self.action_key = image_key, list(state_keys), action_key
        super().__init__(
            load_zarr(zarr_path, [*self.state_keys, action_key], [image_key], in_memory),
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
