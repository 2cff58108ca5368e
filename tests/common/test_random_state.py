import io
import random

import numpy as np
import torch

from diffusion_policy.common.random_state import get_random_state, seed_everything, set_random_state


def _draw():
    return random.random(), random.gauss(0, 1), np.random.normal(), np.random.randint(1 << 30), torch.randn(5).tolist()


def test_state_survives_a_checkpoint():
    seed_everything(3)
    _draw()
    file = io.BytesIO()
    torch.save(get_random_state(), file)
    expected = _draw(), _draw()
    seed_everything(4)
    file.seek(0)
    set_random_state(torch.load(file, weights_only=True))
    assert (_draw(), _draw()) == expected
