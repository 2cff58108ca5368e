import torch
from fixtures import load_fixture

from diffusion_policy.model.common.normalize_util import get_image_range_normalizer


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
