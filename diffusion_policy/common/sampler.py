"""Fixed-length windows over the episodes of a replay buffer, padded at their borders; masks of episodes."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.common.stored_array import StoredArray
from diffusion_policy.common.zarr_array import Array, read_array


def create_indices(
    episode_ends: np.ndarray,
    sequence_length: int,
    episode_mask: np.ndarray,
    pad_before: int = 0,
    pad_after: int = 0,
    debug: bool = True,
) -> np.ndarray:
    """All windows of `sequence_length` steps that overlap an episode, in order.

    A window may start up to `pad_before` steps before its episode and end up to `pad_after` steps after it;
    both are clamped to `[0, sequence_length - 1]`.

    Args:
        episode_ends: row after the last of each episode, `(E,)`.
        episode_mask: episodes to take windows from, `(E,)` bool.
        debug: checks the result; costs little.

    Returns:
        `(N, 4)` int64: buffer_start, buffer_end, sample_start, sample_end. Rows `buffer_start:buffer_end` of
        the buffer are steps `sample_start:sample_end` of the window; the other steps are padding.

    Raises:
        IndexError: the chosen episodes are all too short for a single window.
        ValueError: `sequence_length` is not positive, or the mask does not fit the episodes.
    """
    if sequence_length < 1:
        raise ValueError(f"sequence_length must be at least 1, got {sequence_length}")
    ends = np.asarray(episode_ends, dtype=np.int64)
    mask = np.asarray(episode_mask, dtype=bool)
    if mask.shape != ends.shape:
        raise ValueError(f"episode_mask has shape {mask.shape}, expected {ends.shape}: one entry an episode")
    pad_before, pad_after = np.clip([pad_before, pad_after], 0, sequence_length - 1).tolist()
    lengths = np.diff(ends, prepend=0)
    starts, lengths = (ends - lengths)[mask], lengths[mask]
    counts = np.maximum(lengths - sequence_length + pad_before + pad_after + 1, 0)
    counts[lengths == 0] = 0
    if mask.any() and not counts.any():
        raise IndexError(
            f"no window of {sequence_length} steps fits the chosen episodes, {len(lengths)} of at most "
            f"{lengths.max()} steps, with {pad_before} steps of padding before and {pad_after} after: use a "
            "shorter horizon, more padding or longer episodes"
        )
    nth_of_episode = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    indices = _window(
        np.repeat(starts, counts), np.repeat(lengths, counts), nth_of_episode - pad_before, sequence_length
    )
    if debug:
        buffer_start, buffer_end, sample_start, sample_end = indices.T
        assert np.array_equal(buffer_end - buffer_start, sample_end - sample_start)
        assert ((sample_start >= 0) & (sample_start < sample_end) & (sample_end <= sequence_length)).all()
    return indices


def _window(starts: np.ndarray, lengths: np.ndarray, offset: np.ndarray, sequence_length: int) -> np.ndarray:
    """Windows `(N, 4)` that begin `offset` steps into episodes of `lengths` rows from row `starts`."""
    first, last = np.maximum(offset, 0), np.minimum(offset + sequence_length, lengths)
    return np.stack([starts + first, starts + last, first - offset, last - offset], axis=1)


def get_val_mask(n_episodes: int, val_ratio: float, seed: int = 0) -> np.ndarray:
    """Random choice of validation episodes, `(n_episodes,)` bool.

    At least one episode is chosen and at least one is left, unless `val_ratio` is 0 or there is one episode.
    """
    mask = np.zeros(n_episodes, dtype=bool)
    if val_ratio <= 0 or n_episodes < 2:
        return mask
    n_val = min(max(1, round(n_episodes * val_ratio)), n_episodes - 1)
    mask[np.random.default_rng(seed).choice(n_episodes, size=n_val, replace=False)] = True
    return mask


def downsample_mask(mask: np.ndarray, max_n: int | None, seed: int = 0) -> np.ndarray:
    """`mask` with a random choice of `max_n` of its true entries, or as it is where it has no more."""
    chosen = np.flatnonzero(mask)
    if max_n is None or len(chosen) <= max_n:
        return mask
    smaller = np.zeros_like(mask)
    smaller[chosen[np.random.default_rng(seed).choice(len(chosen), size=int(max_n), replace=False)]] = True
    return smaller


class SequenceSampler:
    """Random access to padded windows of a replay buffer.

    Padding repeats the first and the last step of the window that lie in the episode.

    Args:
        replay_buffer: where the windows come from.
        sequence_length: steps of a window, T.
        pad_before: steps that a window may start before its episode, e.g. n_obs_steps - 1.
        pad_after: steps that a window may end after its episode, e.g. n_action_steps - 1.
        keys: keys to sample; None samples all.
        key_first_k: for some keys, how many of the steps that a window has in its episode are read, e.g.
            n_obs_steps of images; the rest is NaN, or 0 for integers.
        episode_mask: `(E,)` bool, episodes to sample from; None takes all.

    Attributes:
        indices: `(N, 4)` int64, see `create_indices`.
        arrays: what is sampled, by key.

    Raises:
        IndexError: no window fits any chosen episode.
    """

    def __init__(
        self,
        replay_buffer: ReplayBuffer,
        sequence_length: int,
        pad_before: int = 0,
        pad_after: int = 0,
        keys: Iterable[str] | None = None,
        key_first_k: Mapping[str, int] = MappingProxyType({}),
        episode_mask: np.ndarray | None = None,
    ) -> None:
        ends = replay_buffer.episode_ends
        if episode_mask is None:
            episode_mask = np.ones(ends.shape, dtype=bool)
        self.indices = create_indices(ends, sequence_length, episode_mask, pad_before, pad_after)
        self.keys = list(replay_buffer.keys() if keys is None else keys)
        self.key_first_k = dict(key_first_k)
        self.sequence_length = sequence_length
        self.replay_buffer = replay_buffer
        self.arrays: dict[str, Array | StoredArray] = {key: replay_buffer[key] for key in self.keys}

    def __len__(self) -> int:
        return len(self.indices)

    def sample_sequence(self, idx: int) -> dict[str, np.ndarray]:
        """One window, `(T, ...)` a key; where nothing is padded, a view of a numpy buffer."""
        buffer_start, buffer_end, sample_start, sample_end = self.indices[idx].tolist()
        padding = (sample_start, self.sequence_length - sample_end)
        result = {}
        for key, array in self.arrays.items():
            n_read = min(self.key_first_k.get(key, self.sequence_length), buffer_end - buffer_start)
            steps = read_array(array, slice(buffer_start, buffer_start + n_read))
            if n_read < buffer_end - buffer_start:
                steps = _extended(steps, buffer_end - buffer_start)
            if any(padding):
                steps = np.pad(steps, [padding] + [(0, 0)] * (steps.ndim - 1), mode="edge")
            result[key] = steps
        return result

    def window_rows(self, idxs: np.ndarray) -> np.ndarray:
        """Row of the buffer for each step of the windows `idxs` `(B,)`: `(B, T)` int64."""
        buffer_start, buffer_end, sample_start, _ = self.indices[idxs].T[:, :, None]
        steps = np.arange(self.sequence_length)
        return np.clip(buffer_start - sample_start + steps, buffer_start, buffer_end - 1)

    def sample_sequences(
        self, idxs: np.ndarray, first_steps: Mapping[str, int] = MappingProxyType({})
    ) -> dict[str, np.ndarray]:
        """The windows `idxs` `(B,)` stacked, `(B, T, ...)` a key; equal to stacking `sample_sequence`.

        Args:
            first_steps: for some keys, how many steps k from the window's beginning, padding included, are
                returned, `(B, k, ...)`; nothing else is read or allocated for them. (`key_first_k` counts
                without the padding and keeps the length T.)

        Raises:
            ValueError: `first_steps` names a key that is not sampled, or its k is not in `[1, T]`.
        """
        self._check_first_steps(first_steps)
        rows = self.window_rows(idxs)
        nth = rows - self.indices[idxs, :1]
        result = {}
        for key, array in self.arrays.items():
            steps = slice(first_steps.get(key, self.sequence_length))
            first_k = self.key_first_k.get(key, self.sequence_length)
            result[key] = _gather(array, rows[:, steps], nth[:, steps] < first_k)
        return result

    def _check_first_steps(self, first_steps: Mapping[str, int]) -> None:
        for key, k in first_steps.items():
            if key not in self.arrays:
                raise ValueError(f"first_steps names {key!r}, which is not sampled; sampled are {self.keys}")
            if not 1 <= k <= self.sequence_length:
                raise ValueError(
                    f"first_steps of {key!r} is {k}, expected 1 to {self.sequence_length}, a window's length"
                )


def _missing(dtype: np.dtype) -> Any:
    return np.nan if np.issubdtype(dtype, np.inexact) else 0


def _extended(steps: np.ndarray, length: int) -> np.ndarray:
    extended = np.full((length, *steps.shape[1:]), _missing(steps.dtype), dtype=steps.dtype)
    extended[: len(steps)] = steps
    return extended


def _gather(array: Array | StoredArray, rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Rows `(B, T)` of an array, each read once; NaN or 0 where not `wanted`."""
    if isinstance(array, np.ndarray) and wanted.all():
        return array[rows]
    unique, inverse = np.unique(rows[wanted], return_inverse=True)
    steps: Any
    if isinstance(array, StoredArray):
        steps = array.take(unique)
    else:
        steps = array[unique] if isinstance(array, np.ndarray) else array.oindex[unique]
    result = np.full((*rows.shape, *array.shape[1:]), _missing(array.dtype), dtype=array.dtype)
    result[wanted] = np.asarray(steps)[inverse]
    return result
