"""Implicit behavioural cloning (Florence et al. 2021) on cameras and sensors, with robomimic's visual encoder."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from diffusion_policy.common.shape_meta import ShapeMeta
from diffusion_policy.model.vision.robomimic_obs_encoder import make_robomimic_obs_encoder
from diffusion_policy.policy.base_ibc_policy import BaseIbcPolicy
from diffusion_policy.policy.base_image_policy import BaseImagePolicy


class IbcDfoHybridImagePolicy(BaseIbcPolicy, BaseImagePolicy):
    """Rates candidates for actions given features of each observed step.

    Args:
        shape_meta: cameras, sensors and action.
        andy_train: not read; the original's two ways to write the training loss are the same.
        obs_encoder_group_norm: group norm in place of batch norm.
        eval_fixed_crop: evaluate on the middle of the images, else on random crops too.
        crop_shape: height and width of the crops of each camera; None for whole images.
        For the others see BaseIbcPolicy.
    """

    obs_encoder: nn.Module

    def __init__(
        self,
        shape_meta: Mapping[str, Any],
        horizon: int,
        n_action_steps: int,
        n_obs_steps: int,
        dropout: float = 0.1,
        train_n_neg: int = 128,
        pred_n_iter: int = 5,
        pred_n_samples: int = 16384,
        kevin_inference: bool = False,
        andy_train: bool = False,
        obs_encoder_group_norm: bool = True,
        eval_fixed_crop: bool = True,
        crop_shape: Sequence[int] | None = (76, 76),
    ) -> None:
        meta = ShapeMeta.parse(shape_meta)
        encoder: Any = make_robomimic_obs_encoder(meta, crop_shape, obs_encoder_group_norm, eval_fixed_crop)
        super().__init__(
            obs_feature_dim=n_obs_steps * encoder.output_shape()[0],
            action_dim=meta.action_dim,
            horizon=horizon,
            n_action_steps=n_action_steps,
            n_obs_steps=n_obs_steps,
            dropout=dropout,
            train_n_neg=train_n_neg,
            pred_n_iter=pred_n_iter,
            pred_n_samples=pred_n_samples,
            kevin_inference=kevin_inference,
            encoders={"obs_encoder": encoder},
        )
        self.obs_shapes = meta.obs

    def _features(self, obs_dict: Mapping[str, Any]) -> Tensor:
        obs = self._normalized(obs_dict, self.obs_shapes, self.n_obs_steps)
        batch_size = len(next(iter(obs.values())))
        features: Tensor = self.obs_encoder({key: value.flatten(0, 1) for key, value in obs.items()})
        return features.unflatten(0, (batch_size, self.n_obs_steps))
