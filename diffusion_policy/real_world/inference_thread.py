"""A policy that is asked beside the control loop, which goes on whatever becomes of the answer."""

import time
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread

from diffusion_policy.real_world.robot_policy import Actions, Observations, RobotPolicy


class PolicyError(RuntimeError):
    """The policy failed or gave no answer in time; the arm was stopped."""


@dataclass(frozen=True)
class Answer:
    """What a policy said.

    Attributes:
        actions: `(Ta, Da)`.
        obs_time: of the observation that it was asked about (wall clock, s).
        latency: s that it took.
    """

    actions: Actions
    obs_time: float
    latency: float


class InferenceThread:
    """Asks a policy one thing at a time.

    Args:
        policy: to ask.
    """

    def __init__(self, policy: RobotPolicy) -> None:
        self._policy = policy
        self._questions: SimpleQueue[tuple[Observations, Future[Answer]] | None] = SimpleQueue()
        self._asked: Future[Answer] | None = None
        self._asked_time = 0.0
        # A policy that hangs must not keep the program from ending: the thread is a daemon.
        Thread(target=self._run, name="policy", daemon=True).start()

    @property
    def is_busy(self) -> bool:
        """Whether there is an answer to come."""
        return self._asked is not None

    def ask(self, obs: Observations) -> None:
        """Asks for actions, if nothing else is being asked."""
        if self._asked is None:
            self._asked, self._asked_time = Future(), time.monotonic()
            self._questions.put((obs, self._asked))

    def answer(self, wait_until: float, timeout: float) -> Answer | None:
        """The answer, as soon as there is one; None if nothing was asked, or there is none yet at `wait_until`
        (monotonic clock, s).

        Raises:
            PolicyError: the policy raised an error, or has taken longer than `timeout` s.
        """
        if self._asked is None:
            return None
        try:
            result = self._asked.result(max(wait_until - time.monotonic(), 0))
        except TimeoutError:
            if not self._asked.done() and time.monotonic() - self._asked_time < timeout:
                return None
            raise PolicyError(
                f"the policy has given no answer for {timeout} s: ask it more rarely, use a faster device or "
                "fewer denoising steps, or allow it more time"
            ) from None
        except Exception as error:
            raise PolicyError(f"the policy failed: {type(error).__name__}: {error}") from error
        self._asked = None
        return result

    def close(self) -> None:
        """Ends the thread once the policy has answered; an answer to come is not waited for."""
        self._questions.put(None)

    def _run(self) -> None:
        while (question := self._questions.get()) is not None:
            obs, future = question
            start = time.monotonic()
            try:
                actions = self._policy.predict(obs)
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(Answer(actions, float(obs["timestamp"][-1]), time.monotonic() - start))
