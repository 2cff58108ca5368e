"""Trains a policy with several seeds on a Ray cluster, or on this machine alone, and aggregates their scores.

Usage:
    python ray_train_multirun.py --config-name=train_diffusion_unet_lowdim_workspace --seeds=42,43,44 \\
        --monitor_key=test/mean_score -- logging.mode=online training.num_epochs=500
"""

import logging
import os
import sys
from pathlib import Path

import click
from hydra.errors import HydraException

from diffusion_policy.common.config import ConfigError
from diffusion_policy.sweep.cluster import Cluster, ClusterError, Resources
from diffusion_policy.sweep.launch import run_sweep
from diffusion_policy.sweep.options import ray_options
from diffusion_policy.sweep.plan import make_plan, parse_seeds
from diffusion_policy.sweep.worker import link_data

ROOT = Path(__file__).resolve().parent


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("--config-name", "-cn", required=True, type=str)
@click.option("--config-dir", "-cd", default=None, type=str, help="Where else to look for the config.")
@click.option("--seeds", "-s", default="42,43,44", type=str)
@click.option("--monitor_key", "-k", multiple=True, default=["test/mean_score"], help="Score to aggregate.")
@click.option("--monitor_max_retires", default=3, type=int, help="Times the monitor is started again.")
@click.option("--single_node", "-sn", is_flag=True, default=False, help="run all experiments on a single machine")
@click.option("--fail_fast", "-ff", is_flag=True, default=False, help="End all runs when one has failed.")
@ray_options
@click.argument("command_args", nargs=-1, type=str)
def main(
    config_name, config_dir, seeds, monitor_key, ray_address, num_cpus, num_gpus, max_retries,
    monitor_max_retires, data_src, unbuffer_python, single_node, fail_fast, command_args,
):  # fmt: skip
    """Overrides of the config follow behind --, also multi_run.run_dir: the folder of a sweep to be continued."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    config_dir, data_src = (path and os.path.abspath(path) for path in (config_dir, data_src))
    os.chdir(ROOT)
    try:
        link_data(data_src)
        plan = make_plan(config_name, config_dir, parse_seeds(seeds), command_args)
        with Cluster(ray_address, ROOT, data_src=data_src, unbuffer_python=unbuffer_python) as cluster:
            wanted = Resources(num_cpus, num_gpus)
            failed = run_sweep(
                cluster, plan, monitor_key, wanted, max_retries, monitor_max_retires, single_node, fail_fast
            )
    except KeyboardInterrupt:
        sys.exit("Stopped")
    except (ConfigError, HydraException, ClusterError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    sys.exit(f"Failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
