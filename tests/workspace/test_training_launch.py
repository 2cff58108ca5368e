import os
import signal
import time

import pytest
from omegaconf import open_dict
from training_log import read_log
from training_processes import run_together, start_together

from diffusion_policy.workspace.base_workspace import BaseWorkspace
from diffusion_policy.workspace.launch import launch, train

BOUND_SEC = 30


class Alone(BaseWorkspace):
    def run(self):
        raise AssertionError


@pytest.fixture
def make_cfg(make_workspace):
    """A config that rolls nothing out, as the command line composes it."""

    def make(*overrides):
        cfg = make_workspace(["task.dataset.zarr_path=assets/pusht_demo.zarr.zip", *overrides]).cfg
        with open_dict(cfg):
            name = "diffusion_policy.env_runner.real_pusht_image_runner.RealPushTImageRunner"
            cfg.task.env_runner = {"_target_": name}
            cfg.checkpoint.topk.monitor_key = "train_loss"
            cfg.checkpoint.topk.format_str = "epoch={epoch:04d}.ckpt"
        return cfg

    return make


def test_others_train_what_the_first_is_told_one_after_the_other(make_cfg, tmp_path):
    cfgs = {name: make_cfg("training.num_epochs=1", f"training.seed={i}") for i, name in enumerate("ab")}
    led = []

    def first():
        for name, cfg in cfgs.items():
            (tmp_path / name).mkdir()
            train(cfg, str(tmp_path / name))
            led.append(name)

    def run():
        launch(first)
        return led

    assert run_together(run, timeout_sec=None) == [["a", "b"], []]
    logs = [read_log(tmp_path / name) for name in cfgs]
    assert [len(log) for log in logs] == [4, 4]
    assert logs[0] != logs[1]


def test_others_end_where_the_first_trains_nothing():
    assert run_together(lambda: launch(lambda: None), timeout_sec=None) == [None, None]


def test_workspaces_that_know_nothing_of_others_are_refused(make_cfg, tmp_path, capfd):
    cfg = make_cfg()
    cfg._target_ = f"{__name__}.Alone"
    codes = _exit_codes(start_together(lambda: launch(lambda: train(cfg, str(tmp_path))), timeout_sec=None))
    assert codes == [1, 1]
    assert "Alone trains in one process only: start it with python, not torchrun" in capfd.readouterr().err


def test_ctrl_c_ends_all_and_says_once_how_to_go_on(make_cfg, tmp_path, capfd):
    cfg = make_cfg("training.num_epochs=100000", "training.checkpoint_every=1")
    started = start_together(lambda: launch(lambda: train(cfg, str(tmp_path))), timeout_sec=None)
    log, deadline = tmp_path / "logs.json.txt", time.monotonic() + 2 * BOUND_SEC
    while not (log.exists() and log.read_text().count("\n") > 12):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for _ in range(2):  # from the terminal, and from torchrun
        for process, _ in started:
            os.kill(process.pid, signal.SIGINT)
    assert _exit_codes(started) == [1, 1]
    assert capfd.readouterr().err.count("Stopped. To continue") == 1


def _exit_codes(started):
    for process, _ in started:
        process.join(BOUND_SEC)
    return [process.exitcode for process, _ in started]
