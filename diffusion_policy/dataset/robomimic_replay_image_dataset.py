"""robomimic's demonstrations as images and states."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from diffusion_policy.common.shape_meta import ShapeMeta
from diffusion_policy.dataset.base_dataset import BaseImageDataset
from diffusion_policy.dataset.image_loading import float_images
from diffusion_policy.dataset.replay_buffer_dataset import ReplayBufferDataset, observed_steps
from diffusion_policy.dataset.robomimic_actions import action_normalizer
from diffusion_policy.dataset.robomimic_image_cache import load_images_and_states
from diffusion_policy.dataset.zarr_loading import InMemory
from diffusion_policy.model.common.normalize_util import (
    array_to_stats,
    get_identity_normalizer_from_stat,
    get_image_range_normalizer,
    get_max_abs_normalizer_from_stat,
    get_range_normalizer_from_stat,
)
from diffusion_policy.model.common.normalizer import LinearNormalizer

normalizer_from_stat = get_max_abs_normalizer_from_stat  # the original's name for it


class RobomimicReplayImageDataset(ReplayBufferDataset, BaseImageDataset):
    """Samples: `obs` with images `(To, 3, H, W)` and states `(To, D)` by key of `shape_meta`; `action` `(T, Da)`.

    Images are kept in memory as uint8 where they fit, else read from the cache for each batch.

    Args:
        shape_meta: which observations, see ShapeMeta.
        dataset_path: demonstrations in robomimic's layout (HDF5).
        n_obs_steps: steps To of a window of which observations are read; None for all T.
        abs_action: the stored actions are poses, `(7,)` or `(14,)` with axis-angles; they become `(10,)` or `(20,)`.
        rotation_rep: what stands for the rotations then, see AbsoluteActions.
        use_legacy_normalizer: scale absolute actions by their largest entry, as old checkpoints do.
        use_cache: keep what is read, images compressed (JPEG 2000), in `<dataset_path>.zarr.zip` for the next time.
            Without, images are read as stored, and have to fit into memory.
        in_memory: whether images are read into memory, or stay in the cache; "auto": if they fit.
        For the others see ReplayBufferDataset.
    """

    def __init__(
        self,
        shape_meta: Mapping[str, Any],
        dataset_path: str,
        horizon: int = 1,
        pad_before: int = 0,
        pad_after: int = 0,
        n_obs_steps: int | None = None,
        abs_action: bool = False,
        rotation_rep: str = "rotation_6d",
        use_legacy_normalizer: bool = False,
        use_cache: bool = False,
        seed: int = 42,
        val_ratio: float = 0.0,
        in_memory: InMemory = "auto",
    ) -> None:
        self.shape_meta = ShapeMeta.parse(shape_meta)
        self.abs_action = abs_action
        self.use_legacy_normalizer = use_legacy_normalizer
        self.first_steps = observed_steps(self.shape_meta.obs, n_obs_steps, horizon)
        for key in self.shape_meta.low_dim_keys:
            _low_dim_normalizer_of(key)  # complains of names that it does not know
        super().__init__(
            load_images_and_states(dataset_path, self.shape_meta, abs_action, rotation_rep, use_cache, in_memory),
            horizon=horizon,
            pad_before=pad_before,
            pad_after=pad_after,
            seed=seed,
            val_ratio=val_ratio,
            max_train_episodes=None,
        )

    def transform(self, windows: Mapping[str, Tensor]) -> dict[str, Any]:
        images = self.shape_meta.rgb_keys
        obs = {key: float_images(windows[key]) if key in images else windows[key] for key in self.shape_meta.obs}
        return {"obs": obs, "action": windows["action"]}

    def get_normalizer(self, mode: str = "limits", **kwargs: Any) -> LinearNormalizer:
        """Positions to [-1, 1], quaternions as they are, images from [0, 1] to [-1, 1], actions as
        `action_normalizer` says; no arguments matter."""
        normalizer = LinearNormalizer()
        stat = array_to_stats(self.replay_buffer["action"])
        normalizer["action"] = action_normalizer(stat, self.abs_action, self.use_legacy_normalizer)
        for key in self.shape_meta.low_dim_keys:
            normalizer[key] = _low_dim_normalizer_of(key)(array_to_stats(self.replay_buffer[key]))
        for key in self.shape_meta.rgb_keys:
            normalizer[key] = get_image_range_normalizer()
        return normalizer


def _low_dim_normalizer_of(key: str) -> Any:
    """What makes a normalizer of the statistics of an observation."""
    if key.endswith("quat"):
        return get_identity_normalizer_from_stat
    if key.endswith("pos"):
        return get_range_normalizer_from_stat
    raise ValueError(f"shape_meta.obs has {key!r}: expected names that end in 'pos', 'qpos' or 'quat'")
