"""Runs a command on a Ray cluster, or on this machine alone, with the repository as its working folder.

Usage:
    python ray_exec.py --num_gpus=1 --max_retries=2 -- python train.py --config-name=... hydra.run.dir=data/outputs/run
"""

import logging
import os
import sys
from pathlib import Path

import click

from diffusion_policy.sweep.cluster import Cluster, ClusterError, Resources
from diffusion_policy.sweep.jobs import Job, run_jobs
from diffusion_policy.sweep.options import ray_options
from diffusion_policy.sweep.worker import link_data, worker_fn  # noqa: F401 - worker_fn also for who imports it from here

ROOT = Path(__file__).resolve().parent


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@ray_options
@click.argument("command_args", nargs=-1, type=str)
def main(ray_address, num_cpus, num_gpus, max_retries, data_src, unbuffer_python, command_args):
    """The command follows behind --; its output is shown here."""
    if not command_args:
        raise click.UsageError("no command is given: it follows behind --")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    data_src = os.path.abspath(data_src)
    os.chdir(ROOT)
    try:
        link_data(data_src)
        with Cluster(ray_address, ROOT, data_src=data_src, unbuffer_python=unbuffer_python) as cluster:
            resources = cluster.fit(Resources(num_cpus, num_gpus))
            failed = run_jobs(cluster, [Job(command_args[0], command_args, resources, retries=max_retries)])
    except KeyboardInterrupt:
        sys.exit("Stopped")
    except (ClusterError, OSError) as error:
        raise click.ClickException(str(error)) from error
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
