"""Kills real training runs at random moments and resumes them; run as a script, which writes what happened as JSON.

One process imports everything and forks the others, which train at once.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import hydra
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict
from tiny import TINY
from training_log import read_log

from diffusion_policy.common.checkpoint_file import read_checkpoint
from diffusion_policy.common.checkpoint_hash import content_hash
from diffusion_policy.common.config import register_resolvers
from diffusion_policy.workspace import train_workspace  # noqa: F401 - for the forked processes

K = 2
OVERRIDES = [
    *("training.num_epochs=60", "training.max_train_steps=1", "dataloader.batch_size=4"),
    *("training.rollout_every=1000", "training.val_every=1000", "training.sample_every=1000"),
    *("policy.model.down_dims=[48,96]", f"checkpoint.topk.k={K}", "checkpoint.topk.mode=min"),
    "checkpoint.topk.monitor_key=train_loss",
]


def make_cfg(repository, demonstrations):
    register_resolvers()
    with initialize_config_dir(str(repository / "diffusion_policy" / "config"), version_base=None):
        cfg = compose("quickstart", overrides=[*TINY, *OVERRIDES, f"task.dataset.zarr_path={demonstrations}"])
    OmegaConf.resolve(cfg)
    with open_dict(cfg):  # nothing is rolled out: all the time goes into training and saving
        name = "diffusion_policy.env_runner.real_pusht_image_runner.RealPushTImageRunner"
        cfg.task.env_runner = {"_target_": name}
    cfg.checkpoint.topk.format_str = "epoch={epoch:04d}-train_loss={train_loss:.6f}.ckpt"
    return cfg


def start(cfg, folder):
    """Forks a process that trains in a folder; returns its id and a pipe with a byte for each save that begins."""
    told, tell = os.pipe()
    process = os.fork()
    if process:
        os.close(tell)
        return process, told
    code = 1
    try:
        output = os.open(folder.with_suffix(".txt"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        workspace = hydra.utils.get_class(cfg._target_)(cfg, output_dir=str(folder))
        save = workspace._checkpoint

        def tell_and_save(record):
            os.write(tell, b"!")
            save(record)

        workspace._checkpoint = tell_and_save
        workspace.run()
        code = 0
    finally:
        os._exit(code)


def train(cfg, folder):
    process, told = start(cfg, folder)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    os.close(told)
    if code:
        sys.exit(f"a run ended with {code}: {folder.with_suffix('.txt').read_text()[-3000:]}")


def kill(cfg, folder, n_saves, delay):
    """Kills a run some time after so many of its saves began; returns whether it was killed, or ended before."""
    process, told = start(cfg, folder)
    for _ in range(n_saves):
        os.read(told, 1)
    time.sleep(delay)
    os.kill(process, signal.SIGKILL)
    os.close(told)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if code not in (0, -signal.SIGKILL):
        sys.exit(f"a run ended with {code}: {folder.with_suffix('.txt').read_text()[-3000:]}")
    return code != 0


def check(folder):
    """Everything that has the name of a checkpoint is sound, the best are there; returns the step to resume from."""
    checkpoints = folder / "checkpoints"
    payloads = {path.name: read_checkpoint(path) for path in checkpoints.glob("*.ckpt")}
    if not payloads:
        return 0
    newest = max(payloads, key=lambda name: payloads[name]["values"]["global_step"])
    latest = payloads.get("latest.ckpt", payloads[newest])
    table = latest["state_dicts"]["topk"]
    missing = set(sorted(table, key=table.__getitem__)[:K]) - payloads.keys()
    if missing:
        sys.exit(f"the best checkpoints {missing} are gone")
    return latest["values"]["global_step"]


def outcome(folder):
    hashes = {path.name: content_hash(path) for path in sorted((folder / "checkpoints").iterdir())}
    return {"files": hashes, "log": read_log(folder)}


def main(repository, demonstrations, folder, n_kills):
    cfg = make_cfg(Path(repository), demonstrations)
    folder = Path(folder)
    runs = [folder / "undisturbed", folder / "killed0"]
    for run in runs:
        run.mkdir()
    started = time.perf_counter()
    train(cfg, runs[0])
    epoch = (time.perf_counter() - started) / cfg.training.num_epochs  # with its save; as the machine is loaded now
    moments = random.Random(0)
    steps, while_saving = [], 0
    for number in range(int(n_kills)):
        n_saves = number % 4  # none: also while it starts, reads and cleans up
        while not kill(cfg, runs[-1], n_saves, moments.uniform(0, epoch if n_saves else 10 * epoch)):
            runs.append(folder / f"killed{len(runs) - 1}")  # that one was done
            runs[-1].mkdir()
        while_saving += any((runs[-1] / "checkpoints").glob(".*.tmp"))
        steps.append(check(runs[-1]))
    train(cfg, runs[-1])
    expected = outcome(runs[0])
    equal = [outcome(run) == expected for run in runs]
    result = {"equal": equal, "steps": steps, "while_saving": while_saving, "files": list(expected["files"])}
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
