"""Strips a checkpoint down to the policy that is evaluated: an eighth of the size, enough for all but resuming."""

import os

import click

from diffusion_policy.common.checkpoint_file import read_checkpoint, write_checkpoint
from diffusion_policy.policy.policy_loading import evaluated_weights


def export_policy(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Writes the evaluated policy (the moving average, if there is one) and its config to `target`."""
    payload = read_checkpoint(source)
    name = evaluated_weights(payload)
    values = {key: payload["values"][key] for key in ("global_step", "epoch")}
    kept = {"cfg": payload["cfg"], "values": values}
    write_checkpoint(target, {**kept, "state_dicts": {name: payload["state_dicts"][name]}})


@click.command()
@click.argument("checkpoint")
@click.argument("output")
def main(checkpoint: str, output: str) -> None:
    """Writes the policy of CHECKPOINT, without what only training needs, to OUTPUT."""
    try:
        export_policy(checkpoint, output)
    except (OSError, RuntimeError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{output}: {os.path.getsize(output) / 1e6:.1f} MB (of {os.path.getsize(checkpoint) / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
