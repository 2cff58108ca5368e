"""Simple policies for Push-T; a subclass says where an observation has block and agent."""

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

Obs = dict[str, Tensor]


class Pusher(ABC):
    """Pushes through the middle of the block, with noise, and remembers what it has seen."""

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self) -> None:
        self.seen: list[Obs] = []

    @abstractmethod
    def block_and_agent(self, obs: Obs) -> tuple[Tensor, Tensor]:
        """Positions `(B, 2)` of the block and of the agent now, px."""

    def reset(self) -> None:  # noqa: B027 - there is nothing to forget
        pass

    def predict_action(self, obs_dict: Obs, generator: list[torch.Generator] | None = None) -> Obs:
        assert generator is not None
        self.seen.append(obs_dict)
        block, agent = self.block_and_agent(obs_dict)
        noise = torch.stack([torch.randn(8, 2, generator=g) for g in generator])
        return {"action": (block + (block - agent) / 2)[:, None] + 20 * noise}


class KeypointsPusher(Pusher):
    """Knows the block's keypoints."""

    def block_and_agent(self, obs: Obs) -> tuple[Tensor, Tensor]:
        now = obs["obs"][:, -1]
        return now[:, :18].reshape(-1, 9, 2).mean(1), now[:, -2:]


class ImagePusher(Pusher):
    """Finds the block by its colour."""

    def block_and_agent(self, obs: Obs) -> tuple[Tensor, Tensor]:
        image = obs["image"][:, -1]
        slate_gray = torch.tensor([119, 136, 153])[:, None, None] / 255
        is_block = ((image - slate_gray).abs().amax(1) < 0.15).float()
        pixels = torch.linspace(0, 512, image.shape[-1])
        where = torch.stack([(is_block.sum(1) * pixels).sum(1), (is_block.sum(2) * pixels).sum(1)], dim=1)
        return where / is_block.sum((1, 2))[:, None], obs["agent_pos"][:, -1]


class Replay:
    """Takes the given actions `(T, 2)`, five at a time, in all episodes."""

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, actions: np.ndarray) -> None:
        self.seen: list[Obs] = []
        self.actions = torch.from_numpy(actions)

    def reset(self) -> None:
        pass

    def predict_action(self, obs_dict: Obs, generator: list[torch.Generator] | None = None) -> Obs:
        chunk = self.actions[5 * len(self.seen) :][:5]
        self.seen.append(obs_dict)
        return {"action": chunk.expand(len(next(iter(obs_dict.values()))), -1, -1)}
