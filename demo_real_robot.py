"""Collects demonstrations with a robot that a person drives.

Usage:
    python demo_real_robot.py -o data/demo_pusht_real --robot_ip 192.168.0.204
    python demo_real_robot.py --sim

The SpaceMouse moves the tool in its plane; with the right button held also up and down, with the left one it turns it.
C begins an episode, S saves it, the space bar begins its next stage, Backspace, pressed twice, drops it or the last
one, Q quits. Started again, the script adds to what is there.
"""

from typing import Any

import click

from diffusion_policy.real_world.command_options import errors_told, prepare_process, robot_options


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--output", "-o", default=None, help="Folder to add the episodes to.  [--sim: data/demo_sim]")
@robot_options
@click.option("--n_episodes", "-n", type=click.IntRange(1), default=None, help="With --sim: by a script, so many.")
def main(output: str | None, n_episodes: int | None, **options: Any) -> None:
    """Records demonstrations on the robot to OUTPUT."""
    if output is None and not options["sim"]:
        raise click.UsageError("Missing option '--output' / '-o'.")
    prepare_process()
    with errors_told():
        from diffusion_policy.real_world.demonstrating import demonstrate
        from diffusion_policy.real_world.robot_session import SessionOptions

        session = SessionOptions(output=output or "data/demo_sim", **options)
        total = demonstrate(session, n_episodes)
    click.echo(f"{total} episodes in {session.output}")


if __name__ == "__main__":
    main()
