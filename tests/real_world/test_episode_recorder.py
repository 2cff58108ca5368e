import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from diffusion_policy.common.zarr_array import compressor_of
from diffusion_policy.real_world.episode_recorder import EpisodeRecorder
from diffusion_policy.real_world.recorded_dataset import open_recordings

START = 1.7e9


def _put(recorder: EpisodeRecorder, n_steps: int, start: float = START, value: float = 0.0) -> None:
    """States at 100 Hz and actions at 10 Hz of `n_steps` steps from `start` on."""
    times = start + np.arange(10 * n_steps) / 100
    states = np.arange(10 * n_steps, dtype=float)[:, None] + np.zeros(6)
    recorder.put_observations({"robot_eef_pose": states, "robot_joint": -states}, times)
    recorder.put_actions(np.full((n_steps, 6), value), start + np.arange(n_steps) / 10, np.ones(n_steps))


def test_an_episode_is_what_was_put_on_the_grid(tmp_path: Path) -> None:
    recorder = EpisodeRecorder(tmp_path / "demo", frequency=10)
    folder = recorder.start(START)
    assert (folder, recorder.is_recording) == (tmp_path / "demo/videos/0", True)
    _put(recorder, 7)
    _put(recorder, 7)  # states that were there before count once
    recorder.put_actions([[5.0] * 6], [START + 0.3], [2])
    assert (recorder.end(), recorder.is_recording, recorder.n_episodes) == (7, False, 1)
    buffer = open_recordings(tmp_path / "demo")
    assert set(buffer.keys()) == {"timestamp", "action", "stage", "robot_eef_pose", "robot_joint"}
    np.testing.assert_allclose(buffer["timestamp"][:], START + np.arange(7) / 10)
    np.testing.assert_array_equal(buffer["robot_eef_pose"][:, 0], 10 * np.arange(7))
    assert buffer["stage"][:].tolist() == [1, 1, 1, 2, 1, 1, 1]
    assert buffer["stage"].dtype == np.int64
    assert buffer["action"][:, 0].tolist() == [0, 0, 0, 5, 0, 0, 0]
    assert compressor_of(buffer["action"]).cname == "zstd"


def test_steps_need_both_observation_and_action_and_end_where_asked(tmp_path: Path) -> None:
    recorder = EpisodeRecorder(tmp_path / "demo", frequency=10)
    recorder.start(START)
    _put(recorder, 5)
    recorder.put_actions(np.zeros((3, 6)), START + np.array([0.5, 0.6, 0.7]), np.zeros(3))  # not yet executed
    assert recorder.end() == 5
    recorder.start(START)
    _put(recorder, 5)
    assert recorder.end(last_time=START + 0.25) == 3


def test_an_episode_without_steps_leaves_nothing(tmp_path: Path) -> None:
    recorder = EpisodeRecorder(tmp_path / "demo", frequency=10)
    (recorder.start(START) / "0.mp4").write_bytes(b"video")
    assert recorder.end() == 0
    assert (recorder.n_episodes, list((tmp_path / "demo/videos").iterdir())) == (0, [])
    _put(recorder, 3)  # between episodes nothing is recorded
    assert recorder.end() == 0


def test_dropping_takes_the_episode_under_way_or_the_last_one(tmp_path: Path) -> None:
    recorder = EpisodeRecorder(tmp_path / "demo", frequency=10)
    assert recorder.drop() is None
    for _ in range(2):
        (recorder.start(START) / "0.mp4").write_bytes(b"video")
        _put(recorder, 4)
        recorder.end()
    (recorder.start(START) / "0.mp4").write_bytes(b"video")
    _put(recorder, 4)
    videos = tmp_path / "demo/videos"
    assert (recorder.drop(), recorder.n_episodes, {path.name for path in videos.iterdir()}) == (2, 2, {"0", "1"})
    assert (recorder.drop(), recorder.n_episodes, {path.name for path in videos.iterdir()}) == (1, 1, {"0"})


def test_recordings_are_added_to(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        recorder = EpisodeRecorder(tmp_path / "demo", frequency=10)
        recorder.start(START)
        _put(recorder, 3, value=value)
        recorder.end()
    assert open_recordings(tmp_path / "demo")["action"][:, 0].tolist() == [1, 1, 1, 2, 2, 2]
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        EpisodeRecorder(tmp_path / "no" / "where", frequency=10)


_RECORD_FOR_EVER = """
import numpy as np
from test_episode_recorder import START, _put
from diffusion_policy.real_world.episode_recorder import EpisodeRecorder
recorder = EpisodeRecorder({path!r}, frequency=10)
while True:
    (recorder.start(START) / "0.mp4").write_bytes(b"video")
    _put(recorder, 50, value=recorder.n_episodes)
    recorder.end()
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_kill_at_any_time_loses_at_most_the_episode_under_way(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "demo"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(Path(__file__).parent)]),
    }
    process = subprocess.Popen([sys.executable, "-c", _RECORD_FOR_EVER.format(path=str(path))], env=environment)
    deadline = time.monotonic() + 60
    while not (path / "videos/5").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(np.random.default_rng(seed).uniform(0, 0.3))
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = open_recordings(path)
    n_episodes = before.n_episodes
    assert n_episodes >= 5
    recorder = EpisodeRecorder(path, frequency=10)
    recorder.start(START)
    _put(recorder, 50, value=-1)
    recorder.end()
    after = open_recordings(path)
    assert after.episode_lengths.tolist() == [50] * (n_episodes + 1)
    assert after["action"][::50, 0].tolist() == [*range(n_episodes), -1]
    names = {folder.name.split(".")[0] for folder in (path / "videos").iterdir()}
    assert names == {str(i) for i in range(n_episodes + 1)}
