"""The option that commands share which open checkpoints."""

import click

trust_option = click.option(
    "--trust",
    is_flag=True,
    help="Run whatever code the checkpoint asks for, and build classes outside the known packages. "
    "For checkpoints of your own extensions: a stranger's could do anything on this machine.",
)
