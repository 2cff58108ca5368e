import multiprocessing
import resource

import numpy as np
import pytest
from training_processes import environment

from diffusion_policy.common.memory import fits, free_memory

GB = 10**9


def _machine(root, files):
    """A tree of files as Linux has them, with 8 GB available."""
    files = {"proc/meminfo": "MemTotal: 16000000 kB\nMemAvailable: 7812500 kB\n", **files}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def _group(folder, limit, used, names, reclaimable=0):
    limit_name, used_name, reclaimable_name = names
    return {
        f"{folder}/{limit_name}": f"{limit}\n",
        f"{folder}/{used_name}": f"{used}\n",
        f"{folder}/memory.stat": f"anon 5\n{reclaimable_name} {reclaimable}\n",
    }


V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = ("memory.max", "memory.current", "inactive_file")


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        (None, {}, 8 * GB),
        ("0::/\n", {}, 8 * GB),
        ("0::/\n", _group("sys/fs/cgroup", 4 * GB, 3 * GB, V2, GB), 2 * GB),
        ("0::/\n", _group("sys/fs/cgroup", "max", 3 * GB, V2), 8 * GB),
        ("0::/a/b\n", _group("sys/fs/cgroup/a", 5 * GB, 4 * GB, V2), GB),
        ("0::/a/b\n", _group("sys/fs/cgroup/a/b", 5 * GB, 6 * GB, V2), 0),
        ("3:cpu:/x\n2:memory:/c\n", _group("sys/fs/cgroup/memory/c", 4 * GB, GB, V1), 3 * GB),
        ("3:cpu:/x\n2:memory:/c\n", _group("sys/fs/cgroup/memory", 9223372036854771712, GB, V1), 8 * GB),
    ],
)
def test_the_tightest_limit_counts(tmp_path, groups, files, expected):
    groups = {} if groups is None else {"proc/self/cgroup": groups}
    assert free_memory(_machine(tmp_path, {**groups, **files})) == expected


def _under_a_limit(pipe):
    free = free_memory()
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + GB // 2, size + GB // 2))
    pipe.send((free, free_memory()))


def test_a_limit_of_the_process_counts():
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    process = fork.Process(target=_under_a_limit, args=(there,))
    process.start()
    free, limited = here.recv()
    process.join()
    assert limited <= GB // 2 < free
    assert limited > GB // 4


def test_processes_that_train_on_a_machine_share_its_memory(monkeypatch):
    n_bytes = free_memory() // 3
    assert fits(n_bytes)
    for key, value in environment(0, 4, 1).items():
        monkeypatch.setenv(key, value)
    assert not fits(n_bytes)
    assert not fits(int(np.iinfo(np.int64).max))
