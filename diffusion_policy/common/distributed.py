"""Processes that train together: who this one is, and what they tell each other.

`torchrun` starts them. A process by itself is the first of one, and nothing here does anything to what it is given.
"""

import functools
import gc
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import ParamSpec, TypeVar

import cloudpickle
import torch
import torch.distributed as dist
from torch import Tensor

from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.device import resolve_device

P = ParamSpec("P")
T = TypeVar("T")

PROCESS_TIMEOUT_SEC = 1800.0
"""How long one process waits for another unless `training.process_timeout_sec` says otherwise (s)."""

BROADCAST_BYTES = 250_000_000
"""What is sent at a time."""

LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def is_launched() -> bool:
    """Whether a launcher, such as torchrun, started this process beside others."""
    return all(name in os.environ for name in LAUNCHER_VARIABLES) and int(os.environ["WORLD_SIZE"]) > 1


def processes_here() -> int:
    """How many processes train on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if is_launched() else 1


def local_device(name: str) -> torch.device:
    """The device of a name; of launched processes, each has the GPU of its own number on its machine.

    Raises:
        ConfigError: the name is that of one GPU, or there are more processes than GPUs.
        ValueError: there is no such device.
    """
    device = resolve_device(name)
    if device.type != "cuda" or not is_launched():
        return device
    if name not in ("auto", "cuda", "cuda:0"):
        raise ConfigError(f"training.device={name} is one GPU, and each process needs its own: use auto")
    index = int(os.environ["LOCAL_RANK"])
    if index >= torch.cuda.device_count():
        raise ConfigError(
            f"there are {torch.cuda.device_count()} GPUs for {processes_here()} processes: start at most one for each "
            "(torchrun --nproc_per_node), or train with training.device=cpu"
        )
    return torch.device("cuda", index)


@contextmanager
def process_group(store: dist.Store, device: torch.device, timeout_sec: float) -> Iterator[None]:
    """Joins the launched processes, which meet through `store`, while the block runs.

    Args:
        device: what this process trains on; GPUs talk through NCCL, CPUs through Gloo.
        timeout_sec: how long one may wait for another before it ends with an error.
    """
    # NVLink's multicast does not pay for a few GPUs, and not every host allows it. Read when NCCL starts.
    os.environ.setdefault("NCCL_NVLS_ENABLE", "0")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        store=store,
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=timedelta(seconds=timeout_sec),
    )
    yield
    gc.collect()  # CUDA graphs that hold operations of NCCL have to go before it does
    dist.destroy_process_group()  # not after an error: it might wait for a process that is gone


def rank() -> int:
    """Number of this process among those that train together."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this is the process that writes files and talks to the user."""
    return rank() == 0


def first_only(function: Callable[P, None]) -> Callable[P, None]:
    """Has a function do nothing in all processes but the first."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        if is_first():
            function(*args, **kwargs)

    return call


def gather(value: T) -> list[T]:
    """The values of all processes, in their order."""
    if world_size() == 1:
        return [value]
    pickles = [b""] * world_size()
    dist.all_gather_object(pickles, cloudpickle.dumps(value))
    return [cloudpickle.loads(each) for each in pickles]


def mean_(tensor: Tensor) -> Tensor:
    """Makes a tensor its mean over the processes, in place, and returns it."""
    if world_size() > 1:
        dist.all_reduce(tensor)
        tensor /= world_size()
    return tensor


@torch.no_grad()
def broadcast_(tensors: Iterable[Tensor]) -> None:
    """Makes tensors those of the first process, in place."""
    values = [tensor.detach() for tensor in tensors] if world_size() > 1 else []
    group = dist.group.WORLD
    if values and group is not None:
        dist._broadcast_coalesced(group, values, BROADCAST_BYTES, 0)
