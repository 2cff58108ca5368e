"""How rollouts begin and what comes of them."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from diffusion_policy.gym_util.multistep_wrapper import MultiStepWrapper


@dataclass(frozen=True)
class Episode:
    """How one rollout begins.

    Attributes:
        prefix: 'train/' or 'test/', what its log keys begin with.
        seed: the environment is reset with it.
        record: whether to write a video.
        init: called in the worker, with the MultiStepWrapper, before the reset. It travels by cloudpickle:
            nest it in a function, so that the worker does not import the module where it stands.
    """

    prefix: str
    seed: int
    record: bool = False
    init: Callable[[MultiStepWrapper], Any] | None = None

    def __str__(self) -> str:
        return f"{self.prefix.rstrip('/')} episode with seed {self.seed}"

    def generator(self, sampling_seed: int) -> torch.Generator:
        """The policy's randomness in this episode, whichever others run beside it."""
        key = f"{sampling_seed} {self.prefix} {self.seed}"
        digest = hashlib.sha256(key.encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))


@dataclass(frozen=True)
class Rollout:
    """What came of an episode.

    Attributes:
        rewards: `(steps,)`.
        terminated: whether the environment ended it, rather than the time limit.
        infos: last values of each info.
        video_path: None if there is no video.
    """

    episode: Episode
    rewards: np.ndarray
    terminated: bool
    infos: dict[str, list[Any]]
    video_path: str | None


def train_test_episodes(
    n_train: int,
    n_train_vis: int,
    train_start_seed: int,
    n_test: int,
    n_test_vis: int,
    test_start_seed: int,
) -> list[Episode]:
    """Training episodes, then test episodes, with consecutive seeds; the first `n_*_vis` are recorded."""
    train = [Episode("train/", train_start_seed + i, record=i < n_train_vis) for i in range(n_train)]
    test = [Episode("test/", test_start_seed + i, record=i < n_test_vis) for i in range(n_test)]
    return train + test
