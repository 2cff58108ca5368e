"""Decoder-only transformer of Behavior Transformers (Shafiullah et al. 2022, section 3.2), after GPT-2."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GPT(nn.Module):
    """Maps a sequence `(B, T, Di)`, or indices `(B, T)`, to outputs `(B, T, Do)`; a step sees none after it.

    Args:
        input_dim: length Di of an input; of indices, how many there are.
        output_dim: length Do of an output.
        block_size: most steps T of a sequence.
        n_layer: blocks of attention and MLP.
        n_head: attention heads.
        n_embd: length of a token.
        embd_pdrop: dropout of tokens.
        resid_pdrop: dropout of what a block adds to them.
        attn_pdrop: dropout of attention weights.
        discrete_input: inputs are indices.
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        block_size: int,
        n_layer: int,
        n_head: int,
        n_embd: int,
        embd_pdrop: float,
        resid_pdrop: float,
        attn_pdrop: float,
        discrete_input: bool = False,
    ) -> None:
        super().__init__()
        self.block_size = block_size
        self.tok_emb = nn.Embedding(input_dim, n_embd) if discrete_input else nn.Linear(input_dim, n_embd)
        self.pos_emb = nn.Parameter(torch.zeros(1, block_size, n_embd))
        self.drop = nn.Dropout(embd_pdrop)
        blocks = [_Block(block_size, n_head, n_embd, resid_pdrop, attn_pdrop) for _ in range(n_layer)]
        self.blocks = nn.Sequential(*blocks)
        self.ln_f = nn.LayerNorm(n_embd)
        self.head = nn.Linear(n_embd, output_dim, bias=False)
        self.apply(_init_weights)
        nn.init.normal_(self.pos_emb, std=0.02)

    def forward(self, inputs: Tensor) -> Tensor:
        n_steps = inputs.shape[1]
        if n_steps > self.block_size:
            raise ValueError(f"got {n_steps} steps, this model was built for at most {self.block_size}")
        tokens = self.drop(self.tok_emb(inputs) + self.pos_emb[:, :n_steps])
        output: Tensor = self.head(self.ln_f(self.blocks(tokens)))
        return output


class _Block(nn.Module):
    def __init__(self, block_size: int, n_head: int, n_embd: int, resid_pdrop: float, attn_pdrop: float) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(n_embd)
        self.ln2 = nn.LayerNorm(n_embd)
        self.attn = _CausalSelfAttention(block_size, n_head, n_embd, resid_pdrop, attn_pdrop)
        self.mlp = nn.Sequential(
            nn.Linear(n_embd, 4 * n_embd), nn.GELU(), nn.Linear(4 * n_embd, n_embd), nn.Dropout(resid_pdrop)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn(self.ln1(tokens))
        output: Tensor = tokens + self.mlp(self.ln2(tokens))
        return output


class _CausalSelfAttention(nn.Module):
    mask: Tensor

    def __init__(self, block_size: int, n_head: int, n_embd: int, resid_pdrop: float, attn_pdrop: float) -> None:
        super().__init__()
        if n_embd % n_head:
            raise ValueError(f"n_embd={n_embd} is not a multiple of n_head={n_head}")
        self.n_head = n_head
        self.attn_pdrop = attn_pdrop
        self.key = nn.Linear(n_embd, n_embd)
        self.query = nn.Linear(n_embd, n_embd)
        self.value = nn.Linear(n_embd, n_embd)
        self.resid_drop = nn.Dropout(resid_pdrop)
        self.proj = nn.Linear(n_embd, n_embd)
        # Not read: the field's checkpoints have it.
        self.register_buffer("mask", torch.tril(torch.ones(1, 1, block_size, block_size)))

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = (
            project(tokens).unflatten(-1, (self.n_head, -1)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        dropout = self.attn_pdrop if self.training else 0.0
        heads = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
        output: Tensor = self.resid_drop(self.proj(heads.transpose(1, 2).flatten(2)))
        return output


def _init_weights(module: nn.Module) -> None:
    """Normal weights of std 0.02 and zero biases, as GPT-2."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
