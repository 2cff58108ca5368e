"""Collects demonstrations with a robot that a person drives.

Usage:
    python demo_real_robot.py -o data/demo_pusht_real --robot_ip 192.168.0.204
    python demo_real_robot.py --sim

The SpaceMouse moves the tool in its plane; with the right button held also up and down, with the left one it turns it.
C begins an episode, S saves it, the space bar begins its next stage, Backspace, pressed twice, drops it or the last one,
Q quits. Started again, the script adds to what is there.
"""

from typing import Any

import click

from diffusion_policy.real_world.command_options import log_to_console, required, robot_options

SIM_OUTPUT = "data/demo_sim"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--output", "-o", default=None, help=f"Folder to add the episodes to.  [--sim: {SIM_OUTPUT}]")
@robot_options
@click.option(
    "--n_episodes", "-n", type=click.IntRange(1), default=None, help="Let a script drive so many episodes (--sim)."
)
def main(output: str | None, **options: Any) -> None:
    """Records episodes of the robot to OUTPUT."""
    output_dir = required(output, "'--output' / '-o'", SIM_OUTPUT, options["sim"])
    log_to_console()
    from diffusion_policy.real_world.demonstrating import demonstrate

    try:
        n_episodes = demonstrate(output_dir, **options)
    except KeyboardInterrupt:
        raise click.ClickException("interrupted; the arm was stopped") from None
    except (OSError, RuntimeError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{n_episodes} episodes in {output_dir}")


if __name__ == "__main__":
    main()
