"""What the tests of the kitchen share: one environment, as loading its model takes a second."""

from collections.abc import Iterator

import pytest

from diffusion_policy.env.kitchen.v0 import KitchenAllV0


@pytest.fixture(scope="session")
def kitchen() -> Iterator[KitchenAllV0]:
    env = KitchenAllV0(robot_noise_ratio=0.0)
    yield env
    env.close()
