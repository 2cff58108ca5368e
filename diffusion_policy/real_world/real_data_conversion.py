"""Recordings of a robot as one replay buffer, with the frames that belong to its steps."""

import multiprocessing
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
import zarr
from numcodecs.abc import Codec

from diffusion_policy.codecs.imagecodecs_numcodecs import Jpeg2k, register_codecs
from diffusion_policy.common.cv2_util import get_image_transform
from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.common.zarr_array import (
    ZarrArray,
    array_names,
    delete_array,
    get_array,
    read_array,
    replace_array,
    subgroup,
    written_chunks,
)
from diffusion_policy.common.zarr_store import StoreLike, open_group
from diffusion_policy.real_world.frame_copying import VideoRows, copy_frames
from diffusion_policy.real_world.recorded_dataset import camera_videos, fingerprint, open_recordings, step_duration
from diffusion_policy.real_world.video_files import resolution

QUALITY = 50
"""dB of PSNR that frames keep, about."""

SOURCE = "source_sha256"
"""Array of `meta` that says which videos frames are of."""

Resolution: TypeAlias = tuple[int, int]
"""Width and height, px."""


def real_data_to_replay_buffer(
    dataset_path: str | os.PathLike[str],
    out_store: StoreLike | None = None,
    out_resolutions: Resolution | Mapping[str, Resolution] | None = None,
    lowdim_keys: Iterable[str] | None = None,
    image_keys: Iterable[str] | None = None,
    lowdim_compressor: Codec | None = None,
    image_compressor: Codec | None = None,
    n_decoding_threads: int = multiprocessing.cpu_count(),
    n_encoding_threads: int = multiprocessing.cpu_count(),
    max_inflight_tasks: int = multiprocessing.cpu_count() * 5,
    verify_read: bool = True,
) -> ReplayBuffer:
    """Copies recordings into a zarr store: numbers as they are, and for each step the frame of each camera.

    Videos are decoded, and frames resized and compressed, in parallel. What a call that was killed has written of the
    same videos is gone on with; until all is written the store is no replay buffer.

    Args:
        dataset_path: folder of `replay_buffer.zarr` and `videos/`.
        out_store: zarr store, folder or dict; None for memory.
        out_resolutions: of the frames, of all cameras or by key; as recorded for those left out. A frame is scaled to
            cover it, and what then stands over is cut off evenly.
        lowdim_keys, image_keys: what is copied; None for all.
        lowdim_compressor: None for that of the recordings.
        image_compressor: None for JPEG 2000 at a PSNR of 50 dB.
        n_decoding_threads: videos decoded at a time.
        n_encoding_threads: frames compressed at a time.
        max_inflight_tasks: decoded frames that wait to be compressed at most.
        verify_read: read each frame back.

    Returns:
        The replay buffer, with images `(N, H, W, 3)` uint8 RGB, a chunk a frame.

    Raises:
        FileNotFoundError: recordings, or a video of them, are missing.
        ValueError: a video ends before its episode, or cannot be decoded.
    """
    register_codecs(verbose=False)
    recordings = open_recordings(dataset_path)
    videos = camera_videos(dataset_path, recordings.n_episodes, image_keys)
    recorded = {key: resolution(paths[0]) for key, paths in videos.items()}
    wanted = {key: _wanted(out_resolutions, key, size) for key, size in recorded.items()}
    compressor = image_compressor or Jpeg2k(level=QUALITY)
    root = open_group({} if out_store is None else out_store, mode="a")
    _begin(root, frames_fingerprint(videos, wanted, compressor))
    ends, duration = [0, *recordings.episode_ends.tolist()], step_duration(recordings)
    missing = []
    for key, paths in videos.items():
        array = _image_array(subgroup(root, "data"), key, ends[-1], wanted[key], compressor)
        transform = get_image_transform(input_res=recorded[key], output_res=wanted[key], bgr_to_rgb=False)
        not_there = set(np.flatnonzero(~written_chunks(array)).tolist())
        for episode, path in enumerate(paths):
            rows = range(ends[episode], ends[episode + 1])
            if rows_to_write := not_there.intersection(rows):
                missing.append(VideoRows(path, duration, array, rows, rows_to_write, transform))
    copy_frames(missing, n_decoding_threads, n_encoding_threads, max_inflight_tasks, verify_read)
    compressors = {} if lowdim_compressor is None else lowdim_compressor
    return ReplayBuffer.copy_from_store(recordings.root, root.store, lowdim_keys, compressors=compressors)


def frames_fingerprint(videos: Mapping[str, list[Path]], sizes: Mapping[str, Resolution], compressor: Codec) -> bytes:
    """Of frames of these videos in these sizes: equal where they are the same frames."""
    return bytes.fromhex(fingerprint(videos, sorted(sizes.items()), compressor.get_config()))


def _wanted(choice: Resolution | Mapping[str, Resolution] | None, key: str, recorded: Resolution) -> Resolution:
    if isinstance(choice, Mapping):
        choice = choice.get(key)
    width, height = choice or recorded
    return width, height


def _begin(root: zarr.Group, source: bytes) -> None:
    """Makes a group ready for frames of `source`: those that it holds of anything else are removed."""
    data, meta = root.require_group("data"), root.require_group("meta")
    delete_array(meta, "episode_ends")  # written last: until then the group is no replay buffer
    value = np.frombuffer(source, np.uint8)
    if SOURCE in array_names(meta) and np.array_equal(read_array(get_array(meta, SOURCE)), value):
        return
    for name in array_names(data):
        delete_array(data, name)
    replace_array(meta, SOURCE, value, value.shape, None)


def _image_array(data: zarr.Group, key: str, n_steps: int, size: Resolution, compressor: Codec) -> ZarrArray:
    width, height = size
    if key in array_names(data):
        return get_array(data, key)
    chunks = (1, height, width, 3)
    return data.create_array(
        key, shape=(n_steps, *chunks[1:]), dtype=np.uint8, chunks=chunks, compressors=compressor, filters=None
    )
