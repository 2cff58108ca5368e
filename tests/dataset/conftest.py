"""What the tests of datasets share: small demonstrations."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from diffusion_policy.common.replay_buffer import ReplayBuffer


@pytest.fixture(scope="session")
def few_episodes(repository: Path) -> list[dict[str, np.ndarray]]:
    """The beginnings of three of the demonstrations that ship with the repository: they have no images."""
    keys = ["state", "keypoint", "action"]
    buffer = ReplayBuffer.copy_from_path(str(repository / "assets" / "pusht_demo.zarr.zip"), keys=keys)
    lengths = (40, 25, 30)
    return [{key: value[:n] for key, value in buffer.get_episode(i).items()} for i, n in enumerate(lengths)]


@pytest.fixture
def write_demonstrations(tmp_path: Path) -> Callable[[list[dict[str, np.ndarray]]], str]:
    """Writes episodes to a zarr folder and returns its path."""

    def write(episodes: list[dict[str, np.ndarray]]) -> str:
        buffer = ReplayBuffer.create_empty_numpy()
        for episode in episodes:
            buffer.add_episode(episode)
        return str(buffer.save_to_path(str(tmp_path / "demonstrations.zarr")))

    return write
