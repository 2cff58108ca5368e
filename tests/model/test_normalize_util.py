import numpy as np
import pytest
import torch
from fixtures import load_fixture

from diffusion_policy.model.common import normalize_util
from diffusion_policy.model.common.normalize_util import get_image_range_normalizer
from diffusion_policy.model.common.rotation_transformer import RotationTransformer


def test_images_are_normalized_as_in_the_original(compat):
    fixture = load_fixture(compat, "e_normalize_util")
    normalizer = get_image_range_normalizer()
    expected = fixture.tensors("out/get_image_range_normalizer/state/")
    assert normalizer.state_dict().keys() == expected.keys()
    for key, value in normalizer.state_dict().items():
        torch.testing.assert_close(value, expected[key])
    normalized = normalizer.normalize(fixture.tensor("in/img"))
    torch.testing.assert_close(normalized, fixture.tensor("out/get_image_range_normalizer/normalized"))


def test_range():
    images = torch.tensor([0.0, 0.5, 1.0]).reshape(1, 3, 1, 1)
    assert get_image_range_normalizer().normalize(images).flatten().tolist() == [-1, 0, 1]


FUNCTIONS = [
    (normalize_util.robomimic_abs_action_only_normalizer_from_stat, "a10_rot6d", "a10_rot6d", ()),
    (normalize_util.robomimic_abs_action_only_dual_arm_normalizer_from_stat, "a20_dual_rot6d", "a20_dual_rot6d", ()),
    (normalize_util.robomimic_abs_action_normalizer_from_stat, "a7_axis_angle", "a10_rot6d", (RotationTransformer(),)),
    (normalize_util.get_range_normalizer_from_stat, "pos3", "pos3", ()),
    (normalize_util.get_identity_normalizer_from_stat, "a14", "a14", ()),
    (normalize_util.get_max_abs_normalizer_from_stat, "a14", "a14", ()),
]


@pytest.mark.parametrize(("function", "fitted_on", "normalized", "arguments"), FUNCTIONS)
def test_normalizers_of_statistics_equal_the_originals(compat, function, fitted_on, normalized, arguments):
    fixture = load_fixture(compat, "e_normalize_util")
    original = {"get_max_abs_normalizer_from_stat": "robomimic_dataset_normalizer_from_stat"}
    prefix = f"out/{original.get(function.__name__, function.__name__)}"
    stat = normalize_util.array_to_stats(fixture.arrays[f"in/{fitted_on}"])
    normalizer = function(stat, *arguments)
    for key, expected in fixture.tensors(f"{prefix}/state/").items():
        torch.testing.assert_close(normalizer.state_dict()[key], expected, atol=1e-6, rtol=1e-5)
    expected = fixture.tensor(f"{prefix}/normalized")
    torch.testing.assert_close(normalizer(fixture.arrays[f"in/{normalized}"]), expected, atol=1e-6, rtol=1e-5)


def test_statistics_equal_the_originals(compat):
    fixture = load_fixture(compat, "e_normalize_util")
    for key, value in normalize_util.array_to_stats(fixture.arrays["in/a7_axis_angle"]).items():
        np.testing.assert_allclose(value, fixture.arrays[f"out/array_to_stats_a7/{key}"], rtol=1e-5)
