"""The policy on clips: what it sees, what it is told, and that it learns from the order of frames."""

import diffusers
import pytest
import torch

from diffusion_policy.model.common.normalize_util import get_image_range_normalizer
from diffusion_policy.model.common.normalizer import LinearNormalizer
from diffusion_policy.model.vision.video_core import VideoCore, VideoResNet
from diffusion_policy.policy.diffusion_unet_video_policy import DiffusionUnetVideoPolicy

SHAPE_META = {
    "obs": {
        "front": {"shape": [3, 24, 32], "type": "rgb"},
        "joints": {"shape": [3]},
        "wrist": {"shape": [3, 16, 16], "type": "rgb"},
        "gripper": {"shape": [1], "type": "low_dim"},
    },
    "action": {"shape": [2]},
}


def _policy(shape_meta=SHAPE_META, **kwargs):
    torch.manual_seed(0)
    settings = {"horizon": 8, "n_action_steps": 4, "n_obs_steps": 4, "down_dims": [8, 16], "ta_n_groups": 1}
    net = VideoCore(VideoResNet(model_depth=18), torch.nn.AdaptiveAvgPool3d(1))
    scheduler = diffusers.DDIMScheduler(20, beta_schedule="squaredcos_cap_v2")
    policy = DiffusionUnetVideoPolicy(
        shape_meta, scheduler, net, diffusion_step_embed_dim=8, num_inference_steps=2, **settings | kwargs
    )
    normalizer = LinearNormalizer()
    normalizer.fit({"action": torch.rand(20, 2), "joints": torch.rand(20, 3), "gripper": torch.rand(20, 1)})
    for key in ("front", "wrist"):
        normalizer[key] = get_image_range_normalizer()
    policy.set_normalizer(normalizer)
    return policy.eval()


def _obs(n_steps=4, batch=2):
    torch.manual_seed(1)
    return {key: torch.rand(batch, n_steps, *value["shape"]) for key, value in SHAPE_META["obs"].items()}


@pytest.mark.parametrize("lowdim_as_global_cond", [True, False])
def test_trains_and_acts(lowdim_as_global_cond):
    policy = _policy(lowdim_as_global_cond=lowdim_as_global_cond)
    result = policy.predict_action(_obs())
    assert result["action"].shape == (2, 4, 2)
    # As with the other policies the current step, the last observed one, is the first that is executed.
    torch.testing.assert_close(result["action"], result["action_pred"][:, 3:7])
    batch = {"obs": _obs(n_steps=8), "action": torch.rand(2, 8, 2)}
    policy.train().compute_loss(batch).backward()
    for name, parameter in policy.named_parameters():
        if parameter.requires_grad and parameter.numel():
            assert parameter.grad is not None, name


def test_actions_depend_on_every_frame_of_every_camera_and_on_their_order():
    policy, obs = _policy(), _obs()

    def condition(**changed):
        return policy._observe(obs | changed, 4).model_kwargs["global_cond"]

    before = condition()
    for key in SHAPE_META["obs"]:
        for step in range(4):
            value = obs[key].clone()
            value[:, step] = 1 - value[:, step]
            assert not torch.allclose(condition(**{key: value}), before, atol=1e-6), (key, step)
    assert not torch.allclose(condition(front=obs["front"].flip(1)), before, atol=1e-6)


def test_cameras_alone():
    obs = {key: value for key, value in SHAPE_META["obs"].items() if value.get("type") == "rgb"}
    policy = _policy({**SHAPE_META, "obs": obs})
    assert policy.predict_action(_obs())["action"].shape == (2, 4, 2)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"shape_meta": {"obs": {"joints": {"shape": [3]}}, "action": {"shape": [2]}}}, "has no camera"),
        ({"ta_n_groups": 3}, "3 groups do not divide 4 channels"),
    ],
)
def test_bad_arguments_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        _policy(**kwargs)
    with pytest.raises(ValueError, match="model_depth must be one of"):
        VideoResNet(model_depth=12)
