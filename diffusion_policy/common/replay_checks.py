"""What makes episodes and a replay buffer valid; each function raises one error that says what to do."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr

from diffusion_policy.common.zarr_array import array_names


def check_root(root: Any) -> None:
    """Raises ValueError unless `root` has the groups and the array of a replay buffer."""
    where = root.store if isinstance(root, zarr.Group) else "the given dict"
    for group in ("data", "meta"):
        if group not in root:
            raise ValueError(f"{where} has no group {group!r}, so it is no replay buffer: check the path")
    meta = root["meta"]
    if "episode_ends" not in (array_names(meta) if isinstance(meta, zarr.Group) else meta):
        raise ValueError(
            f"{where} has no array meta/episode_ends, so it is no replay buffer: check the path, or write "
            "there the row after the last step of each episode"
        )


def check_format(root: zarr.Group) -> None:
    """Raises ValueError unless `root` has zarr format 2, the only one that is written."""
    if root.metadata.zarr_format != 2:
        raise ValueError(
            f"{root.store} has zarr format {root.metadata.zarr_format}, which is only read, not written: copy it "
            "with ReplayBuffer.copy_from_path(path, store='NAME.zarr') to get format 2"
        )


def check_episode_ends(ends: np.ndarray) -> None:
    """Raises ValueError unless `ends` is a 1-D integer array that starts at 0 or above and never falls."""
    if ends.ndim != 1 or not np.issubdtype(ends.dtype, np.integer):
        raise ValueError(
            f"meta/episode_ends must be a 1-D integer array, got shape {ends.shape} of {ends.dtype}: "
            "write the row after the last step of each episode"
        )
    wrong = np.flatnonzero(np.diff(ends, prepend=0) < 0)
    if wrong.size:
        index = int(wrong[0])
        raise ValueError(
            f"meta/episode_ends must not fall or be negative, but at index {index} it is {ends[index]}"
            f"{f' after {ends[index - 1]}' if index else ''}: the dataset is damaged, fetch or convert "
            "it again"
        )


def check_lengths(shapes: Mapping[str, tuple[int, ...]], n_steps: int) -> None:
    """Raises ValueError where an array lacks rows that the episodes need."""
    short = {key: shape for key, shape in shapes.items() if not shape or shape[0] < n_steps}
    if short:
        raise ValueError(
            f"meta/episode_ends ends at step {n_steps}, but these arrays have fewer rows: {short}. The "
            "dataset is damaged or was only partly copied: fetch or convert it again"
        )


def check_equal_lengths(shapes: Mapping[str, tuple[int, ...]], n_steps: int) -> None:
    """Raises ValueError unless every array has exactly `n_steps` rows."""
    check_lengths(shapes, n_steps)
    unequal = {key: shape[0] for key, shape in shapes.items() if shape[0] != n_steps}
    if unequal:
        raise ValueError(
            f"every array must have {n_steps} rows, the last of meta/episode_ends, but: {unequal}. "
            "Cut the arrays or append the missing episode end"
        )


def as_episode(data: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of one episode, all of the same length of at least one step.

    Raises:
        ValueError: no keys, no steps, unequal lengths, or something that is not an array of numbers.
    """
    episode = {key: np.asarray(value) for key, value in data.items()}
    if not episode:
        raise ValueError("an episode needs at least one key, got none")
    for key, value in episode.items():
        if value.dtype.hasobject or value.ndim == 0:
            raise ValueError(
                f"episode key {key!r} must be an array (steps, ...) of numbers, got {value.dtype} of shape "
                f"{value.shape}"
            )
    lengths = {key: len(value) for key, value in episode.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the keys of an episode must have equally many steps, got {lengths}")
    if 0 in lengths.values():
        raise ValueError(f"an episode needs at least one step, got none for {sorted(lengths)}")
    return episode


def check_continues(episode: Mapping[str, np.ndarray], arrays: Mapping[str, Any]) -> None:
    """Raises ValueError unless `episode` can be appended to `arrays` without loss of information."""
    if episode.keys() != arrays.keys():
        raise ValueError(
            f"the episode has keys {sorted(episode)}, the buffer {sorted(arrays)}: give exactly the same keys"
        )
    for key, value in episode.items():
        array = arrays[key]
        if value.shape[1:] != array.shape[1:]:
            raise ValueError(f"episode key {key!r} has steps of shape {value.shape[1:]}, the buffer {array.shape[1:]}")
        if not np.can_cast(value.dtype, array.dtype, "safe"):
            raise ValueError(
                f"episode key {key!r} is {value.dtype}, which the buffer's {array.dtype} cannot hold without "
                f"loss: convert it with .astype({array.dtype.name!r})"
            )
