"""What Behavior Transformers predict of actions: which bin each is in, and where in it (Shafiullah et al. 2022)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_policy.common.draws import Generators, draw_indices
from diffusion_policy.model.bet.gpt import GPT
from diffusion_policy.model.common.optim_groups import get_decay_groups

Latents = Tensor | tuple[Tensor, Tensor]
"""Bins `(B, T, 1)` int64 of actions; with offsets, these and the actions `(B, T, Da)` minus the bins' centres."""


class MinGPT(nn.Module):
    """A transformer that reads observations and predicts a distribution over bins, and an offset in each.

    Args:
        input_dim: length Do of an observation.
        n_layer: transformer blocks.
        n_head: attention heads.
        n_embd: length of a token.
        embd_pdrop, resid_pdrop, attn_pdrop: dropout of tokens, blocks and attention weights.
        block_size: most steps T of a sequence.
        vocab_size: bins V.
        latent_dim: not read; of the original's constructor.
        action_dim: length Da of an action.
        discrete_input: observations are indices below `input_dim`.
        predict_offsets: predict offsets too.
        offset_loss_scale: weight of the loss of offsets.
        focal_loss_gamma: how much less the loss looks at bins that are predicted well (Lin et al. 2017); 0 for
            cross-entropy.
    """

    def __init__(
        self,
        input_dim: int,
        n_layer: int = 12,
        n_head: int = 12,
        n_embd: int = 768,
        embd_pdrop: float = 0.1,
        resid_pdrop: float = 0.1,
        attn_pdrop: float = 0.1,
        block_size: int = 128,
        vocab_size: int = 50257,
        latent_dim: int = 768,
        action_dim: int = 0,
        discrete_input: bool = False,
        predict_offsets: bool = False,
        offset_loss_scale: float = 1.0,
        focal_loss_gamma: float = 0.0,
    ) -> None:
        super().__init__()
        if predict_offsets and action_dim < 1:
            raise ValueError(f"predict_offsets needs action_dim, the length of an action, got {action_dim}")
        self.vocab_size = vocab_size
        self.action_dim = action_dim
        self.predict_offsets = predict_offsets
        self.offset_loss_scale = offset_loss_scale
        self.focal_loss_gamma = focal_loss_gamma
        self.model = GPT(
            input_dim=input_dim,
            output_dim=vocab_size * (1 + action_dim) if predict_offsets else vocab_size,
            block_size=block_size,
            n_layer=n_layer,
            n_head=n_head,
            n_embd=n_embd,
            embd_pdrop=embd_pdrop,
            resid_pdrop=resid_pdrop,
            attn_pdrop=attn_pdrop,
            discrete_input=discrete_input,
        )

    def get_latent_and_loss(
        self,
        obs_rep: Tensor,
        target_latents: Latents,
        seq_masks: Tensor | None = None,
        return_loss_components: bool = False,
    ) -> tuple[Any, ...]:
        """The loss of predicting latents from observations (Shafiullah et al. 2022, section 3.3).

        Args:
            obs_rep: observations `(B, T, Do)`.
            target_latents: bins, or bins and offsets, of the actions.
            seq_masks: `(B, T)` booleans, true for steps that count; None for all.
            return_loss_components: return the parts of the loss as well.

        Returns:
            Logits of the bins `(B, T, V)` and the loss, a scalar; and its parts by name, `class`, `offset` (weighted)
            and `total`, if asked for.
        """
        logits, offsets = self._predict(obs_rep)
        bins, target_offsets = target_latents if isinstance(target_latents, tuple) else (target_latents, None)
        log_probability = F.log_softmax(logits.float(), dim=-1).gather(-1, bins).squeeze(-1)
        class_loss = _mean(-((1 - log_probability.exp()) ** self.focal_loss_gamma) * log_probability, seq_masks)
        parts = {"class": class_loss, "total": class_loss}
        if self.predict_offsets:
            if target_offsets is None:
                raise ValueError("predict_offsets needs offsets: build KMeansDiscretizer with predict_offsets=True")
            error = (_in_bins(offsets, bins).float() - target_offsets).square().mean(dim=-1)
            parts["offset"] = self.offset_loss_scale * _mean(error, seq_masks)
            parts["total"] = class_loss + parts["offset"]
        return (logits, parts["total"], parts) if return_loss_components else (logits, parts["total"])

    def generate_latents(self, obs_rep: Tensor, generator: Generators = None) -> Latents:
        """Draws a bin for each step of observations `(B, T, Do)`, and takes the offset that is predicted in it."""
        logits, offsets = self._predict(obs_rep)
        bins = draw_indices(logits.float().softmax(dim=-1), 1, generator)
        return (bins, _in_bins(offsets, bins)) if self.predict_offsets else bins

    def get_optimizer(
        self, weight_decay: float, learning_rate: float, betas: tuple[float, float]
    ) -> torch.optim.Optimizer:
        """AdamW in which only the matrices of linear layers decay."""
        groups = get_decay_groups(self, weight_decay)
        return torch.optim.AdamW(groups, lr=learning_rate, betas=(betas[0], betas[1]))

    def _predict(self, obs_rep: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `(B, T, V)` of the bins and offsets `(B, T, V, Da)` in each."""
        output = self.model(obs_rep)
        offsets = output[..., self.vocab_size :]
        return output[..., : self.vocab_size], offsets.unflatten(
            -1, (self.vocab_size, offsets.shape[-1] // self.vocab_size)
        )


def _in_bins(offsets: Tensor, bins: Tensor) -> Tensor:
    """Of offsets `(B, T, V, Da)` those `(B, T, Da)` in the bins `(B, T, 1)`."""
    index = bins[..., None].expand(*bins.shape, offsets.shape[-1])
    return offsets.gather(-2, index).squeeze(-2)


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    return values.mean() if mask is None else (values * mask).sum() / mask.sum()
