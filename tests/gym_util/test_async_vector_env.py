import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from diffusion_policy.gym_util.async_vector_env import (
    AsyncVectorEnv,
    EnvWorkerError,
    EnvWorkerTimeoutError,
)
from diffusion_policy.gym_util.multistep_wrapper import MultiStepWrapper

OK, RAISE, RAISE_UNPICKLABLE, EXIT, KILL, SEGFAULT, HANG, IGNORE_SIGTERM_AND_HANG = range(8)


class Fragile(gymnasium.Env):
    """Fails as its action says; done after `length` steps."""

    observation_space = spaces.Dict({"t": spaces.Box(0, 99, (1,), np.float32)})
    action_space = spaces.Box(0, 9, (1,), np.float32)
    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, length: int = 99) -> None:
        self.length = length
        self.t = 0
        self.seeds: list[int | None] = []

    def seed(self, seed: int | None = None) -> None:
        self.seeds.append(seed)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        super().reset(seed=seed)
        self.t = 0 if seed is None else seed
        return {"t": np.array([self.t], np.float64)}, {}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        self._obey(int(action[0]))
        self.t += 1
        return {"t": np.array([self.t], np.float64)}, 1.0, self.t >= self.length, False, {"t": self.t}

    def render(self, value: int = 0) -> np.ndarray:
        return np.full((2, 2, 3), value, np.uint8)

    def add(self, value: int, scale: int = 1) -> int:
        return self.t + value * scale

    def unpicklable(self) -> Any:
        return lambda: None

    @staticmethod
    def _obey(order: int) -> None:
        class LocalError(Exception):
            pass

        if order == RAISE:
            raise ValueError("the gripper fell off")
        if order == RAISE_UNPICKLABLE:
            raise LocalError(lambda: "no pickle can hold me")
        if order == EXIT:
            os._exit(3)
        if order == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        if order == SEGFAULT:
            os.kill(os.getpid(), signal.SIGSEGV)
        if order == IGNORE_SIGTERM_AND_HANG:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if order in (HANG, IGNORE_SIGTERM_AND_HANG):
            time.sleep(3600)


def multistep(length: int) -> Callable[[], gymnasium.Env]:
    return lambda: MultiStepWrapper(Fragile(length), n_obs_steps=3, n_action_steps=2)


@pytest.fixture
def envs() -> Iterator[AsyncVectorEnv]:
    vector_env = AsyncVectorEnv([Fragile] * 3, timeout=30)
    yield vector_env
    vector_env.close(timeout=0.1)
    assert not any(process.is_alive() for process in vector_env.processes)


def actions(*orders: int) -> np.ndarray:
    return np.array(orders, np.float32)[:, None]


def test_reset_step_and_calls_reach_each_env(envs: AsyncVectorEnv) -> None:
    obs, _ = envs.reset(seed=[10, 20, 30])
    assert obs["t"].tolist() == [[10], [20], [30]]
    obs, rewards, terminated, truncated, infos = envs.step(actions(OK, OK, OK))
    assert obs["t"].dtype == np.float32
    assert obs["t"].tolist() == [[11], [21], [31]]
    assert rewards.tolist() == [1, 1, 1]
    assert not terminated.any()
    assert not truncated.any()
    assert infos["t"].tolist() == [11, 21, 31]
    assert envs.call("add", 1) == (12, 22, 32)
    assert envs.call_each("add", [(1,), (2,), (3,)]) == (12, 23, 34)
    assert envs.call_each("add", [(1,)] * 3, [{"scale": scale} for scale in range(3)]) == (11, 22, 33)
    assert envs.call_each("t") == (11, 21, 31)
    envs.set_attr("t", [1, 2, 3])
    assert envs.get_attr("t") == (1, 2, 3)
    assert [image.max() for image in envs.render(value=7)] == [7, 7, 7]
    envs.seed(5)
    envs.seed([1, None, 3])
    assert envs.call("seeds") == ([5, 1], [6, None], [7, 3])


def test_reset_mask_leaves_the_others_alone(envs: AsyncVectorEnv) -> None:
    envs.reset(seed=[1, 2, 3])
    obs, _ = envs.reset(seed=[4, 5, 6], options={"reset_mask": np.array([True, False, True])})
    assert obs["t"].ravel().tolist() == [4, 2, 6]


def test_wrong_number_of_arguments_is_refused(envs: AsyncVectorEnv) -> None:
    with pytest.raises(ValueError, match="3 environments"):
        envs.call_each("add", [(1,)])
    with pytest.raises(ValueError, match="2 seeds for 3"):
        envs.seed([1, 2])
    assert envs.call_each("add", [(1,)] * 3) == (1, 1, 1)


def test_no_auto_reset_and_steps_after_the_end() -> None:
    envs = AsyncVectorEnv([multistep(length) for length in (1, 3, 99)], timeout=30)
    envs.reset()
    chunk = np.zeros((3, 2, 1), np.float32)
    *_, infos = envs.step(chunk)
    assert [values.tolist() for values in infos["t"]] == [[1], [1, 2], [1, 2]]
    obs, _, terminated, *_ = envs.step(chunk)
    assert terminated.tolist() == [True, True, False]
    assert obs["t"][..., 0].tolist() == [[0, 0, 1], [1, 2, 3], [2, 3, 4]]
    envs.close()


@pytest.mark.parametrize(
    ("order", "report"),
    [
        (RAISE, "(?s)Traceback.*_obey.*ValueError: the gripper fell off"),
        (RAISE_UNPICKLABLE, "(?s)Traceback.*LocalError"),
        (EXIT, "exited with code 3"),
        (KILL, "killed by SIGKILL"),
        (SEGFAULT, "killed by SIGSEGV"),
    ],
)
def test_failing_worker_is_named_while_others_still_run(envs: AsyncVectorEnv, order: int, report: str) -> None:
    envs.reset()
    with pytest.raises(EnvWorkerError, match=report) as error:
        envs.step(actions(HANG, order, OK))
    assert error.value.index == 1
    assert not isinstance(error.value, EnvWorkerTimeoutError)


def test_hanging_worker_is_named_and_ended(envs: AsyncVectorEnv) -> None:
    envs.reset()
    envs.step_async(actions(OK, OK, IGNORE_SIGTERM_AND_HANG))
    with pytest.raises(EnvWorkerTimeoutError, match=r"within 1 s .*\[2\]") as error:
        envs.step_wait(timeout=1)
    assert error.value.index == 2
    envs.close(timeout=0.1)
    assert envs.processes[2].exitcode == -signal.SIGKILL


def test_default_timeout_holds_for_plain_steps() -> None:
    envs = AsyncVectorEnv([Fragile] * 2, timeout=60)
    envs.reset()
    envs.timeout = 1
    with pytest.raises(EnvWorkerTimeoutError, match=r"\[0\]"):
        envs.step(actions(HANG, OK))
    envs.close(terminate=True)


def test_worker_that_died_between_calls_is_named(envs: AsyncVectorEnv) -> None:
    envs.reset()
    envs.processes[1].kill()
    envs.processes[1].join()
    with pytest.raises(EnvWorkerError, match="SIGKILL") as error:
        envs.call("add", 1)
    assert error.value.index == 1


@pytest.mark.parametrize(("name", "report"), [("unpicklable", "pickle"), ("absent", "no attribute 'absent'")])
def test_call_that_cannot_be_answered_is_reported(envs: AsyncVectorEnv, name: str, report: str) -> None:
    envs.reset()
    with pytest.raises(EnvWorkerError, match=f"(?s)raised an error.*{report}"):
        envs.call(name)


def test_env_that_cannot_be_made_is_reported() -> None:
    def broken() -> gymnasium.Env:
        raise FileNotFoundError("no such asset: kitchen.xml")

    with pytest.raises(EnvWorkerError, match=r"Environment 1 raised(?s:.*)kitchen\.xml"):
        AsyncVectorEnv([Fragile, broken], timeout=30)


def test_dummy_env_spares_this_process_the_real_one() -> None:
    here = os.getpid()

    def needs_gpu() -> gymnasium.Env:
        assert os.getpid() != here, "opens OpenGL in the parent"
        return Fragile()

    with pytest.raises(AssertionError, match="OpenGL"):
        AsyncVectorEnv([needs_gpu])
    envs = AsyncVectorEnv([needs_gpu] * 2, dummy_env_fn=Fragile)
    assert envs.reset()[0]["t"].shape == (2, 1)
    envs.close()


def test_spaces_must_agree() -> None:
    with pytest.raises(RuntimeError, match="observation"):
        AsyncVectorEnv([Fragile], observation_space=spaces.Box(0, 1, (2,)))
    with pytest.raises(ValueError, match="env_fns is empty"):
        AsyncVectorEnv([])


def test_without_shared_memory_and_forked() -> None:
    envs = AsyncVectorEnv([Fragile] * 2, shared_memory=False, context="fork")
    assert envs.reset(seed=[3, 4])[0]["t"].ravel().tolist() == [3, 4]
    envs.close()
    assert not any(process.is_alive() for process in envs.processes)


SCRIPT = """
import multiprocessing
import os
import signal

import gymnasium

from diffusion_policy.gym_util.async_vector_env import AsyncVectorEnv

print("run", __file__, flush=True)
envs = AsyncVectorEnv([lambda: gymnasium.make("Pendulum-v1")] * 2)
envs.reset()
print("run", __file__)
print(*(process.pid for process in envs.processes), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_do_not_run_the_script_again_and_end_with_it(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == -signal.SIGKILL, run.stderr
    *runs, pids = run.stdout.splitlines()
    assert runs == [f"run {script}"] * 2
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids.split()):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.05)


def test_closing_is_understood_though_a_forked_process_holds_the_pipes(envs: AsyncVectorEnv) -> None:
    envs.reset(seed=[0, 0, 0])
    other = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    other.start()
    try:
        envs.close(timeout=60)
        assert [process.exitcode for process in envs.processes] == [0, 0, 0]
    finally:
        other.kill()
        other.join()
