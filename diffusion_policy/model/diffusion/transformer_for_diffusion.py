"""Transformer denoiser of Diffusion Policy (Chi et al. 2023, section IV.A, "Time-series diffusion transformer")."""

from typing import Any

import torch
from torch import Tensor, nn

from diffusion_policy.model.common.module_attr_mixin import ModuleAttrMixin
from diffusion_policy.model.common.optim_groups import get_decay_groups
from diffusion_policy.model.diffusion.positional_embedding import SinusoidalPosEmb


class TransformerForDiffusion(ModuleAttrMixin):
    """Predicts the noise (or the clean sample) of a sequence, each step a token.

    The diffusion step, and the observations where there are any, are tokens that a decoder attends to. With
    `time_as_cond=False` the diffusion step is the first token of the sequence itself and there is no decoder (BERT).

    Args:
        input_dim: channels of the sequence.
        output_dim: channels of the prediction.
        horizon: most steps T of a sequence.
        n_obs_steps: most observed steps To; as many as `horizon` if None.
        cond_dim: length of an observation; 0 for none.
        n_layer: layers of the decoder, or of the encoder without one.
        n_head: attention heads.
        n_emb: length of a token.
        p_drop_emb: dropout of tokens.
        p_drop_attn: dropout in the layers.
        causal_attn: a step sees neither later steps nor later observations.
        time_as_cond: the diffusion step is a condition; needed by `cond_dim > 0`.
        obs_as_cond: ignored; observations are a condition if `cond_dim > 0`.
        n_cond_layers: layers of the encoder of the condition; an MLP if 0.
    """

    mask: Tensor | None
    memory_mask: Tensor | None

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        horizon: int,
        n_obs_steps: int | None = None,
        cond_dim: int = 0,
        n_layer: int = 12,
        n_head: int = 12,
        n_emb: int = 768,
        p_drop_emb: float = 0.1,
        p_drop_attn: float = 0.1,
        causal_attn: bool = False,
        time_as_cond: bool = True,
        obs_as_cond: bool = False,
        n_cond_layers: int = 0,
    ) -> None:
        super().__init__()
        if cond_dim > 0 and not time_as_cond:
            raise ValueError("cond_dim > 0 needs time_as_cond=True: observations and time condition together")
        n_cond = (1 if time_as_cond else 0) + (0 if cond_dim == 0 else horizon if n_obs_steps is None else n_obs_steps)
        n_tokens = horizon if time_as_cond else horizon + 1
        self.T, self.T_cond, self.horizon = n_tokens, n_cond, horizon
        self.time_as_cond, self.obs_as_cond, self.encoder_only = time_as_cond, cond_dim > 0, not time_as_cond

        self.input_emb = nn.Linear(input_dim, n_emb)
        self.pos_emb = nn.Parameter(torch.zeros(1, n_tokens, n_emb))
        self.drop = nn.Dropout(p_drop_emb)
        self.time_emb = SinusoidalPosEmb(n_emb)
        self.cond_obs_emb = nn.Linear(cond_dim, n_emb) if self.obs_as_cond else None
        self.cond_pos_emb = nn.Parameter(torch.zeros(1, n_cond, n_emb)) if n_cond else None
        layer: dict[str, Any] = {
            "d_model": n_emb,
            "nhead": n_head,
            "dim_feedforward": 4 * n_emb,
            "dropout": p_drop_attn,
            "activation": "gelu",
            "batch_first": True,
            "norm_first": True,
        }
        self.encoder: nn.Module = _encoder(layer, n_cond_layers if time_as_cond else n_layer)
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**layer), n_layer) if time_as_cond else None
        self.register_buffer("mask", _visible(n_tokens, n_tokens, 0) if causal_attn else None)
        # The first condition is the diffusion step, which all see; observation s is condition s + 1.
        sees_obs = causal_attn and self.obs_as_cond
        self.register_buffer("memory_mask", _visible(n_tokens, n_cond, 1) if sees_obs else None)
        self.ln_f = nn.LayerNorm(n_emb)
        self.head = nn.Linear(n_emb, output_dim)
        self.apply(self._init_weights)

    def _init_weights(self, module: nn.Module) -> None:
        """Normal weights of std 0.02, zero biases, as GPT-2; the embeddings of conditions only if they are observed."""
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.MultiheadAttention):
            nn.init.normal_(module.in_proj_weight, std=0.02)
            nn.init.zeros_(module.in_proj_bias)
        elif isinstance(module, TransformerForDiffusion):
            nn.init.normal_(module.pos_emb, std=0.02)
            if module.cond_obs_emb is not None and module.cond_pos_emb is not None:
                nn.init.normal_(module.cond_pos_emb, std=0.02)

    def get_optim_groups(self, weight_decay: float = 1e-3) -> list[dict[str, Any]]:
        """Parameters in two groups: matrices of linear and attention layers decay, all else does not."""
        return get_decay_groups(self, weight_decay)

    def configure_optimizers(
        self, learning_rate: float = 1e-4, weight_decay: float = 1e-3, betas: tuple[float, float] = (0.9, 0.95)
    ) -> torch.optim.Optimizer:
        """AdamW over `get_optim_groups`."""
        return torch.optim.AdamW(self.get_optim_groups(weight_decay), lr=learning_rate, betas=betas)

    def forward(self, sample: Tensor, timestep: Tensor | float, cond: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Denoises one step.

        Args:
            sample: `(B, T, input_dim)`.
            timestep: diffusion step, a number or `(B,)`.
            cond: observations `(B, To, cond_dim)`.

        Returns:
            Prediction `(B, T, output_dim)`.
        """
        steps = torch.as_tensor(timestep, device=sample.device).expand(sample.shape[0])
        time = self.time_emb(steps)[:, None]
        tokens = self.input_emb(sample)
        if self.decoder is None:
            x = self._embedded(torch.cat((time, tokens), dim=1), self.pos_emb)
            x = self.encoder(x, mask=self.mask, is_causal=False)[:, 1:]
        else:
            memory = self.encoder(self._embedded(self._conditions(time, cond), self.cond_pos_emb))
            x = self._embedded(tokens, self.pos_emb)
            length = tokens.shape[1]
            mask = None if self.mask is None else self.mask[:length, :length]
            memory_mask = None if self.memory_mask is None else self.memory_mask[:length]
            # Said, as torch would look the mask through for it, which waits for the GPU.
            x = self.decoder(x, memory, tgt_mask=mask, memory_mask=memory_mask, tgt_is_causal=False)
        return self.head(self.ln_f(x))

    def _conditions(self, time: Tensor, cond: Tensor | None) -> Tensor:
        if self.cond_obs_emb is None:
            return time
        if cond is None:
            raise ValueError("this model was built with cond_dim > 0: it needs observations as cond")
        return torch.cat((time, self.cond_obs_emb(cond)), dim=1)

    def _embedded(self, tokens: Tensor, positions: Tensor | None) -> Tensor:
        if positions is None or tokens.shape[1] > positions.shape[1]:
            most = 0 if positions is None else positions.shape[1]
            raise ValueError(f"got {tokens.shape[1]} tokens, this model was built for at most {most}")
        return self.drop(tokens + positions[:, : tokens.shape[1]])


def _encoder(layer: dict[str, Any], n_layers: int) -> nn.Module:
    """A transformer over tokens, or an MLP on each if there are no layers."""
    if n_layers > 0:
        return nn.TransformerEncoder(nn.TransformerEncoderLayer(**layer), n_layers, enable_nested_tensor=False)
    n_emb = layer["d_model"]
    return nn.Sequential(nn.Linear(n_emb, 4 * n_emb), nn.Mish(), nn.Linear(4 * n_emb, n_emb))


def _visible(n_tokens: int, n_seen: int, ahead: int) -> Tensor:
    """Attention mask `(n_tokens, n_seen)`: 0 where token t may see s <= t + `ahead`, else -inf."""
    t, s = torch.arange(n_tokens)[:, None], torch.arange(n_seen)[None]
    return torch.zeros(n_tokens, n_seen).masked_fill(s > t + ahead, float("-inf"))
