"""Transformer-based Diffusion Policy with robomimic's visual encoder (Chi et al. 2023, section IV.A)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_policy.common.shape_meta import ShapeMeta
from diffusion_policy.model.diffusion.transformer_for_diffusion import TransformerForDiffusion
from diffusion_policy.model.vision.robomimic_obs_encoder import make_robomimic_obs_encoder
from diffusion_policy.policy.base_image_diffusion_policy import BaseImageDiffusionPolicy


class DiffusionTransformerHybridImagePolicy(BaseImageDiffusionPolicy):
    """Denoises actions given the features of each observed step as a token, or by inpainting.

    Args:
        shape_meta: the config's: cameras, sensors and action.
        noise_scheduler: any variance-preserving diffusers scheduler.
        horizon: predicted steps T.
        n_action_steps: executed steps Ta, from the last observed one on.
        n_obs_steps: observed steps To.
        num_inference_steps: denoising steps; as many as in training if None.
        crop_shape: height and width of the crops of each camera; None for whole images.
        obs_encoder_group_norm: group norm in place of batch norm, which the moving average needs.
        eval_fixed_crop: evaluate on the middle of the images, else on random crops too.
        n_layer, n_cond_layers, n_head, n_emb, p_drop_emb, p_drop_attn, causal_attn, time_as_cond: see
            TransformerForDiffusion.
        obs_as_cond: the To features are tokens that the decoder attends to, else they are inpainted.
        pred_action_steps_only: denoise the executed steps alone; needs `obs_as_cond`.
        kwargs: handed to the scheduler's step, e.g. `eta` for DDIM.
    """

    model: TransformerForDiffusion
    obs_encoder: nn.Module

    def __init__(
        self,
        shape_meta: Mapping[str, Any],
        noise_scheduler: Any,
        horizon: int,
        n_action_steps: int,
        n_obs_steps: int,
        num_inference_steps: int | None = None,
        crop_shape: Sequence[int] | None = (76, 76),
        obs_encoder_group_norm: bool = False,
        eval_fixed_crop: bool = False,
        n_layer: int = 8,
        n_cond_layers: int = 0,
        n_head: int = 4,
        n_emb: int = 256,
        p_drop_emb: float = 0.0,
        p_drop_attn: float = 0.3,
        causal_attn: bool = True,
        time_as_cond: bool = True,
        obs_as_cond: bool = True,
        pred_action_steps_only: bool = False,
        **kwargs: Any,
    ) -> None:
        meta = ShapeMeta.parse(shape_meta)
        obs_encoder: Any = make_robomimic_obs_encoder(meta, crop_shape, obs_encoder_group_norm, eval_fixed_crop)
        (feature_dim,) = obs_encoder.output_shape()
        given_dim = 0 if obs_as_cond else feature_dim
        model = TransformerForDiffusion(
            input_dim=meta.action_dim + given_dim,
            output_dim=meta.action_dim + given_dim,
            horizon=horizon,
            n_obs_steps=n_obs_steps,
            cond_dim=feature_dim if obs_as_cond else 0,
            n_layer=n_layer,
            n_head=n_head,
            n_emb=n_emb,
            p_drop_emb=p_drop_emb,
            p_drop_attn=p_drop_attn,
            causal_attn=causal_attn,
            time_as_cond=time_as_cond,
            obs_as_cond=obs_as_cond,
            n_cond_layers=n_cond_layers,
        )
        super().__init__(
            shape_meta=meta,
            encoders={"obs_encoder": obs_encoder},
            model=model,
            noise_scheduler=noise_scheduler,
            horizon=horizon,
            n_obs_steps=n_obs_steps,
            n_action_steps=n_action_steps,
            num_inference_steps=num_inference_steps,
            given_dim=given_dim,
            pred_action_steps_only=pred_action_steps_only,
            step_kwargs=kwargs,
        )
        self.obs_as_cond = obs_as_cond
        self.obs_feature_dim = feature_dim

    def _model_kwargs(self, features: Tensor) -> dict[str, Tensor]:
        return {"cond": features}

    def get_optimizer(
        self,
        transformer_weight_decay: float,
        obs_encoder_weight_decay: float,
        learning_rate: float,
        betas: tuple[float, float],
    ) -> torch.optim.Optimizer:
        """AdamW; of the transformer only the matrices of linear and attention layers decay."""
        groups = self.model.get_optim_groups(transformer_weight_decay)
        groups.append({"params": list(self.obs_encoder.parameters()), "weight_decay": obs_encoder_weight_decay})
        return torch.optim.AdamW(groups, lr=learning_rate, betas=(betas[0], betas[1]))
