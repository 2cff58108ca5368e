"""Rewrites a checkpoint of the original repository, which holds pickled code, as one that is data alone."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from diffusion_policy.common.checkpoint_file import CheckpointError, read_checkpoint, write_checkpoint
from diffusion_policy.policy.policy_loading import read_config
from diffusion_policy.scripts.trust_option import trust_option


def convert_checkpoint(source: str | os.PathLike[str], target: str | os.PathLike[str], trust: bool = False) -> int:
    """Writes the weights, optimizer, counters and resolved config of `source` to `target`, reads and compares them.

    Returns:
        How many tensors are equal in both.

    Raises:
        FileExistsError: `target` is there already.
        CheckpointError, ConfigError: `source` cannot be read, or `target` not written as it should be.
    """
    if Path(target).exists():
        raise FileExistsError(f"{target} exists already: remove it or choose another name")
    payload = read_checkpoint(source, trust=trust)
    payload["cfg"] = read_config(payload, trust)
    del payload["format"]
    write_checkpoint(target, payload)
    written = read_checkpoint(target)
    for key, value in payload.items():
        where = _difference(value, written.get(key))
        if where is not None:
            os.unlink(target)
            raise CheckpointError(f"{key}{where} of {source} differs in what was written, which is removed again")
    return _count_tensors(payload)


def _difference(value: Any, other: Any) -> str | None:
    """Where two nested values differ, or None if nowhere; NaNs are equal if their bits are."""
    if isinstance(value, Tensor):
        return None if isinstance(other, Tensor) and _has_equal_bits(value, other) else ""
    if isinstance(value, Mapping):
        if not isinstance(other, Mapping) or list(value) != list(other):
            return ""
        pairs = [(key, value[key], other[key]) for key in value]
    elif isinstance(value, list | tuple):
        if not isinstance(other, list | tuple) or len(value) != len(other):
            return ""
        pairs = [(i, *pair) for i, pair in enumerate(zip(value, other, strict=True))]
    else:
        return None if value == other or value != value else ""
    for key, one, two in pairs:
        where = _difference(one, two)
        if where is not None:
            return f".{key}{where}"
    return None


def _has_equal_bits(a: Tensor, b: Tensor) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    flat = [each.detach().contiguous().reshape(-1).view(torch.uint8) for each in (a, b)]
    return torch.equal(*flat)


def _count_tensors(value: Any) -> int:
    if isinstance(value, Mapping):
        return sum(map(_count_tensors, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_count_tensors, value))
    return int(isinstance(value, Tensor))


@click.command()
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@trust_option
def main(source: str, target: str, trust: bool) -> None:
    """Rewrites the checkpoint IN as OUT, in the format of this framework.

    Checkpoints of the original repository are pickled programs: torch.load runs them. They load here as they are, and
    need no conversion; a converted one also loads elsewhere with torch.load(OUT, weights_only=True). OUT is read
    again and compared with IN, tensor by tensor.
    """
    try:
        count = convert_checkpoint(source, target, trust)
    except (OSError, ValueError, RuntimeError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{target}: {count} tensors, equal to those of {source}")


if __name__ == "__main__":
    main()
