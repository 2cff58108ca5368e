"""Calls of functions in a device's process."""

import multiprocessing
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any


class ProcessCalls:
    """The way from the process that started a device to the device's own: one call at a time, each answered."""

    def __init__(self) -> None:
        self._caller, self._callee = multiprocessing.Pipe()
        self._lock = threading.Lock()
        self._n_calls = 0
        self._pending: tuple[int, Future[Any]] | None = None

    def post(self, name: str, *args: Any) -> None:
        """Calls without waiting for an answer, also before the process has started."""
        self._caller.send((None, name, args))

    def call(self, process: BaseProcess, timeout: float, name: str, *args: Any) -> Any:
        """What `name(*args)` returns, or raises, in `process`.

        Raises:
            TimeoutError: the process lives but has not answered for `timeout` s.
            ConnectionError: it has ended.
        """
        with self._lock:
            self._n_calls += 1
            end = time.monotonic() + timeout
            self._caller.send((self._n_calls, name, args))
            while self._caller in (ready := wait([self._caller, process.sentinel], max(end - time.monotonic(), 0))):
                number, result, error = self._caller.recv()
                if number == self._n_calls:  # not the answer to one that was given up
                    if error is not None:
                        raise error
                    return result
        if ready:
            raise ConnectionError(f"no answer to {name}: the process has ended")
        raise TimeoutError(f"no answer to {name} for {timeout} s")

    def answer(self, handlers: Mapping[str, Callable[..., Any]]) -> None:
        """In the device's process: does what was asked for since the last time, without waiting.

        A handler that returns a Future is answered for when that is done. The error of a `post` is raised here.
        """
        while self._pending is None or self._pending[1].done():
            if self._pending is not None:
                self._reply(self._pending[0], self._pending[1].result)
                self._pending = None
            if not self._callee.poll():
                return
            number, name, args = self._callee.recv()
            if number is None:
                handlers[name](*args)
            else:
                self._reply(number, partial(handlers[name], *args))

    def _reply(self, number: int, get_result: Callable[[], Any]) -> None:
        try:
            result = get_result()
        except Exception as error:
            self._callee.send((number, None, error))
            return
        if isinstance(result, Future):
            self._pending = number, result
        else:
            self._callee.send((number, result, None))
