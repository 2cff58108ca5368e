"""Options that the robot's commands share."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from diffusion_policy.real_world.rig_config import CAMERAS, TELEOPS

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--robot_ip", "-ri", default=None, help="UR robot's address, such as 192.168.0.204; none for --sim."),
    click.option("--vis_camera_idx", default=0, show_default=True, help="Camera to show."),
    click.option("--init_joints", "-j", is_flag=True, help="First move the arm to the joint angles of demonstrations."),
    click.option("--frequency", "-f", type=float, default=10, show_default=True, help="Steps a second (Hz)."),
    click.option(
        "--command_latency",
        "-cl",
        type=float,
        default=0.01,
        show_default=True,
        help="From reading the teleoperation device to the end of a step (s).",
    ),
    click.option(
        "--sim", is_flag=True, help="Everything simulated: robot, cameras, SpaceMouse. No hardware is needed."
    ),
    click.option("--sim_seed", default=0, show_default=True, help="Of where the block lies in the first episode."),
    click.option("--camera", type=click.Choice(CAMERAS), default=None, help="Kind of cameras.  [default: realsense]"),
    click.option(
        "--teleop", type=click.Choice(TELEOPS), default=None, help="What drives the arm.  [default: spacemouse]"
    ),
    click.option("--rig", default=None, help="File with settings of cameras, teleoperation and robot (yaml)."),
    click.option(
        "--on_fault",
        type=click.Choice(["save", "drop"]),
        default="save",
        show_default=True,
        help="What becomes of an episode that a fault ends.",
    ),
)


def robot_options(command: Command) -> Command:
    """Adds the options to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def required(given: str | None, name: str, sim_default: str | None, sim: bool) -> str:
    """An option that `--sim` has a default for.

    Raises:
        click.UsageError: it is missing.
    """
    value = given or (sim_default if sim else None)
    if value is None:
        raise click.UsageError(f"Missing option {name}." + (" (--sim needs none.)" if sim_default is not None else ""))
    return value
