"""How much memory there is."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

from diffusion_policy.common.distributed import processes_here

SHARE_OF_FREE_MEMORY = 0.5
"""Most of the free memory that data take unasked."""


def fits(n_bytes: int) -> bool:
    """Whether data may be held in memory, by each of the processes that train on this machine."""
    return n_bytes * processes_here() <= SHARE_OF_FREE_MEMORY * free_memory()


def free_memory(root: Path = Path("/")) -> int:
    """Bytes that can be had without swapping: what the machine, control groups and the process's own limit leave."""
    return max(0, min([_of_machine(root), *_of_control_groups(root), *_of_process(root)]))


def _of_machine(root: Path) -> int:
    meminfo = root / "proc/meminfo"
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _of_process(root: Path) -> Iterator[int]:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    statm = root / "proc/self/statm"
    if limit != resource.RLIM_INFINITY and statm.exists():
        yield limit - int(statm.read_text().split()[0]) * resource.getpagesize()


def _of_control_groups(root: Path) -> Iterator[int]:
    """What is left in each group that the process is in, by version 1 or 2 of Linux's control groups."""
    groups = root / "proc/self/cgroup"
    if not groups.exists():
        return
    for line in groups.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            mount = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        folder = mount / path.lstrip("/")
        for group in (folder, *folder.parents):
            if group.is_relative_to(mount):
                yield from _left_in(group, *names)


def _left_in(group: Path, limit_name: str, usage_name: str, reclaimable_name: str) -> Iterator[int]:
    limit_file, usage_file, stat_file = group / limit_name, group / usage_name, group / "memory.stat"
    if not (limit_file.exists() and usage_file.exists()):
        return
    limit = limit_file.read_text().strip()
    if limit == "max":
        return
    stat = dict(line.split() for line in stat_file.read_text().splitlines()) if stat_file.exists() else {}
    yield int(limit) - int(usage_file.read_text()) + int(stat.get(reclaimable_name, 0))
