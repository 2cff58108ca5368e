"""Collects demonstrations of Push-T with the mouse.

Usage:
    python demo_pusht.py -o data/pusht_demo.zarr

Move the mouse close to the blue agent to take hold of it, then push the grey T onto the green one. An episode is saved
when the T covers its goal, and the next one starts. Started again, the script goes on where it was left.

R retries the episode, Q quits without saving it, space held pauses.
"""

import click


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("-o", "--output", required=True, help="Zarr folder to append the episodes to; made if absent.")
@click.option("-rs", "--render_size", type=click.IntRange(1), default=96, help="Side of the recorded images, px.")
@click.option("-hz", "--control_hz", type=click.IntRange(1), default=10, help="Steps a second.")
def main(output: str, render_size: int, control_hz: int) -> None:
    """Appends episodes of Push-T, driven by the mouse, to the dataset OUTPUT."""
    from diffusion_policy.common.replay_buffer import ReplayBuffer
    from diffusion_policy.env.pusht.pusht_keypoints_env import PushTKeypointsEnv
    from diffusion_policy.env.pusht.teleoperation import collect_demonstrations

    try:
        replay_buffer = ReplayBuffer.create_from_path(output, mode="a")
        env = PushTKeypointsEnv(render_size=render_size, render_action=False)
        collect_demonstrations(env, replay_buffer, control_hz)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{replay_buffer.n_episodes} episodes in {output}")


if __name__ == "__main__":
    main()
