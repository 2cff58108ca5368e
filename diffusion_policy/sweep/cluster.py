"""A Ray cluster, as far as sweeps use it: the one file that knows Ray."""

import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

if "ray" not in sys.modules:  # which reads these when it is imported
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES", "")  # NOT_SENT has them
    if (
        Path("~/.ray/auth_token").expanduser().exists()
    ):  # `ray start` then asks for it, and who joins must say he has it
        os.environ.setdefault("RAY_AUTH_MODE", "token")
try:
    import ray
    from ray._private.services import get_ray_address_from_environment
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"sweeps on Ray need {error.name}, which is not installed: pip install 'diffusion_policy[sweep]'",
        name=error.name,
    ) from error

logger = logging.getLogger(__name__)

OBJECT_STORE_BYTES = 80 * 2**20  # Ray asks for 75 MB at least; nothing large passes through it here
NOT_SENT = ("/data", "/outputs", "/multirun", "/wandb", ".git", ".venv", "/tests", "__pycache__")


class ClusterError(RuntimeError):
    """A cluster that cannot be reached, or used as asked."""


@dataclass(frozen=True)
class Resources:
    """What a worker takes for itself."""

    cpus: float
    gpus: float

    def __str__(self) -> str:
        return f"{self.cpus:g} CPU{'s'[: self.cpus != 1]} and {self.gpus:g} GPU{'s'[: self.gpus != 1]}"

    def times_in(self, node: dict[str, Any]) -> int:
        """How many of these fit a node at once; at most 1000, for what takes nothing."""
        free = node["Resources"]
        shares = [(free.get("CPU", 0), self.cpus), (free.get("GPU", 0), self.gpus)]
        return int(min([1000, *(there / each + 1e-9 for there, each in shares if each > 0)]))


class Cluster:
    """Joins the Ray cluster at an address, or starts one that lives as long as this object; use it as a context.

    On a cluster the code is sent along, without data and outputs; a local one runs in the working folder.

    Args:
        address: `local` starts one; `auto` joins that of RAY_ADDRESS or of `ray start` on this machine, or starts one.
        code: root of the repository, the working folder of workers.
        always: arguments of every function that is started.

    Raises:
        ClusterError: nothing answers at the address.
    """

    def __init__(self, address: str, code: Path, **always: Any) -> None:
        self._always = always
        found = _find() if address == "auto" else address
        if found != "local" and not _answers(found):
            if address != "auto":
                raise ClusterError(
                    f"no Ray cluster answers at {address}. Start one with `ray start --head`, or leave the address out"
                )
            logger.warning("The Ray cluster that is said to be at %s does not answer", found)
            found = "local"
        if found == "local":
            logger.info("Starting Ray on this machine%s", ": there is no cluster to join" * (address == "auto"))
            options: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        else:
            logger.info("Joining the Ray cluster at %s", found)
            options = {"runtime_env": {"working_dir": str(code), "excludes": list(NOT_SENT)}}
        self._handler = signal.getsignal(signal.SIGTERM)
        try:
            _init(found, options, attempts=3 if found == "local" else 1)
        except Exception as error:  # Ray raises nothing more special
            raise ClusterError(f"cannot use Ray at {address}: {error}") from error

    def __enter__(self) -> Self:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C; Ray's own shows a stack trace
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        ray.shutdown()
        signal.signal(signal.SIGTERM, self._handler)

    def fit(self, wanted: Resources) -> Resources:
        """What a worker can have: as wanted, or as much of it as the largest machine has, saying so."""
        nodes = [node["Resources"] for node in _nodes()]
        gpus = min(wanted.gpus, max(node.get("GPU", 0.0) for node in nodes))
        cpus = min(wanted.cpus, max(node.get("CPU", 0.0) for node in nodes if node.get("GPU", 0.0) >= gpus))
        fitting = Resources(cpus, gpus)
        if fitting != wanted:
            logger.warning("No machine here has %s: each worker takes %s", wanted, fitting)
        return fitting

    def room(self, resources: Resources, node_id: str | None = None) -> int:
        """How many workers find room at once, on one node or on all."""
        return sum(resources.times_in(node) for node in _nodes() if node_id in (None, node["NodeID"]))

    def roomiest_node(self, resources: Resources) -> str:
        """The node where most workers find room at once."""
        return str(max(_nodes(), key=resources.times_in)["NodeID"])

    def start(
        self, function: Callable[..., Any], resources: Resources, node_id: str | None = None, **arguments: Any
    ) -> Any:
        """Calls a function in a worker as soon as there is room for it; returns what to wait for."""
        options: dict[str, Any] = {"num_cpus": resources.cpus, "num_gpus": resources.gpus, "max_retries": 0}
        if node_id is not None:
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node_id, soft=False)
        task: Any = ray.remote(function)
        return task.options(**options).remote(**self._always, **arguments)

    def ended(self, tasks: Collection[Any], timeout: float | None = 1.0) -> Sequence[Any]:
        """Those of the tasks that have ended, as soon as one has; after `timeout` seconds none."""
        done, _ = ray.wait(list(tasks), timeout=timeout)
        return list(done)

    def failure(self, task: Any) -> str | None:
        """Why a task that has ended failed; None: it did not."""
        try:
            ray.get(task)
        except ray.exceptions.RayTaskError as error:
            return str(error.cause)
        except ray.exceptions.RayError as error:
            return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        return None

    def stop(self, tasks: Collection[Any], timeout: float) -> None:
        """Interrupts tasks (KeyboardInterrupt or SIGINT in the worker), kills those that go on; returns when all ended.

        A KeyboardInterrupt here kills them at once.
        """
        for task in tasks:
            ray.cancel(task)
        try:
            _, going_on = ray.wait(list(tasks), num_returns=len(tasks), timeout=timeout) if tasks else ([], [])
        except KeyboardInterrupt:
            going_on = list(tasks)
        for task in going_on:
            ray.cancel(task, force=True)


def _nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _init(address: str, options: dict[str, Any], attempts: int) -> None:
    """Ray's, which waits for half a minute only, less than it takes to start on a busy machine."""
    try:
        ray.init(address=address, logging_level=logging.WARNING, **options)
    except Exception as error:
        ray.shutdown()
        if attempts <= 1:
            raise
        logger.warning("Ray has not started (%s): trying again", error)
        _init(address, options, attempts - 1)


def _find() -> str:
    """Where the cluster is that RAY_ADDRESS names or that `ray start` began here; `local` if there is none.

    Ray's own `auto` would also join one that another program has started for itself, which ends with that program.
    """
    nothing_given: Any = None
    return get_ray_address_from_environment(nothing_given, nothing_given) or "local"


def _answers(address: str, timeout: float = 5.0) -> bool:
    """Whether something takes connections there; Ray itself would try for two minutes, then end this process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=timeout).close()
    except (OSError, ValueError):
        return False
    return True
