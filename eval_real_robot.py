"""Evaluates a policy on a robot.

Usage:
    python eval_real_robot.py -i CHECKPOINT -o data/eval_pusht_real --robot_ip 192.168.0.204
    python eval_real_robot.py --sim

You drive first, as in demo_real_robot.py, and arrange the scene; C hands the arm to the policy, S takes it back, Q
quits. An episode also ends when it has taken too long, or when the tool is back where demonstrations end.
"""

from typing import Any

import click

from diffusion_policy.real_world.command_options import errors_told, policy_options, prepare_process, robot_options


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--output", "-o", default=None, help="Folder to add the recordings to.  [--sim: data/eval_sim]")
@policy_options
@robot_options
def main(output: str | None, **options: Any) -> None:
    """Lets the policy of a checkpoint, or of a server, drive the robot, and records it to OUTPUT."""
    if output is None and not options["sim"]:
        raise click.UsageError("Missing option '--output' / '-o'.")
    prepare_process()
    with errors_told():
        from diffusion_policy.real_world.evaluating import PolicyOptions, evaluate
        from diffusion_policy.real_world.robot_session import SessionOptions

        policy = PolicyOptions(**{name: options.pop(name) for name in PolicyOptions.__dataclass_fields__})
        session = SessionOptions(output=output or "data/eval_sim", **options)
        total = evaluate(session, policy)
    click.echo(f"{total} episodes in {session.output}")


if __name__ == "__main__":
    main()
