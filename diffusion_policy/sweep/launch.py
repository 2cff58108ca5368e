"""Trains the seeds of a plan on a cluster, with a monitor beside them, and says how it went."""

import logging
from collections.abc import Sequence

from diffusion_policy.sweep.cluster import Cluster, Resources
from diffusion_policy.sweep.jobs import Job, run_jobs
from diffusion_policy.sweep.monitor import Monitor, metrics_folder
from diffusion_policy.sweep.plan import Plan
from diffusion_policy.sweep.sweep_report import result_table

logger = logging.getLogger(__name__)

MONITOR = Resources(cpus=0, gpus=0)  # so that it never waits for the runs that it watches


def run_sweep(
    cluster: Cluster,
    plan: Plan,
    keys: Sequence[str],
    wanted: Resources,
    max_retries: int = 0,
    monitor_max_retries: int = 3,
    single_node: bool = False,
    fail_fast: bool = False,
) -> list[str]:
    """Trains all seeds, as many at a time as there is room for, and aggregates their scores as they come.

    Args:
        keys: scores to aggregate.
        wanted: for each run; where no machine has that much, as much as one has.
        max_retries: how often a run that dies is continued from its last checkpoint.
        monitor_max_retries: how often the monitor is started again.
        single_node: all of them on one machine, that with most room.
        fail_fast: end all when one has failed.

    Returns:
        The names of the runs that failed.
    """
    resources = cluster.fit(wanted)
    node = cluster.roomiest_node(resources) if single_node else None
    n_at_once = min(cluster.room(resources, node), len(plan.seeds))
    logger.info("Training %d seeds, %d at a time, in %s", len(plan.seeds), n_at_once, plan.folder)
    plan.prepare()
    runs = [
        Job(
            name=f"train_{i} (seed {seed})",
            command=plan.train_command(i),
            resources=resources,
            retries=max_retries,
            on_retry=["training.resume=True"],
            folder=folder,
            log=folder / "console.log",
            node_id=node,
        )
        for i, (seed, folder) in enumerate(zip(plan.seeds, plan.run_folders, strict=True))
    ]
    monitor = Job(
        name="monitor",
        command=plan.monitor_command(keys),
        resources=MONITOR,
        retries=monitor_max_retries,
        log=metrics_folder(plan.folder) / "metrics.log",
        capture=False,
        essential=False,
        node_id=node,
    )
    finished = False
    try:
        failed = run_jobs(cluster, [monitor, *runs], fail_fast)
        _report(plan, keys)
        finished = not failed
    finally:
        if not finished:
            logger.info("To continue, add to the same command, behind --: multi_run.run_dir=%s", plan.folder)
    return [job.name for job in failed]


def _report(plan: Plan, keys: Sequence[str]) -> None:
    """Aggregates what all runs have logged, whatever the monitor has come to, and shows it."""
    monitor = Monitor(plan.folder, keys)
    monitor.update()
    if monitor.result is None:
        logger.warning("No run has logged %s", ", ".join(keys))
        return
    logger.info("\n%s", result_table(monitor.result, monitor.labels))
    logger.info("Report: %s", metrics_folder(plan.folder) / "report.html")
