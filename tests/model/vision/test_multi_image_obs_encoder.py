import pytest
import torch
from torch import nn

from diffusion_policy.model.vision.model_getter import get_resnet
from diffusion_policy.model.vision.multi_image_obs_encoder import MultiImageObsEncoder

SHAPE_META = {
    "obs": {
        "wrist": {"shape": [3, 32, 32], "type": "rgb"},
        "pos": {"shape": [2]},
        "front": {"shape": [3, 40, 48], "type": "rgb"},
        "arm": {"shape": [3]},
    },
    "action": {"shape": [2]},
}


class Mean(nn.Module):
    """Mean colour `(N, 3)`, and a weight to tell copies apart."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        self.seen = tuple(x.shape)
        return self.weight * x.mean(dim=(2, 3))


def _obs(n=2):
    torch.manual_seed(0)
    return {key: torch.rand(n, *value["shape"]) for key, value in SHAPE_META["obs"].items()}


def test_features_by_sorted_camera_then_sorted_sensor():
    encoder, obs = MultiImageObsEncoder(SHAPE_META, Mean()), _obs()
    expected = [obs["front"].mean((2, 3)), obs["wrist"].mean((2, 3)), obs["arm"], obs["pos"]]
    torch.testing.assert_close(encoder(obs), torch.cat(expected, dim=1))
    assert encoder.output_shape() == [11]


def test_images_only():
    encoder, obs = MultiImageObsEncoder(SHAPE_META, Mean(), use_state_input=False), _obs()
    del obs["arm"], obs["pos"]
    assert encoder(obs).shape == (2, 6)
    assert encoder.output_shape() == [6]
    sensors = {"obs": {"pos": {"shape": [2]}}, "action": {"shape": [2]}}
    with pytest.raises(ValueError, match="nothing to encode"):
        MultiImageObsEncoder(sensors, Mean(), use_state_input=False)


def test_each_camera_has_its_own_sizes_and_backbone():
    encoder = MultiImageObsEncoder(
        SHAPE_META,
        {"front": Mean(), "wrist": Mean()},
        resize_shape={"front": [20, 24], "wrist": [16, 16]},
        crop_shape={"front": [18, 20], "wrist": [12, 12]},
    )
    encoder(_obs())
    assert encoder.key_model_map["front"].seen == (2, 3, 18, 20)
    assert encoder.key_model_map["wrist"].seen == (2, 3, 12, 12)
    assert encoder.key_model_map["front"].weight is not encoder.key_model_map["wrist"].weight


def test_shared_backbone_sees_all_cameras_in_one_pass():
    model = Mean()
    encoder = MultiImageObsEncoder(SHAPE_META, model, resize_shape=[16, 16], share_rgb_model=True)
    encoder(_obs())
    assert model.seen == (4, 3, 16, 16)
    assert encoder.key_model_map["rgb"] is model
    with pytest.raises(ValueError, match=r"must have one shape.*front"):
        MultiImageObsEncoder(SHAPE_META, Mean(), share_rgb_model=True)(_obs())


def test_group_norm_replaces_batch_norm_in_every_copy():
    encoder = MultiImageObsEncoder(SHAPE_META, get_resnet("resnet18"), use_group_norm=True)
    norms = [m for m in encoder.modules() if isinstance(m, nn.GroupNorm)]
    assert len(norms) == 2 * 20
    assert {m.num_channels // m.num_groups for m in norms} == {16}
    assert not any(isinstance(m, nn.BatchNorm2d) for m in encoder.modules())


def test_asking_for_the_shape_does_not_move_statistics():
    encoder = MultiImageObsEncoder(SHAPE_META, get_resnet("resnet18"))
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    assert encoder.output_shape() == [512 + 512 + 5]
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"crop_shape": [36, 36]}, "camera 'wrist': a crop of 36 x 36 does not fit an image of 32 x 32"),
        ({"resize_shape": [20, 20], "crop_shape": [24, 24]}, "camera 'wrist': a crop of 24 x 24 .* of 20 x 20"),
        ({"resize_shape": {"wrist": [20, 20]}}, "resize_shape has no entry for camera 'front'"),
        ({"rgb_model": {"wrist": Mean()}}, "rgb_model has no entry for camera 'front'"),
        ({"rgb_model": {"wrist": Mean()}, "share_rgb_model": True}, "share_rgb_model=True needs one rgb_model"),
    ],
)
def test_bad_arguments_name_the_camera(kwargs, message):
    with pytest.raises(ValueError, match=message):
        MultiImageObsEncoder(SHAPE_META, **{"rgb_model": Mean(), **kwargs})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"front": None}, "lacks 'front'; it has"),
        (
            {"front": torch.zeros(2, 3, 48, 40)},
            r"'front' has the shape \(2, 3, 48, 40\), expected \(N, \*\(3, 40, 48\)",
        ),
        ({"pos": torch.zeros(2, 3)}, r"'pos' has the shape \(2, 3\)"),
    ],
)
def test_bad_observations_name_the_key(change, message):
    obs = {key: value for key, value in (_obs() | change).items() if value is not None}
    with pytest.raises((KeyError, ValueError), match=message):
        MultiImageObsEncoder(SHAPE_META, Mean())(obs)
