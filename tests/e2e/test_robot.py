"""The robot's commands on the simulated rig, as users type them and as they are killed."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from xvfb import close_window, xdotool

from diffusion_policy.real_world.real_data_conversion import real_data_to_replay_buffer
from diffusion_policy.real_world.recorded_dataset import camera_videos, open_recordings
from diffusion_policy.real_world.sim.rig import TOOL_START

pytestmark = pytest.mark.slow

QUICK_SEED = 47  # with the one after it: blocks that the scripted operator brings to their goal within seconds
TRAINING = [
    "training.device=cpu",
    "training.num_epochs=1",
    "training.max_train_steps=4",
    "policy.num_inference_steps=2",
    "policy.down_dims=[8,16]",
    "dataloader.batch_size=4",
    "logging.mode=disabled",
]


class Command:
    """A command in a session of its own, with what it says."""

    def __init__(self, repository: Path, log: Path, *arguments: object, **environment: str) -> None:
        self.log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, *map(str, arguments)],
                cwd=repository,
                env={**os.environ, "OMP_NUM_THREADS": "1", "DISPLAY": "", **environment},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_for(self, text: str, timeout: float = 120) -> None:
        deadline = time.monotonic() + timeout
        while not re.search(text, self.log.read_text()):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def wait(self, timeout: float = 300) -> str:
        self.process.wait(timeout)
        return self.log.read_text()

    def left_behind(self, timeout: float = 20) -> list[str]:
        """Command lines of processes of the session that do not end."""
        deadline = time.monotonic() + timeout
        while (left := _members(self.process.pid)) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left


def _members(session: int) -> list[str]:
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, sid = stat.read_text().rsplit(")", 1)[1].split()[:4]
        except OSError:  # it has ended meanwhile
            continue
        if int(sid) == session and state != "Z":
            members.append(f"{stat.parent.name} {stat.with_name('cmdline').read_text()}")
    return members


@pytest.fixture
def shared_memory() -> Iterator[None]:
    """Fails if named segments of shared memory stay."""
    before = set(os.listdir("/dev/shm"))
    yield
    assert not [name for name in set(os.listdir("/dev/shm")) - before if "psm_" in name or "diffusion" in name]


@pytest.mark.usefixtures("shared_memory")
def test_demonstrations_train_a_policy_that_drives_the_robot(repository: Path, tmp_path: Path) -> None:
    demo, run, evaluation = tmp_path / "demo", tmp_path / "run", tmp_path / "eval"
    arguments = ["demo_real_robot.py", "--sim", "-o", demo, "-n", 2, "--sim_seed", QUICK_SEED]
    command = Command(repository, tmp_path / "demo.log", *arguments)
    said = command.wait()
    assert command.process.returncode == 0, said
    assert f"2 episodes in {demo}" in said
    assert command.left_behind() == []
    covered = [int(percent) for percent in re.findall(r"The block covers (\d+) % of its goal", said)]
    assert len(covered) == 2
    assert min(covered) > 85

    recordings = open_recordings(demo)
    buffer = real_data_to_replay_buffer(demo, out_resolutions=(64, 36))
    assert set(buffer.keys()) >= {"camera_0", "camera_1", "action", "robot_eef_pose", "stage", "timestamp"}
    assert (recordings.episode_lengths > 40).all()
    np.testing.assert_allclose(np.diff(buffer.get_episode(0)["timestamp"]), 0.1, atol=1e-5)
    np.testing.assert_allclose(buffer["robot_eef_pose"][0, :2], TOOL_START[:2], atol=0.02)
    distances = np.linalg.norm(buffer["action"][:, :2] - buffer["robot_eef_pose"][:, :2], axis=1)
    assert np.median(distances) < 0.05
    assert len(camera_videos(demo, 2)) == 2

    arguments = ["train.py", "--config-name=robot_quickstart", *TRAINING]
    said = Command(
        repository, tmp_path / "train.log", *arguments, f"task.dataset_path={demo}", f"hydra.run.dir={run}"
    ).wait()
    checkpoint = run / "checkpoints" / "latest.ckpt"
    assert checkpoint.is_file(), said

    arguments = ["eval_real_robot.py", "--sim", "-i", checkpoint, "-o", evaluation, "-d", "cpu", "-md", 3]
    command = Command(repository, tmp_path / "eval.log", *arguments)
    said = command.wait()
    assert command.process.returncode == 0, said
    assert f"1 episodes in {evaluation}" in said
    assert "3 s are over" in said
    assert command.left_behind() == []
    evaluated = open_recordings(evaluation)
    assert 20 <= evaluated.episode_lengths[0] <= 45
    assert np.isfinite(evaluated["action"][:]).all()
    assert {path.name for path in (evaluation / "videos/0").iterdir()} == {"0.mp4", "1.mp4"}


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.mp4")}


@pytest.mark.usefixtures("shared_memory")
def test_a_kill_leaves_no_process_and_an_interruption_saves_the_episode(repository: Path, tmp_path: Path) -> None:
    demo = tmp_path / "demo"
    arguments = ["demo_real_robot.py", "--sim", "-o", demo, "-n", 5]
    command = Command(repository, tmp_path / "first.log", *arguments)
    command.wait_for("Recording episode 0")
    time.sleep(2)
    command.process.send_signal(signal.SIGINT)
    said = command.wait(30)
    assert command.process.returncode == 1
    assert "Error: interrupted; the arm was stopped" in said
    assert "Episode 0 was saved up to here" in said
    assert "Traceback" not in said
    assert command.left_behind() == []
    assert open_recordings(demo).episode_lengths[0] >= 10
    before, actions = _content(demo), open_recordings(demo)["action"][:]

    command = Command(repository, tmp_path / "second.log", *arguments)
    command.wait_for("Recording episode 1")
    time.sleep(1)
    command.process.kill()
    command.wait()
    assert command.left_behind() == []

    command = Command(repository, tmp_path / "third.log", *arguments, "--on_fault", "drop")
    command.wait_for("Recording episode 1")
    time.sleep(1)
    command.process.terminate()
    said = command.wait(30)
    assert "videos of an episode that was not completed are kept in" in said
    assert "Episode 1 was dropped" in said
    assert command.left_behind() == []
    assert _content(demo).items() >= before.items()
    np.testing.assert_array_equal(open_recordings(demo)["action"][:], actions)
    assert not (demo / "videos/1").exists()


def test_a_person_sees_drives_and_closes_the_window(repository: Path, tmp_path: Path, display: str) -> None:
    demo = tmp_path / "demo"
    arguments = ["demo_real_robot.py", "--sim", "-o", demo]
    command = Command(repository, tmp_path / "demo.log", *arguments, DISPLAY=display)
    command.wait_for("Ready: ")
    deadline = time.monotonic() + 20
    while not (window := _window("Diffusion Policy")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert "Geometry: 640x" in xdotool("getwindowgeometry", window)
    xdotool("key", "c")
    command.wait_for("Recording episode 0")
    xdotool("keydown", "Left")
    time.sleep(1.5)
    xdotool("keyup", "Left", "key", "space")
    time.sleep(0.5)
    close_window(window)
    said = command.wait(30)
    assert "the window was closed: the arm was stopped" in said
    assert command.process.returncode == 1
    assert command.left_behind() == []
    recordings = open_recordings(demo)
    y = recordings["robot_eef_pose"][:, 1]
    assert y[0] - y[-1] > 0.05
    assert set(recordings["stage"][:]) == {0, 1}


def _window(title: str) -> str:
    try:
        return xdotool("search", "--name", title).split()[0]
    except (subprocess.CalledProcessError, IndexError):
        return ""
