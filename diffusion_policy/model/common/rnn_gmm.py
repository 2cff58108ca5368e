"""robomimic's recurrent network with a mixture of Gaussians, in the settings of its paper (Mandlekar et al. 2021)."""

import copy
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_policy.common.pytorch_util import dict_apply
from diffusion_policy.common.shape_meta import ShapeMeta
from diffusion_policy.model.common.gaussian_mixture import GaussianMixture
from diffusion_policy.model.vision.robomimic_obs_encoder import (
    VISUAL_CORE,
    make_crops,
    quiet_robomimic,
    tell_modalities,
)

RNN_HORIZON = 10
"""Steps after which the network forgets all, as it is trained on windows of so many."""
HIDDEN_DIMS = {"low_dim": 400, "image": 1000}
LOW_NOISE = 1e-4
"""Standard deviation of every Gaussian in evaluation: the action is nearly the mean of one that is drawn."""
SETTINGS: dict[str, Any] = {
    "mlp_layer_dims": (),
    "rnn_num_layers": 2,
    "rnn_type": "LSTM",
    "rnn_kwargs": {"bidirectional": False},
    "num_modes": 5,
    "min_std": 0.0001,
    "std_activation": "softplus",
    "low_noise_eval": True,
}

State = tuple[Tensor, Tensor]


def make_rnn_gmm(shape_meta: ShapeMeta, obs_type: str, crop_shape: Sequence[int] | None = None) -> nn.Module:
    """Builds robomimic's `RNNGMMActorNetwork`.

    Args:
        shape_meta: cameras, sensors and action.
        obs_type: "low_dim" or "image", on which the size of the network depends.
        crop_shape: height and width of the crops of each camera; None for whole images.

    Raises:
        ValueError: for another `obs_type`, or a crop that does not fit a camera.
    """
    if obs_type not in HIDDEN_DIMS:
        raise ValueError(f"obs_type must be one of {', '.join(HIDDEN_DIMS)}, got {obs_type!r}")
    # robomimic 0.2, with which policies were trained and scored, crops at random in evaluation too.
    crops = make_crops(shape_meta, crop_shape, random_in_eval=True)
    with quiet_robomimic():
        from robomimic.models.policy_nets import RNNGMMActorNetwork

        tell_modalities(shape_meta)
        network: Any = RNNGMMActorNetwork(
            obs_shapes=OrderedDict((key, list(shape)) for key, shape in shape_meta.obs.items()),
            goal_shapes=OrderedDict(),
            ac_dim=shape_meta.action_dim,
            rnn_hidden_dim=HIDDEN_DIMS[obs_type],
            encoder_kwargs=_encoder_kwargs(crop_shape),
            **copy.deepcopy(SETTINGS),
        )
    network.nets["encoder"].nets["obs"].obs_randomizers.update(crops)
    return network


def _encoder_kwargs(crop_shape: Sequence[int] | None) -> dict[str, Any]:
    none: dict[str, Any] = {"core_class": None, "core_kwargs": {}}
    none |= {"obs_randomizer_class": None, "obs_randomizer_kwargs": {}}
    rgb = {**none, "core_class": "VisualCore", "core_kwargs": copy.deepcopy(VISUAL_CORE)}
    if crop_shape is not None:
        # Tells the library how large crops are; our own randomizers replace these.
        rgb |= {
            "obs_randomizer_class": "CropRandomizer",
            "obs_randomizer_kwargs": {"crop_height": crop_shape[0], "crop_width": crop_shape[1]},
        }
    return {"low_dim": none, "rgb": rgb}


def predict_mixture(
    network: Any, obs: Mapping[str, Tensor], state: State | None = None
) -> tuple[GaussianMixture, State]:
    """Distribution of the actions in a sequence of observations.

    Only the encoders of cameras follow autocast: modes are narrower than half precision could say.

    Args:
        network: as made by `make_rnn_gmm`.
        obs: normalised observations `(B, T, ...)` by key.
        state: of the recurrent layers after the step before; None at the start.

    Returns:
        A mixture `(B, T)` of actions, and the state after the last step.
    """
    batch_size, n_steps = next(iter(obs.values())).shape[:2]
    features: Tensor = network.nets["encoder"](obs={key: value.flatten(0, 1) for key, value in obs.items()})
    with torch.autocast(features.device.type, enabled=False):
        rnn = network.nets["rnn"]
        # Not through the library, which makes the first state on the CPU.
        hidden, state = rnn.nets(features.float().unflatten(0, (batch_size, n_steps)), state)
        outputs = dict_apply(rnn.per_step_net(hidden.flatten(0, 1)), lambda x: x.unflatten(0, (batch_size, n_steps)))
        means = outputs["mean"].tanh()
        if network.low_noise_eval and not network.training:
            scales = torch.full_like(means, LOW_NOISE)
        else:
            scales = network.activations[network.std_activation](outputs["scale"]) + network.min_std
    return GaussianMixture(means, scales, outputs["logits"]), state
