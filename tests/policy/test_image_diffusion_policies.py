"""U-Net and transformer policies on images against the fixtures; conditioning, and refusal of bad input."""

import diffusers
import pytest
import torch
from filled import filled_policy, observations, training_batch
from fixtures import load_fixture

from diffusion_policy.model.common.normalize_util import get_image_range_normalizer
from diffusion_policy.model.common.normalizer import LinearNormalizer
from diffusion_policy.model.vision.model_getter import get_resnet
from diffusion_policy.model.vision.multi_image_obs_encoder import MultiImageObsEncoder
from diffusion_policy.policy.diffusion_transformer_hybrid_image_policy import DiffusionTransformerHybridImagePolicy
from diffusion_policy.policy.diffusion_unet_hybrid_image_policy import DiffusionUnetHybridImagePolicy
from diffusion_policy.policy.diffusion_unet_image_policy import DiffusionUnetImagePolicy

FIXTURES = [
    *("i_image_separate_bn_resize_norandomcrop", "i_image_separate_bn_resize_norandomcrop_amp"),
    *("i_image_separate_gn_crop", "i_image_shared_gn_crop", "i_image_shared_gn_crop_amp"),
    *("j_hybrid_pusht_bn_nocrop", "j_hybrid_pusht_bn_nocrop_amp", "j_hybrid_pusht_gn_fixedcrop"),
    *("j_hybrid_pusht_gn_fixedcrop_amp", "j_hybrid_pusht_gn_robomimiccrop", "j_hybrid_pusht_inpaint"),
    *("k_tf_hybrid_cond", "k_tf_hybrid_inpaint"),
]
# Batch norm on two nearly equal images amplifies how resizing rounds, which depends on torchvision's version.
TRAINING_TOLERANCE = {name: 1e-3 for name in FIXTURES if "bn_resize" in name}


@pytest.mark.parametrize("scheduler", ["ddim4", "ddpm10"])
@pytest.mark.parametrize("name", FIXTURES)
def test_features_actions_and_losses_equal_fixture(compat, name, scheduler):
    fixture = load_fixture(compat, name)
    policy = filled_policy(fixture, scheduler)
    obs = observations(fixture, 5, fixture.meta["To"])
    for key, value in obs.items():
        stored = fixture.tensor(f"in/obs/{key}")
        torch.testing.assert_close(value, stored / 255 if stored.dtype == torch.uint8 else stored)

    torch.manual_seed(1234)
    result = policy.predict_action(obs)
    for key, value in fixture.tensors(f"out/{scheduler}/predict/").items():
        torch.testing.assert_close(result[key], value, rtol=0, atol=1e-5)
    if "robomimiccrop" not in name:  # its features depend on random crops
        flat = {key: policy.normalizer[key].normalize(value).flatten(0, 1) for key, value in obs.items()}
        features = policy.obs_encoder(flat)
        torch.testing.assert_close(features, fixture.tensor("out/obs_encoder_features"), rtol=0, atol=2e-6)

    batch = training_batch(fixture)
    for mode, seed, atol in (("eval", 99, 1e-5), ("train", 98, TRAINING_TOLERANCE.get(name, 1e-5))):
        policy.train(mode == "train")
        torch.manual_seed(seed)
        loss = policy.compute_loss(batch)
        torch.testing.assert_close(loss, fixture.tensor(f"out/{scheduler}/loss_{mode}_mode"), rtol=0, atol=atol)


SHAPE_META = {
    "obs": {
        "front": {"shape": [3, 72, 80], "type": "rgb"},
        "joints": {"shape": [3]},
        "wrist": {"shape": [3, 64, 64], "type": "rgb"},
    },
    "action": {"shape": [2]},
}
SMALL = {"horizon": 8, "n_action_steps": 4, "n_obs_steps": 2}
SMALL_UNET = {**SMALL, "down_dims": [8, 16], "diffusion_step_embed_dim": 8}
SMALL_TRANSFORMER = {**SMALL, "n_layer": 1, "n_head": 2, "n_emb": 8}


def _scheduler(**kwargs):
    return diffusers.DDIMScheduler(20, beta_schedule="squaredcos_cap_v2", **kwargs)


def _with_normalizer(policy, shape_meta=SHAPE_META):
    normalizer = LinearNormalizer()
    normalizer.fit({"action": 10 * torch.rand(20, 2), "joints": torch.rand(20, 3)})
    for key, attributes in shape_meta["obs"].items():
        if attributes.get("type") == "rgb":
            normalizer[key] = get_image_range_normalizer()
    policy.set_normalizer(normalizer)
    return policy.eval()


def _image_policy(scheduler=None, encoder=None, **kwargs):
    torch.manual_seed(0)
    settings = {"crop_shape": [40, 36], "use_group_norm": True, **(encoder or {})}
    obs_encoder = MultiImageObsEncoder(SHAPE_META, get_resnet("resnet18"), **settings)
    return _with_normalizer(
        DiffusionUnetImagePolicy(SHAPE_META, scheduler or _scheduler(), obs_encoder, **SMALL_UNET | kwargs)
    )


def _hybrid_policy(policy_class=DiffusionUnetHybridImagePolicy, shape_meta=SHAPE_META, scheduler=None, **kwargs):
    torch.manual_seed(0)
    small = SMALL_UNET if policy_class is DiffusionUnetHybridImagePolicy else SMALL_TRANSFORMER
    settings = {"crop_shape": [40, 36], "obs_encoder_group_norm": True, "eval_fixed_crop": True, **small, **kwargs}
    return _with_normalizer(policy_class(shape_meta, scheduler or _scheduler(), **settings), shape_meta)


def _transformer_policy(**kwargs):
    return _hybrid_policy(DiffusionTransformerHybridImagePolicy, **kwargs)


def _obs(n_steps=2, batch=3):
    torch.manual_seed(1)
    obs = {key: torch.rand(batch, n_steps, *value["shape"]) for key, value in SHAPE_META["obs"].items()}
    return obs | {"of_no_interest": torch.zeros(batch, 1)}


def _batch(n_steps, horizon=8):
    return {"obs": _obs(n_steps), "action": 10 * torch.rand(3, horizon, 2)}


@pytest.mark.parametrize("make", [_image_policy, _hybrid_policy, _transformer_policy])
def test_cameras_of_different_resolutions_and_gradients_to_every_weight(make):
    policy = make(num_inference_steps=2)
    result = policy.predict_action(_obs())
    assert result["action"].shape == (3, 4, 2)
    torch.testing.assert_close(result["action"], result["action_pred"][:, 1:5])
    policy.train().compute_loss(_batch(2)).backward()
    without = [
        name
        for name, p in policy.named_parameters()
        if p.requires_grad and p.numel() and p.grad is None and "normalizer" not in name
    ]
    assert without == []


@pytest.mark.parametrize(
    ("make", "inpainting"),
    [
        (_image_policy, {"obs_as_global_cond": False}),
        (_hybrid_policy, {"obs_as_global_cond": False}),
        (_transformer_policy, {"obs_as_cond": False}),
    ],
)
def test_inpainting_needs_the_features_of_whole_windows_in_training(make, inpainting):
    policy = make(num_inference_steps=2, **inpainting)
    assert policy.predict_action(_obs())["action"].shape == (3, 4, 2)
    assert policy.train().compute_loss(_batch(8)).isfinite()
    with pytest.raises(ValueError, match=r"'front' has the shape .* at least 8 steps.*dataset_obs_steps"):
        policy.compute_loss(_batch(2))


def test_actions_only_prediction_of_the_transformer():
    policy = _transformer_policy(num_inference_steps=2, pred_action_steps_only=True)
    result = policy.predict_action(_obs())
    assert result["action"].shape == (3, 4, 2)
    assert torch.equal(result["action"], result["action_pred"])
    assert policy.train().compute_loss(_batch(2)).isfinite()


@pytest.mark.parametrize("make", [_image_policy, _hybrid_policy])
def test_actions_of_a_row_do_not_depend_on_the_batch(make):
    policy, obs = make(num_inference_steps=3), _obs()

    def predict(rows):
        generators = [torch.Generator().manual_seed(row) for row in rows]
        return policy.predict_action({key: value[rows] for key, value in obs.items()}, generators)["action"]

    torch.testing.assert_close(predict([2, 0]), predict([0, 1, 2])[[2, 0]], rtol=1e-5, atol=1e-4)


def test_training_crops_at_random_and_evaluation_does_not():
    policy, obs = _hybrid_policy(), _obs()

    def condition(seed):
        torch.manual_seed(seed)
        return policy._observe(obs, 2).model_kwargs["global_cond"]

    policy.train()
    assert torch.equal(condition(0), condition(0))
    assert not torch.allclose(condition(0), condition(1))
    policy.eval()
    assert torch.equal(condition(0), condition(1))


@pytest.mark.parametrize("make", [_image_policy, _hybrid_policy, _transformer_policy])
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("name", ["DDPM", "DDIM", "DPMSolverMultistep"])
def test_every_scheduler_and_prediction_type(make, prediction_type, name):
    scheduler = getattr(diffusers, f"{name}Scheduler")(
        num_train_timesteps=20, beta_schedule="squaredcos_cap_v2", prediction_type=prediction_type
    )
    policy = make(scheduler=scheduler, num_inference_steps=20 if name == "DDPM" else 4)
    assert policy.predict_action(_obs())["action"].isfinite().all()
    assert policy.compute_loss(_batch(2)).isfinite()


@pytest.mark.parametrize("make", [_hybrid_policy, _transformer_policy])
def test_crop_larger_than_a_camera_is_refused(make):
    with pytest.raises(ValueError, match="camera 'wrist': a crop of 68 x 36 does not fit an image of 64 x 64"):
        make(crop_shape=[68, 36])
    with pytest.raises(ValueError, match="camera 'front': a crop of 73 x 28 does not fit"):
        _image_policy(encoder={"crop_shape": {"front": [73, 28], "wrist": [40, 36]}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"front": None}, "lacks 'front'"),
        ({"wrist": torch.zeros(3, 2, 3, 40, 40)}, r"'wrist' has the shape \(3, 2, 3, 40, 40\), expected .* 3, 64, 64"),
        ({"joints": torch.zeros(3, 1, 3)}, r"'joints' has the shape \(3, 1, 3\), expected \(batch, at least 2 steps"),
        ({"past_action": torch.zeros(3, 1, 2)}, "no past_action"),
    ],
)
def test_bad_observations_are_refused(change, message):
    obs = {key: value for key, value in (_obs() | change).items() if value is not None}
    with pytest.raises((ValueError, KeyError), match=message):
        _hybrid_policy().predict_action(obs)


def test_unknown_arguments_are_refused():
    with pytest.raises(TypeError, match="unknown argument etta"):
        _hybrid_policy(etta=0.1)
