"""Sweeps on a real Ray cluster, whose workers, monitor and driver are killed."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import ray
from processes import is_alive, running, wait_for
from tiny import TINY

from diffusion_policy.common.checkpoint_file import read_checkpoint
from diffusion_policy.sweep.cluster import Cluster, ClusterError, Resources
from diffusion_policy.sweep.jobs import Job, run_jobs
from diffusion_policy.sweep.monitor import Monitor
from diffusion_policy.sweep.worker import FAILURE

pytestmark = pytest.mark.slow

LITTLE = Resources(cpus=0.1, gpus=0)


@pytest.fixture(scope="module")
def cluster(repository):
    """A local Ray, shared by the tests of this module; other drivers may join it."""
    with Cluster("local", repository) as cluster:
        yield cluster


@pytest.fixture
def address(cluster):
    return ray.get_runtime_context().gcs_address


class Driver:
    """A command that a user has started, with the processes whose command lines show what they work on."""

    def __init__(self, repository, folder, *command):
        self.folder = folder
        self.output = folder / "driver.txt"
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, *map(str, command)],
                cwd=repository,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def text(self):
        return self.output.read_text()

    def wait_for(self, condition):
        def found():
            assert self.process.poll() is None, self.text()
            return condition()

        return wait_for(found)

    def wait(self):
        return self.process.wait(300)


@pytest.fixture
def drive(repository, tmp_path):
    drivers = []

    def start(*command):
        drivers.append(Driver(repository, tmp_path, *command))
        return drivers[-1]

    yield start
    for driver in drivers:
        driver.process.kill()
        driver.process.wait()


def workers(*words):
    """Ids of the commands at work, without drivers and what watches the commands."""
    return running(*words, without=("bound.py", "ray_train_multirun.py", "ray_exec.py", "sh -c"))


def sweep(address, folder, *arguments):
    options = ["--config-name=quickstart", "-nc", 0.5, "-ng", 0, "-ra", address]
    short_epochs = [f"training.{key}" for key in ("max_train_steps=1", "val_every=13", "sample_every=1000")]
    rare_rollouts = ["training.rollout_every=13", "task.env_runner.max_steps=8", "task.env_runner.n_test=1"]
    given = [*TINY, *short_epochs, *rare_rollouts, "training.checkpoint_every=1", f"multi_run.run_dir={folder}"]
    return ["ray_train_multirun.py", *options, *arguments[:-1], "--", *given, arguments[-1]]


def test_three_seeds_though_a_worker_and_the_monitor_are_killed(address, drive, tmp_path):
    folder = tmp_path / "sweep"
    driver = drive(*sweep(address, folder, "--max_retries=1", "training.num_epochs=40"))
    checkpoint = driver.wait_for(lambda: next(folder.glob("train_*/checkpoints/latest.ckpt"), None))
    killed = checkpoint.parents[1]
    (trained,) = workers("train.py", killed)
    os.kill(trained, signal.SIGKILL)
    (monitor,) = driver.wait_for(lambda: workers("multirun_metrics.py", folder))
    os.kill(monitor, signal.SIGKILL)
    assert driver.wait() == 0, driver.text()

    for i, seed in enumerate((42, 43, 44)):
        payload = read_checkpoint(folder / f"train_{i}" / "checkpoints" / "latest.ckpt")
        assert payload["values"]["epoch"] == 40
        assert payload["cfg"]["training"]["seed"] == seed
        assert payload["cfg"]["task"]["env_runner"]["test_start_seed"] == (seed + 1) * 100_000
        log = [json.loads(line) for line in (folder / f"train_{i}" / "logs.json.txt").read_text().splitlines()]
        assert [record["global_step"] for record in log] == list(range(40))
        assert ("Resuming from" in (folder / f"train_{i}" / "train.log").read_text()) == (killed.name == f"train_{i}")
    assert not list(folder.rglob(FAILURE))

    assert (folder / "config.yaml").is_file()
    metrics = json.loads((folder / "metrics" / "metrics.json").read_text())
    records = [json.loads(line) for line in (folder / "metrics" / "logs.json.txt").read_text().splitlines()]
    assert [record["global_step"] for record in records] == [0, 13, 26, 39]
    assert metrics["epoch"] == 39
    assert {name.partition("/")[0] for name in metrics if "/" in name} == {
        *("max", "k_around_max", "max_k_window", "last", "metric_global_step"),
        *("min_train_loss", "min_val_loss", "k_min_train_loss", "k_min_val_loss"),
    }
    assert "step 39, mean of 3 runs" in (folder / "metrics" / "metrics.log").read_text()
    assert "train_2 (seed 44)" in (folder / "metrics" / "report.html").read_text()

    told = driver.text()
    label = f"{killed.name} (seed {42 + int(killed.name[-1])})"
    assert f"{label}: killed by SIGKILL. Starting it again (1 of 1). The end of its log:\n    | " in told
    assert "monitor: killed by SIGKILL. Starting it again (1 of 3)" in told
    assert all(f"train_{i} (seed {42 + i}): done" in told for i in range(3))
    assert f"max/test_mean_score               {metrics['max/test_mean_score']:.3f} ± " in told
    wait_for(lambda: not running(folder), 30)


def test_a_sweep_that_is_stopped_leaves_sound_checkpoints_and_no_process(address, drive, tmp_path):
    folder = tmp_path / "sweep"
    driver = drive(*sweep(address, folder, "--seeds=1", "training.num_epochs=100000"))
    driver.wait_for(lambda: (folder / "train_0" / "checkpoints" / "latest.ckpt").exists())
    os.killpg(driver.process.pid, signal.SIGINT)  # as a terminal does
    assert driver.wait() == 1
    wait_for(lambda: not running(folder), 30)
    assert "Stopping monitor, train_0 (seed 1)" in driver.text()
    assert f"To continue, add to the same command, behind --: multi_run.run_dir={folder}" in driver.text()
    assert "Stopped. To continue" in (folder / "train_0" / "console.log").read_text()
    checkpoints = list((folder / "train_0" / "checkpoints").iterdir())
    epochs = {path.name: read_checkpoint(path, verify_hash=True)["values"]["epoch"] for path in checkpoints}
    assert epochs["latest.ckpt"] == max(epochs.values()) > 0


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_command_ends_with_its_driver(address, drive, tmp_path, sent):
    mark = tmp_path / "mark"
    driver = drive("ray_exec.py", "-ra", address, "-nc", 0.1, "-ng", 0, "--", "sh", "-c", f"tail -F {mark}; true")
    driver.wait_for(lambda: workers("tail", mark))
    driver.process.send_signal(sent)
    assert driver.wait() == (1 if sent == signal.SIGTERM else -signal.SIGKILL)
    wait_for(lambda: not running(mark), 60)
    assert ("Stopping sh" in driver.text()) == (sent == signal.SIGTERM)


def test_command_of_a_user_runs_in_a_copy_of_the_code(repository, address, drive, tmp_path):
    """On a cluster. Data are linked, and what is large or of no use there is left out."""
    code = "import os; print(os.getcwd(), os.path.realpath('data'), sorted(os.listdir('.'))); 1 / 0"
    driver = drive("ray_exec.py", "-ra", address, "-nc", 0.1, "-ng", 0, "-mr", 1, "--", "python", "-c", code)
    assert driver.wait() == 1
    told = driver.text()
    assert "ZeroDivisionError" in told
    assert "python: ended with exit code 1 after 2 attempts" in told
    line = next(line for line in told.splitlines() if "'train.py'" in line)
    assert "_ray_pkg_" in line
    assert f" {repository / 'data'} " in line
    assert not any(f"'{name}'" in line for name in ("tests", ".git", ".venv"))


def shell(name, script, tmp_path, **kwargs):
    folder = tmp_path / name
    folder.mkdir()
    return Job(name, ["sh", "-c", script, "sh"], LITTLE, folder=folder, log=folder / "console.log", **kwargs)


def test_worker_processes_that_die_are_replaced(cluster, tmp_path):
    """Not the command, but the process of Ray that it runs in; the command dies too, before it begins again."""
    folder = tmp_path / "victim"
    worker = "$(ps -o ppid= -p $PPID)"  # beyond the process that watches the command
    script = (
        f"cd {folder}; echo {worker} $$ $* >> attempts; test $(wc -l < attempts) = 2 || (kill -9 {worker}; sleep 60)"
    )
    job = shell("victim", script, tmp_path, retries=1, on_retry=["training.resume=True"])
    assert run_jobs(cluster, [job]) == []
    first, second = (line.split() for line in (folder / "attempts").read_text().splitlines())
    assert first[0] != second[0]
    assert second[2:] == ["training.resume=True"]
    assert not is_alive(int(first[1]))


def test_a_job_that_fails_leaves_the_others_alone(cluster, tmp_path, caplog):
    progress = r"printf '10%%|#   |\r20%%|##  |\033[A\n'"  # as bars in bars are shown
    node = cluster.roomiest_node(LITTLE)
    bad = shell("bad", f"{progress}; echo it was this; {progress}; exit 7", tmp_path, retries=1, node_id=node)
    good = shell("good", f"while test ! -e {tmp_path}/bad/{FAILURE}; do sleep 0.1; done", tmp_path)
    helper = shell("helper", f"exec tail -F {tmp_path}/helper/log", tmp_path, essential=False)
    assert run_jobs(cluster, [helper, bad, good]) == [bad]
    reason, *log = (tmp_path / "bad" / FAILURE).read_text().splitlines()
    assert reason == "ended with exit code 7 after 2 attempts"
    assert log == ["", "it was this", "it was this", "20%|##  |"]
    assert "bad: ended with exit code 7 after 2 attempts. The end of its log:\n    | it was this" in caplog.text
    wait_for(lambda: not running(tmp_path / "helper"), 10)


def test_a_job_that_fails_ends_the_others_if_asked_to(cluster, tmp_path):
    bad = shell("bad", f"while test ! -e {tmp_path}/good/begun; do sleep 0.1; done; exit 7", tmp_path)
    good = shell("good", f"touch {tmp_path}/good/begun; exec tail -F {tmp_path}/good/log", tmp_path)
    started = time.monotonic()
    assert run_jobs(cluster, [good, bad], fail_fast=True) == [bad]
    assert time.monotonic() - started < 60
    wait_for(lambda: not running(tmp_path / "good"), 10)


def test_workers_get_what_there_is(cluster, caplog):
    cpus = int(ray.cluster_resources()["CPU"])
    assert cluster.fit(Resources(10_000, 0)) == Resources(cpus, 0)
    assert f"No machine here has 10000 CPUs and 0 GPUs: each worker takes {cpus} CPU" in caplog.text
    assert cluster.fit(LITTLE) == LITTLE
    assert cluster.room(Resources(0.5, 0)) == 2 * cpus
    assert cluster.room(Resources(cpus, 0), cluster.roomiest_node(LITTLE)) == 1


def test_no_cluster_at_the_address(repository):
    with pytest.raises(
        ClusterError, match=r"no Ray cluster answers at 127\.0\.0\.1:1\. Start one with `ray start --head`"
    ):
        Cluster("127.0.0.1:1", repository)


LAUNCHERS = {
    "submitit_local": ["training.seed=43"],
    # In one worker, one after the other, so that it is started once.
    "ray": ["training.seed=42,43", "+hydra.launcher.ray.init.object_store_memory=null"],
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_seeds_by_hydra(repository, cluster, address, tmp_path, launcher):
    options = [f"hydra.sweep.dir={tmp_path / 'sweep'}", f"hydra/launcher={launcher}", *LAUNCHERS[launcher]]
    if launcher == "ray":
        cpus = cluster.fit(Resources(10_000, 0)).cpus
        options += [f"hydra.launcher.ray.init.address='{address}'", f"+hydra.launcher.ray.remote.num_cpus={cpus:g}"]
    short = ["training.num_epochs=1", "task.env_runner.max_steps=8", "task.env_runner.n_test=1"]
    command = [sys.executable, "train.py", "--config-name=quickstart", "--multirun", *TINY, *short, *options]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    runs = sorted((tmp_path / "sweep").glob("[0-9]"))
    seeds = [read_checkpoint(run / "checkpoints" / "latest.ckpt")["cfg"]["training"]["seed"] for run in runs]
    assert seeds == ([42, 43] if launcher == "ray" else [43])

    monitor = Monitor(tmp_path / "sweep", ["test/mean_score"])
    assert monitor.update()
    assert f"{len(seeds) - 1} (seed 43)" in monitor.labels.values()
