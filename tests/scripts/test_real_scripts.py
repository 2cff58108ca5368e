import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from recordings import numbers, write_recordings

from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.real_world.video_recorder import VideoRecorder
from diffusion_policy.scripts import real_dataset_conversion, real_pusht_metrics, real_pusht_successrate
from diffusion_policy.scripts.real_pusht_metrics import get_mask_metrics, get_t_mask

BLOCK, TABLE = (90, 120, 200), (235, 235, 230)


def _invoke(script: Any, *arguments: object, fails: bool = False) -> str:
    result = CliRunner().invoke(script.main, [str(each) for each in arguments])
    assert (result.exit_code != 0) == fails, result.output
    return result.output


def _write_block(path: Path, lefts: list[int]) -> None:
    """A video of a block whose left edge is at these columns, frame by frame; 32 px wide."""
    path.parent.mkdir(parents=True, exist_ok=True)
    recorder = VideoRecorder.create_h264(fps=30, crf=5)
    recorder.start(path)
    for left in lefts:
        image = np.full((64, 96, 3), TABLE, np.uint8)
        image[16:48, left : left + 32] = BLOCK
        recorder.write_frame(image)
    recorder.stop()


def _write_dataset(folder: Path, ends: list[int]) -> Path:
    """Recordings of episodes at whose end the block is at these columns."""
    buffer = ReplayBuffer.create_from_path(folder / "replay_buffer.zarr", mode="a")
    for episode, end in enumerate(ends):
        buffer.add_episode(numbers(2, 1.7e9, episode))
        _write_block(folder / "videos" / str(episode) / "0.mp4", [0, 60, end])
    return folder


def test_masks_are_of_the_block_alone() -> None:
    image = np.full((10, 20, 3), TABLE, np.uint8)
    image[2:6, 4:8] = BLOCK
    mask = get_t_mask(image)
    assert mask.sum() == 16
    assert mask[2:6, 4:8].all()
    assert get_mask_metrics(mask, np.roll(mask, 2, axis=1)) == {"iou": 8 / 24, "coverage": 0.5}
    assert get_mask_metrics(mask, np.zeros_like(mask)) == {"iou": 0, "coverage": 0}


def test_policies_are_held_against_the_worst_demonstration(tmp_path: Path) -> None:
    demo = _write_dataset(tmp_path / "demo", [40, 48])  # of which the goal is that of the first
    policy = _write_dataset(tmp_path / "eval", [40, 44, 60, 72])
    goal = demo / "videos/0/0.mp4"
    for folder in (demo, policy):
        output = _invoke(real_pusht_metrics, "-r", goal, "-i", folder, "-n", 2)
    raw = json.loads((policy / "metrics/metrics_raw.json").read_text())
    expected = [1, 28 / 36, 12 / 52, 0]
    assert [len(raw[str(i)]["iou"]) for i in range(4)] == [3] * 4
    np.testing.assert_allclose([raw[str(i)]["iou"][-1] for i in range(4)], expected, atol=0.05)
    aggregated = json.loads((policy / "metrics/metrics_agg.json").read_text())
    assert aggregated["coverage"]["last"] == pytest.approx(np.mean([1, 28 / 32, 12 / 32, 0]), abs=0.05)
    assert "iou: 0.5" in output
    output = _invoke(real_pusht_successrate, "-r", demo / "metrics/metrics_raw.json", "-i", tmp_path)
    assert "at least 0.600 at the end" in output
    assert f"{demo / 'metrics'}: 100%" in output
    assert f"{policy / 'metrics'}: 50% [15%, 85%] of 4 episodes" in output


def test_what_cannot_be_measured_is_named(tmp_path: Path) -> None:
    demo = _write_dataset(tmp_path / "demo", [40])
    goal = demo / "videos/0/0.mp4"
    assert "1 videos are missing" in _invoke(real_pusht_metrics, "-r", goal, "-i", demo, "-ci", 3, fails=True)
    hsv = ("--hsv", 0, 1, 250, 255, 250, 255)
    assert "nothing of the block's colour" in _invoke(real_pusht_metrics, "-r", goal, "-i", demo, *hsv, fails=True)
    other = tmp_path / "other.json"
    other.write_text("[1]")
    assert "is not a metrics_raw.json" in _invoke(real_pusht_successrate, "-r", other, "-i", demo, fails=True)


def test_conversion_writes_one_file(tmp_path: Path) -> None:
    folder = write_recordings(tmp_path / "demo")
    output = _invoke(real_dataset_conversion, "-i", folder, "-r", "24x16", "-nd", 1)
    path = folder / "24x16.zarr.zip"
    assert f"36 steps in {path}" in output
    converted = ReplayBuffer.create_from_path(path)
    assert converted["camera_2"].shape == (36, 16, 24, 3)
    assert not list(folder.glob(".*"))
    assert "Overwrite?" in _invoke(real_dataset_conversion, "-i", folder, "-r", "24x16", fails=True)
    for arguments, message in [
        (("-r", "small"), "expected WIDTHxHEIGHT"),
        (("-o", tmp_path / "folder.zarr"), r"expected a name that ends in .zarr.zip"),
        (("-i", tmp_path / "nowhere"), "no recordings at"),
    ]:
        assert message in _invoke(real_dataset_conversion, "-i", folder, *arguments, fails=True)
