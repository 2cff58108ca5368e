"""Push-T demonstrations as images and position of the agent."""

from collections.abc import Mapping
from contextlib import closing
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.common.shape_meta import ShapeMeta
from diffusion_policy.common.zarr_store import open_group
from diffusion_policy.dataset.base_dataset import BaseImageDataset
from diffusion_policy.dataset.data_checks import check_shape_meta
from diffusion_policy.dataset.image_loading import float_images
from diffusion_policy.dataset.replay_buffer_dataset import ReplayBufferDataset, download_hint, observed_steps
from diffusion_policy.dataset.zarr_loading import InMemory, load_zarr
from diffusion_policy.model.common.normalize_util import get_image_range_normalizer
from diffusion_policy.model.common.normalizer import LinearNormalizer

RENDERED_SIZE = 96  # px, that of the published images


class PushTImageDataset(ReplayBufferDataset, BaseImageDataset):
    """Samples: `obs` with `image` `(To, 3, H, W)` and `agent_pos` `(To, 2)` (px); `action` `(T, 2)` (px).

    Images are held as uint8; float32 in [0, 1] is what `transform` makes of a batch of them. Demonstrations without
    images get them drawn by the simulator, from their states, into memory.

    Args:
        zarr_path: folder, zip or URL of the demonstrations: `state` `(N, 5)`, `action` `(N, 2)` and, perhaps, `img`
            `(N, H, W, 3)`, of which every value is a whole number from 0 to 255.
        n_obs_steps: steps To of a window of which observations are read; None for all T.
        shape_meta: what the demonstrations have to be, see `check_shape_meta`; its `image` says how large images
            are drawn.
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
        n_obs_steps: int | None = None,
        shape_meta: Mapping[str, Any] | None = None,
        in_memory: InMemory = "auto",
    ) -> None:
        self.first_steps = observed_steps(["img", "state"], n_obs_steps, horizon)
        super().__init__(
            _load(zarr_path, None if shape_meta is None else ShapeMeta.parse(shape_meta), in_memory),
            horizon=horizon,
            pad_before=pad_before,
            pad_after=pad_after,
            seed=seed,
            val_ratio=val_ratio,
            max_train_episodes=max_train_episodes,
        )

    def transform(self, windows: Mapping[str, Tensor]) -> dict[str, Any]:
        obs = {"image": float_images(windows["img"]), "agent_pos": _agent_pos(windows["state"])}
        return {"obs": obs, "action": windows["action"].to(torch.float32)}

    def fitted_data(self) -> dict[str, Tensor]:
        state = torch.from_numpy(self.replay_buffer["state"])
        return {"action": self.get_all_actions(), "agent_pos": _agent_pos(state)}

    def get_normalizer(self, mode: str = "limits", **kwargs: Any) -> LinearNormalizer:
        """Positions fitted as `LinearNormalizer.fit` does, images from [0, 1] to [-1, 1]."""
        normalizer = super().get_normalizer(mode, **kwargs)
        normalizer["image"] = get_image_range_normalizer()
        return normalizer


def _agent_pos(state: Tensor) -> Tensor:
    return state[..., :2].to(torch.float32)


def _load(zarr_path: str, shape_meta: ShapeMeta | None, in_memory: InMemory) -> ReplayBuffer:
    """`img`, `state` and `action`."""
    with download_hint("pusht"):
        group = open_group(zarr_path)
    with closing(group.store):
        stored = ReplayBuffer(group)
        has_images = "img" in stored
        image_shape = stored["img"].shape[1:] if has_images else _rendered_shape(shape_meta)
        if shape_meta is not None:
            shapes = {"image": image_shape, "agent_pos": (2,), "action": stored["action"].shape[1:]}
            check_shape_meta(shape_meta, shapes, zarr_path)
    if has_images:
        return load_zarr(zarr_path, ["state", "action"], ["img"], in_memory)
    buffer = load_zarr(zarr_path, ["state", "action"], in_memory=True)
    data = {"img": _render(buffer["state"], size=image_shape[0]), **dict(buffer.items())}
    return ReplayBuffer({"data": data, "meta": {"episode_ends": buffer.episode_ends}})


def _rendered_shape(shape_meta: ShapeMeta | None) -> tuple[int, int, int]:
    """(H, W, 3) of the images that are drawn."""
    shape = None if shape_meta is None else shape_meta.obs.get("image")
    size = RENDERED_SIZE if shape is None else shape[-1]
    return size, size, 3


def _render(states: np.ndarray, size: int) -> NDArray[np.uint8]:
    # The simulator, with pygame and pymunk, is loaded only where it has to draw.
    from diffusion_policy.env.pusht.state_renderer import render_states

    return render_states(states, size)
