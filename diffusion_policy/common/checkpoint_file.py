"""Reading and writing checkpoint files: atomic, verified, free of code.

A checkpoint is a dict of tensors, plain containers and numbers, in torch's zip format. It loads with
`torch.load(weights_only=True)`, so opening somebody's file cannot run their code.
"""

import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch

from diffusion_policy.common.atomic_file import atomic_path
from diffusion_policy.common.checkpoint_hash import ContentHashError, HashedFile, verify_content
from diffusion_policy.common.plain_state import plain_copy

FORMAT = "diffusion_policy.checkpoint/1"


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read or written, with the reason and what to do."""


def write_checkpoint(path: str | os.PathLike[str], payload: dict[str, Any]) -> None:
    """Writes `payload` so that `path` holds, at every moment, either the old content or the new.

    Equal payloads make equal files, byte for byte, whatever they are called; a content hash ends them.

    Raises:
        CheckpointError: if the disk refuses, or the payload holds something that is neither a tensor nor plain;
            the old file is intact and no part of the new one stays.
    """
    target = Path(path)
    try:
        content = plain_copy({"format": FORMAT, **payload})
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as temporary, temporary.open("wb") as file:
            hashed = HashedFile(file)
            torch.save(content, hashed)  # type: ignore[arg-type]
            hashed.finish()
    except (OSError, RuntimeError, TypeError) as error:
        kept = "the earlier checkpoint there is intact" if target.exists() else "there was no earlier one"
        if isinstance(error, OSError):
            todo = "Free space, give permission, or choose another hydra.run.dir, then resume"
        else:
            todo = "This is a bug of what was to be saved"
        raise CheckpointError(
            f"could not save the checkpoint {target}: {_first_line(error)}. {todo}; {kept}"
        ) from error


def read_checkpoint(path: str | os.PathLike[str], map_location: Any = "cpu") -> dict[str, Any]:
    """Reads a checkpoint after verifying the checksums of its parts.

    Raises:
        FileNotFoundError: if there is none; lists those beside it.
        CheckpointError: if it is truncated, damaged or not a checkpoint of this format.
    """
    source = Path(path)
    if not source.is_file():
        others = sorted(each.name for each in source.parent.glob("*.ckpt")) if source.parent.is_dir() else []
        raise FileNotFoundError(f"no checkpoint at {source}; in its folder: {', '.join(others) or 'none'}")
    try:
        with zipfile.ZipFile(source) as archive:
            damaged = None if verify_content(source) else archive.testzip()
        if damaged:
            raise CheckpointError(f"{source} is damaged (checksum of {damaged}): use another checkpoint of the run")
        payload = torch.load(source, map_location=map_location, weights_only=True)
    except ContentHashError as error:
        raise CheckpointError(f"{source} is damaged: {error}; use another checkpoint of the run") from error
    except zipfile.BadZipFile as error:
        raise CheckpointError(
            f"{source} is truncated or not a checkpoint ({error}): use another checkpoint of the run"
        ) from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{source} does not hold plain tensors and numbers: {_first_line(error)}") from error
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        raise CheckpointError(f"{source} is a torch file but not a checkpoint written by this framework ({FORMAT})")
    return payload


def link_checkpoint(source: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Gives a written checkpoint a second name that outlives the first; costs no space where links exist.

    Raises:
        CheckpointError: if the disk refuses; what `path` was before is intact.
    """
    try:
        try:
            with atomic_path(path) as temporary:
                os.link(source, temporary)
        except OSError:
            with atomic_path(path) as temporary:
                shutil.copyfile(source, temporary)
    except OSError as error:
        raise CheckpointError(f"could not give the checkpoint {source} the name {path} too: {error}") from error


def _first_line(error: BaseException) -> str:
    return str(error).split("\n", 1)[0]
