import json

import pytest
import torch

from diffusion_policy.model.vision.crop_randomizer import CropRandomizer, crop_image_from_indices


def test_crops_equal_the_originals(compat):
    images = torch.arange(2 * 3 * 6 * 7).float().reshape(2, 3, 6, 7)
    checked = 0
    for case in json.loads((compat / "numerics" / "misc.json").read_text())["CropRandomizer"]:
        if case["kwargs"].keys() - {"input_shape", "crop_height", "crop_width"}:
            continue  # several crops and positional channels, which no policy uses
        randomizer = CropRandomizer(**case["kwargs"]).train(case["training"])
        torch.manual_seed(case["seed"])
        crops = randomizer(images)
        assert list(crops.shape) == case["out_shape"]
        assert crops[:, 0, 0, 0].tolist() == case["out_top_left"]
        assert crops.sum().item() == case["out_sum"]
        assert randomizer.output_shape_in() == case["output_shape_in"]
        checked += 1
    assert checked >= 2


def test_each_image_is_cropped_at_its_own_place():
    images = torch.rand(4, 2, 3, 20, 30)
    places = torch.randint(0, 8, (4, 2, 2))
    crops = crop_image_from_indices(images, places, 12, 9)
    for i in range(4):
        for j in range(2):
            top, left = places[i, j]
            assert torch.equal(crops[i, j], images[i, j, :, top : top + 12, left : left + 9])


def test_random_crops_cover_the_image_and_evaluation_takes_the_middle():
    images = torch.arange(10.0).expand(1000, 1, 10, 10)
    randomizer = CropRandomizer((1, 10, 10), 8, 6)
    assert set(randomizer(images)[:, 0, 0, 0].tolist()) == {0, 1, 2, 3}  # the last of five offsets is never drawn
    randomizer.eval()
    assert set(randomizer(images)[:, 0, 0, 0].tolist()) == {2}
    always = CropRandomizer((1, 10, 10), 8, 6, random_in_eval=True).eval()
    assert len(set(always(images)[:, 0, 0, 0].tolist())) == 4
    assert torch.equal(CropRandomizer((1, 10, 10), 10, 10)(images), images)


@pytest.mark.parametrize("size", [(11, 5), (5, 11), (0, 5)])
def test_crops_that_do_not_fit_are_refused(size):
    with pytest.raises(ValueError, match=f"a crop of {size[0]} x {size[1]} does not fit an image of 10 x 10"):
        CropRandomizer((3, 10, 10), *size)


def test_other_images_are_refused():
    with pytest.raises(ValueError, match=r"got images \(3, 9, 10\), expected \(3, 10, 10\)"):
        CropRandomizer((3, 10, 10), 8, 8)(torch.zeros(2, 3, 9, 10))
