"""The layout of recordings on disk, byte by byte: what the original writes is read and added to, and the other way."""

import json
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
from recordings import numbers, write_video

from diffusion_policy.dataset.real_pusht_image_dataset import RealPushTImageDataset
from diffusion_policy.real_world.episode_recorder import EpisodeRecorder
from diffusion_policy.real_world.recorded_dataset import open_recordings

DISK = {"id": "blosc", "cname": "zstd", "clevel": 5, "shuffle": 2, "blocksize": 0}
ROBOT_KEYS = {f"robot_{name}" for name in ("eef_pose", "eef_pose_vel", "joint", "joint_vel")}
KEYS = {"timestamp", "action", "stage", *ROBOT_KEYS}
START = 1.7e9


def _write_array(folder: Path, values: np.ndarray, chunks: tuple[int, ...], compressor: dict[str, Any] | None) -> None:
    """As zarr 2 does: a JSON document and a file a chunk."""
    folder.mkdir(parents=True)
    document = {
        "chunks": list(chunks),
        "compressor": compressor,
        "dtype": values.dtype.str,
        "fill_value": 0,
        "filters": None,
        "order": "C",
        "shape": list(values.shape),
        "zarr_format": 2,
    }
    (folder / ".zarray").write_text(json.dumps(document))
    for i, start in enumerate(range(0, len(values), chunks[0])):
        block = np.zeros(chunks, values.dtype)
        part = values[start : start + chunks[0]]
        block[: len(part)] = part
        name = ".".join([str(i)] + ["0"] * (values.ndim - 1))
        encoded = block.tobytes() if compressor is None else numcodecs.get_codec(compressor).encode(block)
        (folder / name).write_bytes(encoded)


def _read_array(folder: Path) -> tuple[np.ndarray, dict[str, Any]]:
    document = json.loads((folder / ".zarray").read_text())
    assert document["zarr_format"] == 2
    chunks, blocks = document["chunks"], []
    for i in range(-(-document["shape"][0] // chunks[0])):
        path = folder / ".".join([str(i)] + ["0"] * (len(chunks) - 1))
        if not path.exists():  # a chunk of nothing but the fill value
            blocks.append(np.full(chunks, document["fill_value"], document["dtype"]))
            continue
        encoded = path.read_bytes()
        codec = document["compressor"] and numcodecs.get_codec(document["compressor"])
        blocks.append(np.frombuffer(codec.decode(encoded) if codec else encoded, document["dtype"]).reshape(chunks))
    return np.concatenate(blocks)[: document["shape"][0]], document


def _write_by_hand(folder: Path, lengths: tuple[int, ...]) -> dict[str, np.ndarray]:
    root = folder / "replay_buffer.zarr"
    episodes = [numbers(n, START + 100 * i, i) for i, n in enumerate(lengths)]
    arrays = {key: np.concatenate([episode[key] for episode in episodes]) for key in episodes[0]}
    for group in (root, root / "data", root / "meta"):
        group.mkdir(parents=True)
        (group / ".zgroup").write_text('{"zarr_format": 2}')
    for key, values in arrays.items():
        _write_array(root / "data" / key, values, (lengths[0], *values.shape[1:]), DISK)
    _write_array(root / "meta/episode_ends", np.cumsum(lengths), (len(lengths),), None)
    for episode, n in enumerate(lengths):
        for camera in (1, 3):
            write_video(folder / "videos" / str(episode) / f"{camera}.mp4", episode, camera, 3 * n)
    return arrays


def test_recordings_written_here_are_of_the_layout(tmp_path: Path) -> None:
    recorder = EpisodeRecorder(tmp_path / "demo", frequency=10)
    for n_steps in (12, 7):
        recorder.start(START)
        times = START + np.arange(n_steps) * 0.1
        episode = numbers(n_steps, START, seed=n_steps)
        recorder.put_observations({key: episode[key] for key in ROBOT_KEYS}, times)
        recorder.put_actions(episode["action"], times, np.zeros(n_steps))
        recorder.end()
    root = tmp_path / "demo/replay_buffer.zarr"
    for group in (root, root / "data", root / "meta"):
        assert json.loads((group / ".zgroup").read_text()) == {"zarr_format": 2}
    assert {path.name for path in (root / "data").iterdir() if path.is_dir()} == KEYS
    ends, document = _read_array(root / "meta/episode_ends")
    assert (ends.tolist(), document["dtype"], document["compressor"]) == ([12, 19], "<i8", None)
    for key in KEYS:
        values, document = _read_array(root / "data" / key)
        expected = np.concatenate([numbers(n, START, seed=n)[key] for n in (12, 7)])
        np.testing.assert_allclose(values, expected, atol=1e-6)
        assert (document["compressor"], document["chunks"][0], document["filters"]) == (DISK, 12, None)
        assert document["dtype"] == ("<i8" if key == "stage" else "<f8")


def test_recordings_of_the_original_are_read_and_added_to(tmp_path: Path) -> None:
    arrays = _write_by_hand(tmp_path / "demo", (12, 9))
    recordings = open_recordings(tmp_path / "demo")
    for key, values in arrays.items():
        np.testing.assert_array_equal(recordings[key][:], values)
    meta = {
        "obs": {
            "camera_1": {"shape": [3, 16, 24], "type": "rgb"},
            "camera_3": {"shape": [3, 16, 24], "type": "rgb"},
            "robot_eef_pose": {"shape": [2]},
        },
        "action": {"shape": [2]},
    }
    dataset = RealPushTImageDataset(meta, str(tmp_path / "demo"), horizon=4, n_obs_steps=2)
    np.testing.assert_allclose(dataset[0]["action"], arrays["action"][:4, :2], rtol=1e-6)
    assert dataset[0]["obs"]["camera_3"].shape == (2, 3, 16, 24)

    recorder = EpisodeRecorder(tmp_path / "demo", frequency=10)
    recorder.start(START)
    added = numbers(5, START, seed=9)
    times = START + np.arange(5) * 0.1
    recorder.put_observations({key: added[key] for key in ROBOT_KEYS}, times)
    recorder.put_actions(added["action"], times, np.zeros(5))
    recorder.end()
    root = tmp_path / "demo/replay_buffer.zarr"
    assert _read_array(root / "meta/episode_ends")[0].tolist() == [12, 21, 26]
    actions = np.concatenate([arrays["action"], added["action"]])
    np.testing.assert_array_equal(_read_array(root / "data/action")[0], actions)
