import threading
import time

import numpy as np
import pytest

from diffusion_policy.real_world.inference_thread import InferenceThread, PolicyError

OBS = {"timestamp": np.array([1.0, 2.0])}


class Policy:
    """Answers when it is let, or fails."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.error: Exception | None = None

    def predict(self, obs: dict[str, np.ndarray]) -> np.ndarray:
        assert self.may_answer.wait(30)
        if self.error is not None:
            raise self.error
        return obs["timestamp"][:, None]


@pytest.fixture
def policy() -> Policy:
    return Policy()


@pytest.fixture
def thread(policy: Policy):
    thread = InferenceThread(policy)
    yield thread
    policy.may_answer.set()
    thread.close()


def _soon() -> float:
    return time.monotonic() + 0.05


def test_the_loop_goes_on_until_there_is_an_answer(policy: Policy, thread: InferenceThread) -> None:
    assert thread.answer(_soon(), timeout=10) is None
    thread.ask(OBS)
    begun = time.monotonic()
    assert thread.answer(_soon(), timeout=10) is None
    assert time.monotonic() - begun < 1
    assert thread.is_busy
    threading.Timer(0.1, policy.may_answer.set).start()
    answer = thread.answer(time.monotonic() + 20, timeout=30)
    assert answer is not None
    assert (answer.obs_time, answer.actions.tolist()) == (2.0, [[1.0], [2.0]])
    assert 0.1 < answer.latency < 10
    assert not thread.is_busy
    thread.ask(OBS)
    assert thread.answer(time.monotonic() + 20, timeout=30) is not None


def test_a_policy_that_is_late_or_fails_raises(policy: Policy, thread: InferenceThread) -> None:
    thread.ask(OBS)
    time.sleep(0.1)
    with pytest.raises(PolicyError, match=r"no answer for 0.1 s"):
        thread.answer(_soon(), timeout=0.1)
    policy.error = TimeoutError("the server is gone")
    policy.may_answer.set()
    with pytest.raises(PolicyError):
        thread.answer(time.monotonic() + 20, timeout=30)


def test_an_error_of_the_policy_is_named(policy: Policy, thread: InferenceThread) -> None:
    policy.error = ZeroDivisionError("by zero")
    policy.may_answer.set()
    thread.ask(OBS)
    with pytest.raises(PolicyError, match="ZeroDivisionError: by zero"):
        thread.answer(time.monotonic() + 20, timeout=30)
