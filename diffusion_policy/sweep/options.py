"""The options that commands share which run something on Ray."""

from collections.abc import Callable
from typing import TypeVar

import click

F = TypeVar("F", bound=Callable[..., object])

_OPTIONS = (
    click.option("--ray_address", "-ra", default="auto", help="auto: join a cluster, else as local; local: start one."),
    click.option("--num_cpus", "-nc", default=7, type=float, help="Of each worker."),
    click.option("--num_gpus", "-ng", default=1, type=float, help="Of each worker; 0.5: two share one."),
    click.option("--max_retries", "-mr", default=0, type=int, help="How often a worker that dies is started again."),
    click.option("--data_src", "-d", default="./data", type=str, help="Folder that is ./data on each machine."),
    click.option(
        "--unbuffer_python", "-u", is_flag=True, default=False, help="Python's output comes as it is written."
    ),
)


def ray_options(command: F) -> F:
    """Gives a click command these options."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
