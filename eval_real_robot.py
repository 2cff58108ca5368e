"""Evaluates a policy on a robot.

Usage:
    python eval_real_robot.py -i data/outputs/.../checkpoints/latest.ckpt -o data/eval_pusht_real --robot_ip 192.168.0.204
    python eval_real_robot.py --sim

You drive first, as in demo_real_robot.py, and arrange the scene; C hands the arm to the policy, S takes it back, Q quits.
An episode also ends when it has taken too long, or when the tool is back where demonstrations end.
"""

from typing import Any

import click

from diffusion_policy.real_world.command_options import log_to_console, required, robot_options
from diffusion_policy.scripts.trust_option import trust_option

SIM_OUTPUT = "data/eval_sim"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--input", "-i", "checkpoint", default=None, help="Checkpoint.  [--sim: the last trained on data/demo_sim]"
)
@click.option("--output", "-o", default=None, help=f"Folder to add the recordings to.  [--sim: {SIM_OUTPUT}]")
@robot_options
@click.option(
    "--match_dataset", "-m", default=None, help="Recordings whose scenes are shown to arrange the next alike."
)
@click.option(
    "--match_episode", "-me", type=int, default=None, help="Match this episode of them, not one after the other."
)
@click.option(
    "--steps_per_inference",
    "-si",
    type=click.IntRange(1),
    default=6,
    show_default=True,
    help="Steps from question to question.",
)
@click.option("--max_duration", "-md", type=float, default=60, show_default=True, help="Of an episode (s).")
@click.option(
    "--n_episodes", "-n", type=click.IntRange(1), default=None, help="Run so many, with no person in between."
)
@click.option("--device", "-d", default="auto", show_default=True, help="auto, cpu, cuda:0, ...")
@click.option(
    "--policy_server", default=None, help="ws://HOST:PORT of a policy that is served, instead of a checkpoint."
)
@click.option("--api_key", default=None, help="That the server wants.")
@click.option(
    "--policy_timeout",
    type=float,
    default=5.0,
    show_default=True,
    help="Without an answer for so long the arm is stopped (s).",
)
@trust_option
def main(output: str | None, **options: Any) -> None:
    """Lets the policy of a checkpoint, or of a server, drive the robot, and records it to OUTPUT."""
    output_dir = required(output, "'--output' / '-o'", SIM_OUTPUT, options["sim"])
    log_to_console()
    from diffusion_policy.real_world.evaluating import evaluate

    try:
        n_episodes = evaluate(output_dir, **options)
    except KeyboardInterrupt:
        raise click.ClickException("interrupted; the arm was stopped") from None
    except (OSError, RuntimeError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{n_episodes} episodes in {output_dir}")


if __name__ == "__main__":
    main()
