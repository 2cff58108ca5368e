"""Processes that train together, forked from the test: what they need is imported once."""

import multiprocessing
import os
import socket
import time
import traceback
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle
import torch
import torch.distributed as dist

from diffusion_policy.common.distributed import process_group

CPU = torch.device("cpu")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def environment(rank: int, world_size: int, port: int) -> dict[str, str]:
    """What torchrun tells a process on one machine."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size}
    return {
        **{key: str(number) for key, number in numbers.items()},
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def start_together(
    function: Callable[[], Any], n: int = 2, timeout_sec: float | None = 60
) -> list[tuple[Any, Connection]]:
    """Starts `function` in n processes; of each, the process and where what it returns, or its error, is received.

    Args:
        timeout_sec: of the group that they are in; None lets them join one themselves.
    """
    port, fork = free_port(), multiprocessing.get_context("fork")
    started = []
    for rank in range(n):
        here, there = fork.Pipe()
        process = fork.Process(target=_work, args=(function, environment(rank, n, port), there, timeout_sec))
        process.start()
        there.close()
        started.append((process, here))
    return started


def receive(pipe: Connection) -> tuple[bool, Any]:
    """Whether a process failed, and its error or what it returned."""
    result: tuple[bool, Any] = cloudpickle.loads(pipe.recv_bytes())
    return result


def run_together(function: Callable[[], Any], n: int = 2, timeout_sec: float | None = 60) -> list[Any]:
    """What `function` returns in each of n processes.

    Raises:
        RuntimeError: with the tracebacks of those that fail.
    """
    results, errors = [], []
    started = start_together(function, n, timeout_sec)
    for _, pipe in started:
        try:
            is_error, result = receive(pipe)
        except EOFError:
            is_error, result = True, "a process was killed"
        (errors if is_error else results).append(result)
    for process, _ in started:
        process.join()
    if errors:
        raise RuntimeError("\n".join(errors))
    return results


def _work(function: Callable[[], Any], environ: dict[str, str], pipe: Connection, timeout_sec: float | None) -> None:
    os.environ.update(environ)
    forkserver._forkserver.__init__()  # the test's own is no child of this process
    try:
        if timeout_sec is None:
            _send(pipe, (False, function()))
            return
        is_first, everyone = environ["RANK"] == "0", [f"done {i}" for i in range(int(environ["WORLD_SIZE"]))]
        store = dist.TCPStore("127.0.0.1", int(environ["MASTER_PORT"]), is_master=is_first)
        with process_group(store, CPU, timeout_sec):
            result = function()
        _send(pipe, (False, result))
        store.set(f"done {environ['RANK']}", "")
        while is_first and not store.check(everyone):  # the store is in this process
            time.sleep(0.01)
    except BaseException:
        _send(pipe, (True, traceback.format_exc()))
        os._exit(1)


def _send(pipe: Connection, result: tuple[bool, Any]) -> None:
    pipe.send_bytes(cloudpickle.dumps(result))  # tensors by value, unlike what multiprocessing does
