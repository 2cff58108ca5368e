"""Trains by a config: in this process, or in all that a launcher such as torchrun has started.

The first process reads the command line and composes the config; it hands that, and where to write, to the others.
"""

import logging
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import cache

import hydra
import torch.distributed as dist
from omegaconf import DictConfig

from diffusion_policy.common.checkpoint_file import CheckpointError
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.distributed import (
    PROCESS_TIMEOUT_SEC,
    is_first,
    is_launched,
    local_device,
    process_group,
)

POLL_SEC = 0.02
FAREWELL_SEC = 2.0


def launch(first: Callable[[], None]) -> None:
    """Calls `first`, which calls `train`, in the first process; the others train with it."""
    if not is_launched():
        first()
        return
    try:
        if os.environ["RANK"] == "0":
            _lead(first)
        else:
            _follow()
    except BaseException as error:
        _leave(error)


def train(cfg: DictConfig, output_dir: str) -> None:
    """Trains by a resolved config, in all processes."""
    if is_launched():
        _jobs().hand_out(cfg, output_dir)
        _train_together(cfg, output_dir)
    else:
        _train(cfg, output_dir)


class _Jobs:
    """What the first process does, one config after the other, as the others get to know of it."""

    def __init__(self) -> None:
        self._store, _, world_size = next(dist.rendezvous("env://"))
        self._n_others = world_size - 1
        self._number = 0

    @property
    def store(self) -> dist.Store:
        """Where the processes of the present job meet."""
        return dist.PrefixStore(f"job {self._number}", self._store)

    def hand_out(self, cfg: DictConfig, output_dir: str) -> None:
        self._number += 1
        self._tell((cfg, output_dir))

    def end(self) -> None:
        """Tells that there are no more, and waits a moment until all know: the store may be in this process."""
        self._number += 1
        with suppress(dist.DistError):  # the others are gone
            self._tell(None)
            deadline = time.monotonic() + FAREWELL_SEC
            while self.store.add("left", 0) < self._n_others and time.monotonic() < deadline:
                time.sleep(POLL_SEC)

    def take(self) -> tuple[DictConfig, str] | None:
        """The next job, or None after the last; waits for it in a way that can be interrupted."""
        self._number += 1
        try:
            while not self.store.check(["job"]):
                time.sleep(POLL_SEC)
            job: tuple[DictConfig, str] | None = pickle.loads(bytes.fromhex(self.store.get("job").decode()))
            if job is None:
                self.store.add("left", 1)
        except dist.DistError:  # the first process has ended, and the store with it
            return None
        return job

    def _tell(self, job: tuple[DictConfig, str] | None) -> None:
        self.store.set("job", pickle.dumps(job).hex())


def _lead(first: Callable[[], None]) -> None:
    try:
        first()
    finally:
        _jobs().end()


def _follow() -> None:
    logging.basicConfig(level=logging.ERROR, format=f"[process {os.environ['RANK']}] %(message)s")
    while (job := _jobs().take()) is not None:
        _train_together(*job)


def _leave(error: BaseException) -> None:
    """Ends now: leaving as usual waits for what is under way with other processes, which may be gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    code = error.code if isinstance(error, SystemExit) else 1
    if not isinstance(error, SystemExit):
        traceback.print_exception(error)
    elif isinstance(code, str):
        sys.stderr.write(f"{code}\n")
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


@cache
def _jobs() -> _Jobs:
    return _Jobs()


def _train_together(cfg: DictConfig, output_dir: str) -> None:
    timeout_sec = cfg.training.get("process_timeout_sec", PROCESS_TIMEOUT_SEC)
    with process_group(_jobs().store, local_device(cfg.training.device), timeout_sec):
        _train(cfg, output_dir)


def _train(cfg: DictConfig, output_dir: str) -> None:
    workspace = hydra.utils.get_class(cfg._target_)(cfg, output_dir=output_dir)
    if is_launched() and not workspace.trains_together:
        raise ConfigError(f"{cfg._target_} trains in one process only: start it with python, not torchrun")
    try:
        workspace.run()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # comes twice, from the terminal and from torchrun
        stopped = f"Stopped. To continue, add to the same command: hydra.run.dir={output_dir}"
        sys.exit(stopped if is_first() else 1)
    except CheckpointError as error:
        sys.exit(f"Error: {error}")
