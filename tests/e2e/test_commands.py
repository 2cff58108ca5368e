"""The commands that users type, as they type them."""

import json
import os
import shutil
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

TIMING = {"steps_per_second", "samples_per_second", "peak_memory_mb"}


def _command(script, *arguments):
    return [sys.executable, script, *map(str, arguments)]


def _run(repository, *command, **kwargs):
    options = {"cwd": repository, "capture_output": True, "text": True, "timeout": 300, **kwargs}
    return subprocess.run(_command(*command), stdin=subprocess.DEVNULL, **options)


def _train(run_dir, *overrides):
    return ["train.py", "--config-name=quickstart", *TINY, *overrides, f"hydra.run.dir={run_dir}"]


def _log(folder):
    records = [json.loads(line) for line in Path(folder, "logs.json.txt").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key not in TIMING} for record in records]


LONGER = [
    "training.num_epochs=6",
    "training.checkpoint_every=1",
    "checkpoint.topk.k=2",
    "task.env_runner.max_steps=40",
]


@pytest.fixture(scope="module")
def undisturbed(repository, tmp_path_factory):
    """A run of six epochs that nothing has happened to."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    done = _run(repository, *_train(run, *LONGER))
    assert done.returncode == 0, done.stderr
    assert "Open the report in a browser" in done.stdout
    return run


def test_evaluation_repeats_the_scores_of_training(repository, undisturbed, tmp_path):
    logged = {key: value for key, value in _log(undisturbed)[-1].items() if key.startswith("test/")}
    checkpoint = undisturbed / "checkpoints" / "latest.ckpt"

    done = _run(repository, "eval.py", "-c", checkpoint, "-o", tmp_path / "eval", "-d", "cpu")
    assert done.returncode == 0, done.stderr
    assert f"{logged['test/mean_score']:.3f} [" in done.stdout
    evaluated = json.loads((tmp_path / "eval" / "eval_log.json").read_text())
    assert evaluated == logged
    assert (tmp_path / "eval" / "report.html").is_file()

    # A folder that exists is not overwritten without a yes.
    done = _run(repository, "eval.py", "-c", checkpoint, "-o", tmp_path / "eval", "-d", "cpu")
    assert done.returncode != 0
    assert "already exists" in done.stdout


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_shipped_checkpoint_solves_the_task(repository, tmp_path, precision):
    arguments = [
        "--precision",
        precision,
        "-c",
        "assets/pusht_demo.ckpt",
        "-o",
        tmp_path / "eval",
        "--n_test",
        8,
        "--seed",
        300_000,
    ]
    done = _run(repository, "eval.py", *arguments, "-d", "cpu")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "eval" / "eval_log.json").read_text())
    assert {f"test/sim_max_reward_{seed}" for seed in range(300_000, 300_008)} <= result.keys()
    assert result["test/mean_score"] > 0.7
    videos = list((tmp_path / "eval" / "media").glob("*.mp4"))
    assert len(videos) == 6


def test_kill_at_any_moment_then_resume_equals_an_undisturbed_run(repository, undisturbed, tmp_path):
    log = tmp_path / "killed" / "logs.json.txt"
    for lines in (6, 14):
        process = subprocess.Popen(
            _command(*_train(tmp_path / "killed", *LONGER)),
            cwd=repository,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
        while not (log.exists() and log.read_text().count("\n") >= lines):
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = _run(repository, *_train(tmp_path / "killed", *LONGER))
    assert done.returncode == 0, done.stderr
    assert "Resuming from" in done.stdout

    assert _log(tmp_path / "killed") == _log(undisturbed)
    payloads = [read_checkpoint(run / "checkpoints" / "latest.ckpt") for run in (tmp_path / "killed", undisturbed)]
    killed, whole = (payload["state_dicts"] for payload in payloads)
    for name in ("model", "ema_model"):
        for key, value in whole[name].items():
            assert torch.equal(killed[name][key], value), (name, key)
    assert killed["topk"] == whole["topk"]


def test_full_disk_while_saving_keeps_the_earlier_checkpoint(repository, undisturbed, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    before = (run / "checkpoints" / "latest.ckpt").read_bytes()
    limit = f"ulimit -f {len(before) // 2048}; exec "
    command = " ".join(f"'{word}'" for word in _command(*_train(run, "training.num_epochs=7")))
    done = subprocess.run(
        ["bash", "-c", f"trap '' XFSZ; {limit}{command}"], cwd=repository, capture_output=True, text=True, timeout=300
    )
    assert done.returncode != 0
    assert "could not save the checkpoint" in done.stderr
    assert (run / "checkpoints" / "latest.ckpt").read_bytes() == before
    done = _run(repository, *_train(run, "training.num_epochs=7"))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["train.py", "--config-name=quickstart", "training.device=cuda:9"], "'cuda:9' is not available; there are"),
        (["train.py", "--config-name=quickstart", "training.num_epoch=9"], "num_epoch"),
        (["eval.py", "-c", "absent.ckpt", "-o", "{tmp}/eval"], "Error: no checkpoint at absent.ckpt"),
        (["eval.py", "-c", "README.md", "-o", "{tmp}/eval"], "Error: README.md is not a checkpoint: it is a text file"),
    ],
)
def test_bad_input_is_one_clear_error(repository, tmp_path, command, message):
    words = [word.format(tmp=tmp_path) for word in command]
    if words[0] == "train.py":
        words.append(f"hydra.run.dir={tmp_path / 'run'}")
    done = _run(repository, *words)
    assert done.returncode != 0
    assert message in done.stderr
    assert not list(tmp_path.rglob("*.ckpt"))
