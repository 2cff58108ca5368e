"""Policies of the fixtures whose weights follow a rule instead of being stored."""

import diffusers
import hydra
import numpy as np
import torch

from diffusion_policy.model.common.normalizer import LinearNormalizer
from diffusion_policy.model.vision.model_getter import get_resnet


def filled_policy(fixture, scheduler_name):
    """The policy of a fixture with the weights of its rule and its normalizer, in evaluation mode."""
    meta = fixture.meta
    scheduler = meta["schedulers"][scheduler_name]
    kwargs = dict(meta["policy_kwargs"])
    if "obs_encoder_class" in meta:
        encoder_class = hydra.utils.get_class(meta["obs_encoder_class"])
        kwargs["obs_encoder"] = encoder_class(meta["shape_meta"], get_resnet("resnet18"), **meta["obs_encoder_kwargs"])
    policy = hydra.utils.get_class(meta["policy_class"])(
        meta["shape_meta"],
        getattr(diffusers, scheduler["class"])(**scheduler["kwargs"]),
        num_inference_steps=scheduler["num_inference_steps"],
        **kwargs,
    )
    return _prepared(policy, fixture)


def filled_baseline(fixture):
    """The policy of a fixture that denoises nothing, likewise."""
    meta = fixture.meta
    shape_meta = {"shape_meta": meta["shape_meta"]} if "shape_meta" in meta else {}
    return _prepared(hydra.utils.get_class(meta["policy_class"])(**shape_meta, **meta["policy_kwargs"]), fixture)


def fixture_normalizer(fixture):
    """The normalizer of a fixture."""
    normalizer = LinearNormalizer()
    normalizer.load_state_dict(fixture.tensors("in/normalizer/"))
    return normalizer


def _prepared(policy, fixture):
    _fill(policy, fixture.meta["fill"], fixture.meta.get("amp", {"default": 0.02}))
    policy.set_normalizer(fixture_normalizer(fixture))
    return policy.eval()


@torch.no_grad()
def _fill(policy, rule, amplitudes):
    state = policy.state_dict()
    assert state.keys() == rule.keys()
    shared = {}
    for key, (i, kind) in rule.items():
        value = state[key]
        if kind == "sin":
            amplitude = next((a for part, a in amplitudes.items() if part in key), amplitudes["default"])
            wave = amplitude * np.sin(np.arange(value.numel()) * 0.37 + i)
            value.copy_(torch.from_numpy(wave.astype(np.float32)).reshape(value.shape))
        elif kind in ("ones", "zeros"):
            value.fill_(kind == "ones")
        elif kind.startswith("alias_of:"):
            shared[key] = kind.removeprefix("alias_of:")
        else:
            assert kind in ("keep", "empty")
    for key, other in shared.items():
        assert state[key].data_ptr() == state[other].data_ptr()


def observations(fixture, seed, n_steps):
    """The observations `(B, n_steps, ...)` that the fixtures' rule draws."""
    rng, batch = np.random.default_rng(seed), fixture.meta["B"]
    obs = {}
    for key, attributes in fixture.meta["shape_meta"]["obs"].items():
        shape = (batch, n_steps, *attributes["shape"])
        is_image = attributes["type"] == "rgb"
        values = rng.integers(0, 256, shape) / 255 if is_image else rng.uniform(0, 500, shape)
        obs[key] = torch.from_numpy(values.astype(np.float32))
    return obs


def training_batch(fixture):
    """The batch that the fixtures' losses are of."""
    n_steps, action_dim = fixture.meta["T"], fixture.meta["shape_meta"]["action"]["shape"][0]
    action = np.random.default_rng(7).uniform(-2, 5, (fixture.meta["B"], n_steps, action_dim))
    return {"obs": observations(fixture, 6, n_steps), "action": torch.from_numpy(action.astype(np.float32))}
