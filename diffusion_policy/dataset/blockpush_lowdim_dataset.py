"""Block pushing demonstrations as poses of blocks, effector and targets."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from diffusion_policy.dataset.lowdim_dataset import ObsActionDataset, check_dims
from diffusion_policy.dataset.zarr_loading import InMemory, load_zarr
from diffusion_policy.model.common.normalizer import LinearNormalizer, SingleFieldLinearNormalizer

OBS_DIM, ACTION_DIM = 16, 2
EEF_TARGET = slice(8, 10)
"""Columns of the observation where the effector is driven to."""
X, Y, ANGLE = [0, 3, 6, 8, 10, 13], [1, 4, 7, 9, 11, 14], [2, 5, 12, 15]
"""Columns of x, of y and of angles."""


class BlockPushLowdimDataset(ObsActionDataset):
    """`obs` (16): x, y, angle of both blocks, x, y of the effector and of its target, x, y, angle of both targets.

    `action` (2) is how far the effector's target moves, or in the `_abs` data where to (m).

    Args:
        zarr_path: folder, zip or URL of the demonstrations.
        obs_key: array of observations, `(N, 16)`.
        action_key: array of actions, `(N, 2)`.
        obs_eef_target: without, the effector's target reads 0 in observations.
        use_manual_normalizer: one scale for all x, one for all y and one for all angles, so that distances between
            things are kept; else one for each number.
        in_memory: whether the arrays are read into memory, or stay where they are; "auto": if they fit.
        For the others see ReplayBufferDataset.
    """

    def __init__(
        self,
        zarr_path: str,
        horizon: int = 1,
        pad_before: int = 0,
        pad_after: int = 0,
        obs_key: str = "obs",
        action_key: str = "action",
        obs_eef_target: bool = True,
        use_manual_normalizer: bool = False,
        seed: int = 42,
        val_ratio: float = 0.0,
        max_train_episodes: int | None = None,
        in_memory: InMemory = "auto",
    ) -> None:
        self.obs_keys, self.action_key = [obs_key], action_key
        self.obs_eef_target = obs_eef_target
        self.use_manual_normalizer = use_manual_normalizer
        try:
            replay_buffer = load_zarr(zarr_path, [obs_key, action_key], in_memory=in_memory)
        except FileNotFoundError as error:
            error.add_note(
                "To make some: python -m diffusion_policy.scripts.generate_bet_blockpush -o PATH, with --abs_action "
                "for the _abs task. To convert those of Behavior Transformers: scripts.bet_blockpush_conversion."
            )
            raise
        steps = {"obs": replay_buffer[obs_key][:1][0], "action": replay_buffer[action_key][:1][0]}
        check_dims(zarr_path, steps, obs=OBS_DIM, action=ACTION_DIM)
        super().__init__(
            replay_buffer,
            horizon=horizon,
            pad_before=pad_before,
            pad_after=pad_after,
            seed=seed,
            val_ratio=val_ratio,
            max_train_episodes=max_train_episodes,
        )

    def transform(self, windows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        sample = super().transform(windows)
        if not self.obs_eef_target:
            sample["obs"][..., EEF_TARGET] = 0
        return sample

    def get_normalizer(self, mode: str = "limits", **kwargs: Any) -> LinearNormalizer:
        """Fitted on all the data; arguments as for `LinearNormalizer.fit`, of no effect on a manual one's `obs`."""
        normalizer = super().get_normalizer(mode=mode, **kwargs)
        if self.use_manual_normalizer:
            normalizer["obs"] = _shared_scales(normalizer["obs"])
        return normalizer


def _shared_scales(fitted: SingleFieldLinearNormalizer) -> SingleFieldLinearNormalizer:
    """Maps what all x, all y and all angles span together to [-1, 1]."""
    stats = {key: value.detach().clone() for key, value in fitted.get_input_stats().items()}
    scale, offset = torch.empty_like(stats["min"]), torch.empty_like(stats["min"])
    for columns in (X, Y, ANGLE):
        low, high = stats["min"][columns].min(), stats["max"][columns].max()
        scale[columns] = 2 / (high - low)
        offset[columns] = -(high + low) / (high - low)
    return SingleFieldLinearNormalizer.create_manual(scale=scale, offset=offset, input_stats_dict=stats)
