import json

import pytest
import torch

from diffusion_policy.model.diffusion.mask_generator import LowdimMaskGenerator


def test_masks_equal_fixture(compat):
    cases = json.loads((compat / "numerics" / "misc.json").read_text())["LowdimMaskGenerator"]
    assert cases
    for case in cases:
        mask = LowdimMaskGenerator(**case["kwargs"])(case["shape"], seed=case["seed"])
        assert mask.dtype == torch.bool
        assert mask.int().tolist() == case["mask"]


def test_unseeded_masks_differ_and_wrong_width_is_refused():
    generator = LowdimMaskGenerator(action_dim=1, obs_dim=1, max_n_obs_steps=8, fix_obs_steps=False)
    torch.manual_seed(0)
    assert not torch.equal(generator((16, 8, 2)), generator((16, 8, 2)))
    with pytest.raises(ValueError, match="3 channels, expected 1 \\+ 1"):
        generator((4, 8, 3))
