"""What the command lines of the robot's commands share."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from diffusion_policy.real_world.rig_config import CAMERAS, TELEOPS
from diffusion_policy.scripts.trust_option import trust_option

Command = TypeVar("Command", bound=Callable[..., Any])

_ROBOT_OPTIONS = (
    click.option("--robot_ip", "-ri", default=None, help="UR robot's address, such as 192.168.0.204."),
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


_POLICY_OPTIONS = (
    click.option("--input", "-i", "checkpoint", default=None, help="Checkpoint.  [--sim: the last of data/demo_sim]"),
    click.option("--policy_server", default=None, help="ws://HOST:PORT of a policy that is served, instead."),
    click.option("--api_key", default=None, help="That the server wants."),
    click.option("--device", "-d", default="auto", show_default=True, help="auto, cpu, cuda:0, ..."),
    trust_option,
    click.option(
        "--match_dataset", "-m", default=None, help="Recordings whose scenes are shown, to arrange them again."
    ),
    click.option("--match_episode", "-me", type=int, default=None, help="Of them this one, not one after the other."),
    click.option(
        "--steps_per_inference", "-si", type=click.IntRange(1), default=6, show_default=True, help="Of an answer."
    ),
    click.option("--max_duration", "-md", type=float, default=60, show_default=True, help="Of an episode (s)."),
    click.option(
        "--policy_timeout", type=float, default=5.0, show_default=True, help="s without an answer that stop the arm."
    ),
    click.option("--n_episodes", "-n", type=click.IntRange(1), default=None, help="Run so many, with nobody between."),
)


def robot_options(command: Command) -> Command:
    """Adds the options of everything that drives the robot."""
    return _with(command, _ROBOT_OPTIONS)


def policy_options(command: Command) -> Command:
    """Adds the options that say which policy drives it, and how."""
    return _with(command, _POLICY_OPTIONS)


def _with(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def prepare_process() -> None:
    """For a command that talks to a person in the terminal."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("diffusion_policy").setLevel(logging.INFO)
    logging.getLogger("diffusion_policy.real_world.sim.ur_server").setLevel(logging.ERROR)  # it tells of every goodbye


@contextmanager
def errors_told() -> Iterator[None]:
    """Ends a command by one line that says what was wrong, instead of a traceback."""
    try:
        yield
    except KeyboardInterrupt:
        raise click.ClickException("interrupted; the arm was stopped") from None
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        raise click.ClickException(str(error)) from error
