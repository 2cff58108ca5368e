"""Recordings of a robot, of Push-T or of any other task, as images and states."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.common.shape_meta import ShapeMeta
from diffusion_policy.dataset.base_dataset import BaseImageDataset
from diffusion_policy.dataset.image_loading import float_images
from diffusion_policy.dataset.real_image_cache import load_recordings, zarr_resize_index_last_dim
from diffusion_policy.dataset.replay_buffer_dataset import ReplayBufferDataset, observed_steps
from diffusion_policy.model.common.normalize_util import get_image_range_normalizer
from diffusion_policy.model.common.normalizer import LinearNormalizer, SingleFieldLinearNormalizer

__all__ = ["RealPushTImageDataset", "zarr_resize_index_last_dim"]


class RealPushTImageDataset(ReplayBufferDataset, BaseImageDataset):
    """Samples: `obs` with images `(To, 3, H, W)` and states `(To, D)` by key of `shape_meta`; `action` `(T, Da)`.

    Images are kept in memory as uint8 where they fit, else compressed, and decoded for each batch.

    Args:
        shape_meta: which cameras and states, see ShapeMeta. Of poses, and of actions, x and y are taken where it
            wants two numbers.
        dataset_path: folder of recordings, `replay_buffer.zarr` and `videos/`.
        n_obs_steps: steps To of a window of which observations are read; None for all T.
        n_latency_steps: steps that an action is executed after its observation: actions of a window begin so many
            steps after its observations.
        use_cache: keep images in the sizes of `shape_meta` (JPEG 2000) in a `.zarr.zip` in `dataset_path` for the next
            time.
        delta_action: actions are the changes since the step before, 0 at the first of an episode; positions only.
        For the others see ReplayBufferDataset.
    """

    validates_on_the_rest = False

    def __init__(
        self,
        shape_meta: Mapping[str, Any],
        dataset_path: str,
        horizon: int = 1,
        pad_before: int = 0,
        pad_after: int = 0,
        n_obs_steps: int | None = None,
        n_latency_steps: int = 0,
        use_cache: bool = False,
        seed: int = 42,
        val_ratio: float = 0.0,
        max_train_episodes: int | None = None,
        delta_action: bool = False,
    ) -> None:
        self.shape_meta = ShapeMeta.parse(shape_meta)
        self.n_latency_steps = n_latency_steps
        n_observed = horizon if n_obs_steps is None else n_obs_steps
        self.first_steps = observed_steps(self.shape_meta.obs, n_observed, horizon)
        recordings = load_recordings(dataset_path, shape_meta, use_cache)
        super().__init__(
            _with_changes(recordings) if delta_action else recordings,
            horizon=horizon + n_latency_steps,
            pad_before=pad_before,
            pad_after=pad_after,
            seed=seed,
            val_ratio=val_ratio,
            max_train_episodes=max_train_episodes,
        )

    def transform(self, windows: Mapping[str, Tensor]) -> dict[str, Any]:
        cameras = self.shape_meta.rgb_keys
        obs = {
            key: float_images(windows[key]) if key in cameras else windows[key].to(torch.float32)
            for key in self.shape_meta.obs
        }
        return {"obs": obs, "action": windows["action"][:, self.n_latency_steps :].to(torch.float32)}

    def get_normalizer(self, mode: str = "limits", **kwargs: Any) -> LinearNormalizer:
        """States and actions fitted as `LinearNormalizer.fit` does, images from [0, 1] to [-1, 1]."""
        normalizer = LinearNormalizer()
        for key in ("action", *self.shape_meta.low_dim_keys):
            values = torch.from_numpy(self.replay_buffer[key]).to(torch.float32)
            normalizer[key] = SingleFieldLinearNormalizer.create_fit(values, mode=mode, **kwargs)
        for key in self.shape_meta.rgb_keys:
            normalizer[key] = get_image_range_normalizer()
        return normalizer

    def get_all_actions(self) -> Tensor:
        return super().get_all_actions().to(torch.float32)


def _with_changes(recordings: ReplayBuffer) -> ReplayBuffer:
    """Actions as changes since the step before, 0 at the first of each episode."""
    actions, ends = recordings["action"], recordings.episode_ends
    if actions.shape[1] > 3:
        raise ValueError(f"delta_action is for positions, actions have {actions.shape[1]} entries: use absolute ones")
    changes = np.diff(actions, axis=0, prepend=actions[:1])
    changes[ends[:-1]] = 0
    return ReplayBuffer({"data": {**dict(recordings.items()), "action": changes}, "meta": {"episode_ends": ends}})
