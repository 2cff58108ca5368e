"""Reading and writing checkpoint files: atomic, verified, free of code.

A checkpoint is a dict of tensors, plain containers and numbers, in torch's zip format. It loads with
`torch.load(weights_only=True)`. Checkpoints of the original repository, whose config is pickled code, are read as the
data they should be: opening somebody's file cannot run their code.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from diffusion_policy.common.atomic_file import atomic_path
from diffusion_policy.common.checkpoint_archive import CheckpointArchive, DamagedError, ForeignError
from diffusion_policy.common.checkpoint_content import check_plain, plain_config
from diffusion_policy.common.checkpoint_hash import ContentHashError, HashedFile, verify_content
from diffusion_policy.common.checkpoint_objects import Storage, UnsafeError
from diffusion_policy.common.checkpoint_trusted import load_trusted
from diffusion_policy.common.checkpoint_unpickler import load_plain
from diffusion_policy.common.plain_state import plain_copy

FORMAT = "diffusion_policy.checkpoint/1"
ORIGINAL_FORMAT = "original"
"""`format` of a payload read from a file of the original repository."""


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


def read_checkpoint(
    path: str | os.PathLike[str], map_location: Any = "cpu", trust: bool = False, verify_hash: bool = False
) -> dict[str, Any]:
    """Reads a checkpoint of this framework or of the original, whose parts are verified and hold no code.

    Args:
        path: the file.
        map_location: device of the tensors.
        trust: run what the file holds beside data, if it is of the original's format; for your own files only.
        verify_hash: beside the checksums of its parts, verify the content hash that ends a file of this framework.

    Returns:
        `format`, `cfg` (plain containers; interpolations as text), `state_dicts` by name, `values` such as
        `global_step` and `epoch`, and whatever else a file of this framework holds.

    Raises:
        FileNotFoundError: if there is none; lists those beside it.
        CheckpointError: if it is truncated, damaged, holds code, or is not a checkpoint.
    """
    source = Path(path)
    if not source.exists():
        others = sorted(each.name for each in source.parent.glob("*.ckpt")) if source.parent.is_dir() else []
        raise FileNotFoundError(f"no checkpoint at {source}; in its folder: {', '.join(others) or 'none'}")
    try:
        if verify_hash and source.is_file():
            verify_content(source)
        return _normalised(_content(source, torch.device(map_location), trust))
    except ForeignError as error:
        raise CheckpointError(
            f"{source} is not a checkpoint: it is {error}. Give a .ckpt file that train.py wrote"
        ) from error
    except (DamagedError, ContentHashError) as error:
        raise CheckpointError(
            f"{source} is damaged, truncated or not a checkpoint ({error}): use another checkpoint of the run, or "
            "copy it anew"
        ) from error
    except UnsafeError as error:
        raise CheckpointError(
            f"{source} does not hold plain tensors and numbers: {error}. Opening it would run code that the file "
            "chooses; if you wrote it yourself, --trust (trust=True in Python) reads it all the same"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{source} cannot be read: {error.strerror or error}") from error


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


def _content(source: Path, device: torch.device, trust: bool) -> Any:
    """What the pickle in the file builds."""
    with CheckpointArchive(source) as archive:
        _check_byte_order(archive)
        storages: dict[str, Storage] = {}

        def load_storage(key: str, dtype: torch.dtype, numel: int) -> Storage:
            if key not in storages:
                storages[key] = _read_storage(archive, key, dtype, numel, device)
            if storages[key][1:] != (dtype, numel):
                raise DamagedError(f"the tensors that share record {key} differ in what its bytes mean")
            return storages[key]

        try:
            content = load_plain(archive.read("data.pkl"), load_storage)
        except UnsafeError:
            if not trust:
                raise
            content = load_trusted(source, device)
        archive.verify()
    return content


def _check_byte_order(archive: CheckpointArchive) -> None:
    if "byteorder" in archive and archive.read("byteorder") != sys.byteorder.encode():
        raise DamagedError("it was written on a machine of the other byte order")


def _read_storage(
    archive: CheckpointArchive, key: str, dtype: torch.dtype, numel: int, device: torch.device
) -> Storage:
    record = f"data/{key}"
    size = archive.size(record)
    if numel * dtype.itemsize != size:
        raise DamagedError(f"a tensor claims {numel} numbers of {dtype}, but record {record} has {size} bytes")
    content = torch.empty(size, dtype=torch.uint8)
    archive.read_into(record, content.numpy())
    memory = content.untyped_storage()
    return Storage(memory if device.type == "cpu" else memory.to(device=device), dtype, numel)


def _normalised(content: Any) -> dict[str, Any]:
    """The content of either format under the same names."""
    if type(content) is not dict:
        raise ForeignError(f"a torch file but not a checkpoint written by this framework: a {type(content).__name__}")
    is_original = {"cfg", "state_dicts", "pickles"} <= content.keys()
    if not is_original and content.get("format") != FORMAT:
        raise ForeignError(f"a torch file but not a checkpoint written by this framework ({FORMAT}) or the original")
    rest = {key: value for key, value in content.items() if key not in ("cfg", "pickles")}
    if is_original:
        rest |= {"format": ORIGINAL_FORMAT, "values": _unpickled(content["pickles"])}
    check_plain(rest)
    for part in ("state_dicts", "values"):
        if not isinstance(rest.get(part, {}), dict):
            raise DamagedError(f"its {part} are a {type(rest[part]).__name__}")
    if "cfg" in content:
        rest["cfg"] = plain_config(content["cfg"])
    return rest


def _unpickled(pickles: Any) -> dict[str, Any]:
    if not isinstance(pickles, dict) or not all(isinstance(value, bytes) for value in pickles.values()):
        raise DamagedError("its counters are no pickles")
    return {key: load_plain(value) for key, value in pickles.items()}


def _first_line(error: BaseException) -> str:
    return str(error).split("\n", 1)[0]
