"""What the tests of serving share."""

import pytest
from tiny_policies import image_config, write_policy


@pytest.fixture(scope="session")
def image_checkpoint(tmp_path_factory):
    """A policy that sees one step of two cameras and a position."""
    return write_policy(tmp_path_factory.mktemp("serving") / "one_step.ckpt", image_config())


@pytest.fixture(scope="session")
def stacked_checkpoint(tmp_path_factory):
    """The same that sees two steps."""
    return write_policy(tmp_path_factory.mktemp("serving") / "two_steps.ckpt", image_config(n_obs_steps=2))
