import sys

import numpy as np
import pytest

from diffusion_policy.env.pusht.pusht_env import PushTEnv
from diffusion_policy.env.pusht.state_renderer import render_states

TOUCHING = [256, 250, 256, 256, 0]
APART = [100, 100, 300, 300, 1]


@pytest.mark.parametrize("episode", [0, 3, 43, 50, 186])  # 43, 50 and 186 begin in contact
def test_images_equal_those_published(demonstrations, episode):
    start, end = demonstrations.bounds[episode]
    images = render_states(demonstrations.data["state"][start:end])
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, demonstrations.images[start:end])


def test_an_image_does_not_depend_on_the_states_before():
    alone = [render_states([state])[0] for state in (TOUCHING, APART)]
    together = render_states([TOUCHING, APART, TOUCHING, TOUCHING, APART])
    for image, which in zip(together, [0, 1, 0, 0, 1], strict=True):
        np.testing.assert_array_equal(image, alone[which])


def test_it_is_what_the_simulator_shows_in_that_state():
    env = PushTEnv(reset_to_state=APART, render_size=64)
    env.reset(seed=0)
    np.testing.assert_array_equal(render_states([APART], size=64)[0], env.render())


def test_processes_share_the_work():
    states = np.random.default_rng(0).uniform(100, 400, (301, 5))
    expected = render_states(states, size=32, n_processes=1)
    np.testing.assert_array_equal(render_states(states, size=32, n_processes=2), expected)


def test_a_process_that_ends_early_is_an_error(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="ended with exit status 1 after 0 of"):
        render_states([APART] * 4, n_processes=2)


def test_no_states():
    assert render_states(np.empty((0, 5))).shape == (0, 96, 96, 3)


def test_bad_states():
    with pytest.raises(ValueError, match=r"shape \(2, 4\), expected \(N, 5\)"):
        render_states(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="as state 1, expected finite"):
        render_states([APART, [1, 2, np.nan, 4, 5]])
