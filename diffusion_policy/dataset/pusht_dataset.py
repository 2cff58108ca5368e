"""Push-T demonstrations as keypoints of the block and position of the agent."""

from collections.abc import Mapping

import torch
from torch import Tensor

from diffusion_policy.dataset.base_dataset import BaseLowdimDataset
from diffusion_policy.dataset.replay_buffer_dataset import ReplayBufferDataset, download_hint
from diffusion_policy.dataset.zarr_loading import InMemory, load_zarr


class PushTLowdimDataset(ReplayBufferDataset, BaseLowdimDataset):
    """`obs` is 9 keypoints and the agent's position (20 numbers, px), `action` the agent's target (2, px).

    Args:
        zarr_path: folder, zip or URL of the demonstrations.
        obs_key: array of keypoints, `(N, 9, 2)`.
        state_key: array whose first two columns are the agent's position.
        action_key: array of actions, `(N, 2)`.
        in_memory: whether the arrays are read into memory, or stay where they are; "auto": if they fit.
        For the others see ReplayBufferDataset.
    """

    def __init__(
        self,
        zarr_path: str,
        horizon: int = 1,
        pad_before: int = 0,
        pad_after: int = 0,
        obs_key: str = "keypoint",
        state_key: str = "state",
        action_key: str = "action",
        seed: int = 42,
        val_ratio: float = 0.0,
        max_train_episodes: int | None = None,
        in_memory: InMemory = "auto",
    ) -> None:
        self.obs_key, self.state_key, self.action_key = obs_key, state_key, action_key
        with download_hint("pusht"):
            replay_buffer = load_zarr(zarr_path, [obs_key, state_key, action_key], in_memory=in_memory)
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
        keypoints = windows[self.obs_key].flatten(-2)
        agent = windows[self.state_key][..., :2]
        return {"obs": torch.cat((keypoints, agent), dim=-1), "action": windows[self.action_key]}
