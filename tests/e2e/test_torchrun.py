"""Training on several processes, started as users start it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny import TINY

from diffusion_policy.common.checkpoint_file import read_checkpoint

pytestmark = pytest.mark.slow

BOUND_SEC = 60
RUNNER = "diffusion_policy.env_runner.real_pusht_image_runner.RealPushTImageRunner"
TRAINING = [override for override in TINY if not override.startswith("task.env_runner")]
NOTHING_ROLLED_OUT = ["~task.env_runner", f"+task.env_runner._target_={RUNNER}", "checkpoint.topk.k=0"]


def _children(pid):
    """Processes below one, however deep."""
    found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*found, *(each for child in found for each in _children(child))]


def _ranks(pid):
    environs = {child: Path(f"/proc/{child}/environ").read_bytes() for child in _children(pid)}
    ranks = {}
    for child, environ in environs.items():
        rank = re.search(rb"(?:^|\0)RANK=(\d+)\0", environ)
        if rank and b"train.py" in Path(f"/proc/{child}/cmdline").read_bytes():
            ranks[int(rank[1])] = child
    return ranks


@pytest.fixture
def torchrun(repository, tmp_path):
    processes = []

    def start(*overrides):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "train.py"]
        command += ["--config-name=quickstart", *TRAINING, *NOTHING_ROLLED_OUT, f"hydra.run.dir={tmp_path / 'run'}"]
        with (tmp_path / "output.txt").open("a") as output:
            kwargs = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output, "start_new_session": True}
            processes.append(subprocess.Popen([*command, *overrides], cwd=repository, **kwargs))
        return processes[-1]

    yield start
    for process in processes:
        process.terminate()  # which torchrun passes on: its processes have sessions of their own
        process.wait(BOUND_SEC)


def test_all_end_when_one_is_killed(torchrun, tmp_path):
    log, output = tmp_path / "run" / "logs.json.txt", tmp_path / "output.txt"
    process = torchrun("training.num_epochs=100000", "training.checkpoint_every=1")
    deadline = time.monotonic() + 3 * BOUND_SEC
    while not (log.exists() and log.read_text().count("\n") >= 12):
        assert process.poll() is None, output.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert output.read_text().count("Batches come from data in memory") == 1
    everything, ranks = _children(process.pid), _ranks(process.pid)
    assert sorted(ranks) == [0, 1]
    os.kill(ranks[1], signal.SIGKILL)
    assert process.wait(BOUND_SEC) != 0
    deadline = time.monotonic() + BOUND_SEC
    while any(Path(f"/proc/{child}").exists() for child in everything):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "latest.ckpt", verify_hash=True)["values"]["epoch"] >= 2


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("step", ["graph", "eager"])
def test_two_gpus_train_as_one_does(repository, torchrun, tmp_path, step):
    how = ["training.device=auto", f"training.step={step}", "training.num_epochs=2", "training.max_train_steps=100"]
    how += ["dataloader.batch_size=64", "training.checkpoint_every=1", "training.log_every=20"]
    command = [sys.executable, "train.py", "--config-name=quickstart", *TRAINING, *NOTHING_ROLLED_OUT, *how]
    subprocess.run([*command, f"hydra.run.dir={tmp_path / 'one'}"], cwd=repository, check=True, timeout=300)
    assert torchrun(*how).wait(300) == 0, (tmp_path / "output.txt").read_text()
    late = {}
    for folder in ("one", "run"):
        records = [json.loads(line) for line in (tmp_path / folder / "logs.json.txt").read_text().splitlines()]
        assert len(records) == 200
        late[folder] = sum(record["train_loss"] for record in records[-100:]) / 100
    assert late["run"] == pytest.approx(late["one"], rel=0.05)
