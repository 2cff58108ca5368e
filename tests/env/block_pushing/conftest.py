"""What the tests of block pushing share: a simulation that ends with the test."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("pybullet", reason="block pushing needs pybullet (pip install 'diffusion_policy[sim]')")

from diffusion_policy.env.block_pushing.block_pushing_multimodal import BlockPushMultimodal


@pytest.fixture
def make_env() -> Iterator[Callable[..., Any]]:
    """Makes a BlockPushMultimodal, or an env of the class given."""
    envs: list[Any] = []

    def make(env_class: Callable[..., Any] = BlockPushMultimodal, **kwargs: Any) -> Any:
        envs.append(env_class(**kwargs))
        return envs[-1]

    yield make
    for env in envs:
        env.close()
