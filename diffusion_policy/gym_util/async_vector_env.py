"""gymnasium's AsyncVectorEnv, made to report the failure of an environment's process instead of waiting."""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from typing import Any, cast

import gymnasium
from gymnasium.error import AlreadyPendingCallError
from gymnasium.vector import AutoresetMode
from gymnasium.vector.async_vector_env import AsyncState, _async_worker

from diffusion_policy.gym_util.per_env import Info, add_info, per_env_calls, per_env_seeds

__all__ = ["AsyncState", "AsyncVectorEnv", "EnvWorkerError", "EnvWorkerTimeoutError"]

EnvFn = Callable[[], gymnasium.Env]


class EnvWorkerError(RuntimeError):
    """An environment raised, or its process died. `index` says which of the vector env's environments."""

    def __init__(self, index: int, message: str) -> None:
        super().__init__(f"Environment {index} {message}")
        self.index = index


class EnvWorkerTimeoutError(EnvWorkerError, multiprocessing.TimeoutError):
    """An environment did not answer in time; `index` is the first of those."""


class AsyncVectorEnv(gymnasium.vector.AsyncVectorEnv):
    """Steps environments in parallel, one process each, without auto-reset.

    Observations come batched as `(num_envs, *shape)` in the space's dtype. An environment that raises, a
    process that dies and one that is silent for `timeout` seconds end the call with an `EnvWorkerError`; then
    only `close` is of use.

    Args:
        env_fns: make the environments, each in its own process. They travel by cloudpickle: a function nested
            in another travels whole, so that the worker does not import the module where it stands.
        dummy_env_fn: makes an env of the same spaces for this process, where e.g. OpenGL must not be opened
            (default: `env_fns[0]`).
        observation_space: space of one environment (default: the dummy's).
        action_space: space of one environment (default: the dummy's).
        shared_memory: hand observations over in shared memory instead of through pipes.
        copy: return copies of the observation buffer, not the buffer.
        context: how processes start (default 'forkserver': forking this process is unsafe once it has threads
            or CUDA, and 'spawn' would import the simulator anew for every environment).
        daemon: end the workers with this process; daemons can have no children.
        worker: replaces the function that runs in the processes; for experts.
        timeout: seconds an environment may take for one command; None waits forever.
    """

    def __init__(
        self,
        env_fns: Sequence[EnvFn],
        dummy_env_fn: EnvFn | None = None,
        observation_space: gymnasium.Space | None = None,
        action_space: gymnasium.Space | None = None,
        shared_memory: bool = True,
        copy: bool = True,
        context: str | None = None,
        daemon: bool = True,
        worker: Callable[..., None] | None = None,
        timeout: float | None = None,
    ) -> None:
        if not env_fns:
            raise ValueError("env_fns is empty: give one function for each environment.")
        self.timeout = timeout
        spaces = {"observation_space": observation_space, "action_space": action_space}
        with _main_module_hidden() if worker is None else contextlib.nullcontext():
            super().__init__(
                [_EnvFn(env_fn, dummy_env_fn or env_fns[0], spaces) for env_fn in env_fns],
                shared_memory=shared_memory,
                copy=copy,
                context=context or _default_context(),
                daemon=daemon,
                worker=worker or _worker,
                autoreset_mode=AutoresetMode.DISABLED,
            )

    def seed(self, seeds: int | Sequence[int | None] | None = None) -> None:
        """Calls `seed` of every environment: with `seeds[i]`, or with `seeds + i`."""
        self.call_each("seed", [(seed,) for seed in per_env_seeds(self.num_envs, seeds)])

    def call_each(
        self,
        name: str,
        args_list: Sequence[Sequence[Any]] | None = None,
        kwargs_list: Sequence[dict[str, Any]] | None = None,
        timeout: float | None = None,
    ) -> tuple[Any, ...]:
        """Calls method `name` (or reads the attribute) of each environment with arguments of its own.

        Returns one result for each environment; waits at most `timeout` seconds (default: the vector env's).
        """
        calls = per_env_calls(self.num_envs, args_list, kwargs_list)
        self._assert_is_running()
        if self._state != AsyncState.DEFAULT:
            pending = str(self._state.value)
            raise AlreadyPendingCallError(f"call_each('{name}') while '{pending}' is unanswered.", pending)
        for pipe, (args, kwargs) in zip(self.parent_pipes, calls, strict=True):
            pipe.send(("_call", (name, args, kwargs)))
        self._state = AsyncState.WAITING_CALL
        return self.call_wait(timeout)

    def render(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Calls `render` of every environment."""
        return self.call("render", *args, **kwargs)

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """Ends every process, by force if it is still there after `timeout` seconds (default 5)."""
        for pipe in getattr(self, "parent_pipes", ()):
            # Closing the pipe says the same, unless a process forked meanwhile, such as a data loader's, holds a copy.
            with contextlib.suppress(OSError, EnvWorkerError):
                pipe.send(("close", None))
            pipe.close()
        processes = getattr(self, "processes", ())
        _join(processes, 0 if terminate else 5 if timeout is None else timeout)
        for force in (BaseProcess.terminate, BaseProcess.kill):
            for process in processes:
                if process.is_alive():
                    force(process)
            _join(processes, 1)

    def _check_spaces(self) -> None:
        """Runs once all processes are started: from here on their failures are caught."""
        workers = zip(self.parent_pipes, self.processes, strict=True)
        self._pipes = [_WorkerPipe(i, *worker, self.timeout) for i, worker in enumerate(workers)]
        self.parent_pipes = cast("list[Connection]", self._pipes)
        try:
            super()._check_spaces()
        except BaseException:
            self.close(terminate=True)
            raise

    def _poll_pipe_envs(self, timeout: float | None = None) -> bool:
        """Waits for the answer of every worker, and raises the first failure as soon as it is known."""
        self._assert_is_running()
        timeout = self.timeout if timeout is None else timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        pending = self._pipes
        while pending:
            remaining = None if deadline is None else max(deadline - time.monotonic(), 0)
            ready = wait([pipe.connection for pipe in pending], remaining)
            if not ready:
                raise _timeout_error([pipe.index for pipe in pending], timeout)
            for pipe in pending:
                if pipe.connection in ready:
                    pipe.fetch()
            pending = [pipe for pipe in pending if pipe.connection not in ready]
        return True

    def _add_info(self, vector_infos: Info, env_info: Info, env_num: int) -> Info:
        return add_info(vector_infos, env_info, env_num, self.num_envs)


class _EnvFn:
    """Makes the real env in a worker; in the process that built this, the dummy that shows the spaces."""

    def __init__(self, env_fn: EnvFn, dummy_env_fn: EnvFn, spaces: dict[str, gymnasium.Space | None]) -> None:
        self.env_fn = env_fn
        self.dummy_env_fn = dummy_env_fn
        self.spaces = spaces
        self.parent_pid = os.getpid()

    def __call__(self) -> gymnasium.Env:
        if os.getpid() != self.parent_pid:
            return self.env_fn()
        env = self.dummy_env_fn()
        for name, space in self.spaces.items():
            if space is not None:
                setattr(env, name, space)
        _preload_in_forkserver(env)
        return env


class _WorkerPipe:
    """This process's end of a worker's pipe: raises the worker's failure in place of its answer."""

    def __init__(self, index: int, connection: Connection, process: BaseProcess, timeout: float | None) -> None:
        self.index = index
        self.connection = connection
        self._process = process
        self._timeout = timeout
        self._answer: tuple[Any, bool] | None = None

    def send(self, message: Any) -> None:
        try:
            self.connection.send(message)
        except ConnectionError:
            self.fetch()

    def recv(self) -> tuple[Any, bool]:
        """The worker's next answer and True."""
        if self._answer is None:
            if not self.connection.poll(self._timeout):
                raise _timeout_error([self.index], self._timeout)
            self.fetch()
        answer, self._answer = self._answer, None
        assert answer is not None
        return answer

    def fetch(self) -> None:
        """Reads what the worker sent, for `recv` to return; an `EnvWorkerError` if it failed."""
        try:
            self._answer = self.connection.recv()
        except (EOFError, OSError) as error:
            raise EnvWorkerError(self.index, f"ended unexpectedly: its process {self._cause()}.") from error
        result, success = self._answer
        if not success:
            raise EnvWorkerError(self.index, f"raised an error:\n{result}")

    def close(self) -> None:
        self.connection.close()

    def _cause(self) -> str:
        self._process.join(timeout=1)
        code = self._process.exitcode
        if code is None:
            return "closed its pipe"
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"


class _ErrorsToPipe:
    """Stands in for gymnasium's error queue, which loses exceptions that can't be pickled."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe

    def put(self, error: tuple[int, type, BaseException, str]) -> None:
        self.pipe.send((error[-1], False))


def _worker(
    index: int, env_fn: EnvFn, pipe: Connection, parent_pipe: Connection, memory: Any, _: Any, *settings: Any
) -> None:
    """gymnasium's worker, which here reports failures of `env_fn` too and ends quietly with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    errors = cast("Queue", _ErrorsToPipe(pipe))
    with contextlib.suppress(ConnectionError):  # the parent has gone
        try:
            _async_worker(index, env_fn, pipe, parent_pipe, memory, errors, *settings)
        except Exception:
            pipe.send((traceback.format_exc(), False))


def _default_context() -> str | None:
    return "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else None


@contextlib.contextmanager
def _main_module_hidden() -> Iterator[None]:
    """Keeps new processes from importing the script that runs, with all it imports (torch, say).

    They need nothing of it: cloudpickle sends along what env_fns refer to there.
    """
    main = vars(sys.modules["__main__"])
    names: list[str] = [name for name in ("__file__", "__spec__") if name in main]
    hidden = {name: main.pop(name) for name in names}
    main["__spec__"] = None
    try:
        yield
    finally:
        main.update(hidden)


def _preload_in_forkserver(env: gymnasium.Env) -> None:
    """Has the fork server, unless it runs already, import once for all workers what `env` is made of."""
    modules = {__name__, type(env.unwrapped).__module__}
    while isinstance(env, gymnasium.Wrapper):
        modules.add(type(env).__module__)
        env = env.env
    multiprocessing.set_forkserver_preload(sorted(modules - {"__main__"}))


def _join(processes: Sequence[BaseProcess], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    for process in processes:
        process.join(max(deadline - time.monotonic(), 0))


def _timeout_error(indices: list[int], timeout: float | None) -> EnvWorkerTimeoutError:
    message = f"did not answer within {timeout} s (waiting for environments {indices})."
    return EnvWorkerTimeoutError(indices[0], message)
