import logging
import threading
from contextlib import nullcontext

import pytest
import torch
from disks import bound_by_permissions, full_disk, read_only
from omegaconf import OmegaConf
from training_log import read_log

from diffusion_policy.common.checkpoint_file import CheckpointError, read_checkpoint
from diffusion_policy.common.checkpoint_hash import verify_content
from diffusion_policy.common.config import ConfigError
from diffusion_policy.workspace.base_workspace import BaseWorkspace

FREE = 60_000  # bytes: enough for the log, not for a checkpoint
QUICK = ["training.rollout_every=10", "training.max_train_steps=2", "checkpoint.topk.k=2"]
BY_LOSS = ["checkpoint.topk.monitor_key=train_loss", "checkpoint.topk.mode=min"]
BY_LOSS += ["checkpoint.topk.format_str='epoch={epoch:04d}-train_loss={train_loss:.3f}.ckpt'"]
REFUSALS = {"full": "too large|no space", "read-only": "permission denied"}


class Counter(BaseWorkspace):
    include_keys = ("n",)

    def __init__(self, cfg, output_dir=None):
        super().__init__(cfg, output_dir)
        self.weights = torch.nn.Linear(500, 500)
        self.n = 0


@pytest.fixture
def counter(tmp_path):
    return Counter(OmegaConf.create({"name": "counter"}), str(tmp_path))


def test_a_checkpoint_is_the_state_when_it_was_saved(counter, tmp_path):
    counter.n = 1
    path = counter.save_checkpoint()
    assert path == str(tmp_path / "checkpoints" / "latest.ckpt")
    before = counter.weights.weight.detach().clone()
    with torch.no_grad():
        counter.weights.weight.zero_()
    counter.n = 2
    counter.wait_for_save()
    payload = read_checkpoint(path)
    assert payload["values"] == {"n": 1}
    assert torch.equal(payload["state_dicts"]["weights"]["weight"], before)
    assert verify_content(path)


def test_without_a_thread_the_file_is_there_at_once(counter, tmp_path):
    path = counter.save_checkpoint(tmp_path / "a.ckpt", use_thread=False)
    assert read_checkpoint(path)["values"] == {"n": 0}


def test_saves_follow_each_other_and_loading_waits_for_them(counter):
    for counter.n in range(5):
        counter.save_checkpoint()
    assert counter.load_checkpoint()["values"] == {"n": 4}


def test_a_failed_save_is_heard_of_at_the_next_one_and_in_the_log(counter, tmp_path, caplog):
    counter.save_checkpoint(use_thread=False)
    with full_disk(FREE):
        counter.n = 1
        counter.save_checkpoint()
        with pytest.raises(CheckpointError, match=r"could not save .* earlier checkpoint there is intact"):
            counter.save_checkpoint()
    errors = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "Free space" in errors[0]
    counter.n = 2
    assert read_checkpoint(tmp_path / "checkpoints" / "latest.ckpt")["values"] == {"n": 0}
    counter.save_checkpoint(use_thread=False)
    assert counter.load_checkpoint()["values"] == {"n": 2}


def _refusing(refusal, folder):
    return full_disk(FREE) if refusal == "full" else read_only(folder)


def _refuse_in_epochs(workspace, refusal, epochs):
    """The disk refuses to save what these epochs end in; saves are over before it takes part again."""
    save = workspace._checkpoint

    def save_on_that_disk(record):
        refuses = record["epoch"] in epochs
        with _refusing(refusal, workspace.get_checkpoint_path().parent) if refuses else nullcontext():
            save(record)
            while not workspace._saving.has_ended:
                threading.Event().wait(0.01)

    workspace._checkpoint = save_on_that_disk
    return workspace


@pytest.mark.parametrize("refusal", REFUSALS)
def test_training_outlives_a_failed_save_and_the_next_one_is_as_if_it_had_not_failed(
    make_workspace, tmp_path, caplog, refusal
):
    overrides = [
        *QUICK,
        "training.num_epochs=4",
        "logging.name=a",
        *("multi_run.run_dir=a", "multi_run.wandb_name_base=a"),
    ]
    make_workspace(overrides, tmp_path / "sound").run()
    workspace = _refuse_in_epochs(make_workspace(overrides, tmp_path / "failed"), refusal, {1, 2})
    with bound_by_permissions():
        workspace.run()
    errors = [record.message.lower() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 2
    assert all(any(words in error for words in REFUSALS[refusal].split("|")) for error in errors)
    assert "training goes on (checkpoint.on_save_error=warn)" in caplog.text.lower()
    assert read_log(tmp_path / "failed") == read_log(tmp_path / "sound")
    files = [tmp_path / run / "checkpoints" / "latest.ckpt" for run in ("failed", "sound")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert not list((tmp_path / "failed").rglob("*.tmp"))


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_run_whose_final_checkpoint_is_lost_ends_with_an_error(make_workspace, tmp_path, refusal):
    overrides = [*QUICK, "training.num_epochs=3"]
    workspace = _refuse_in_epochs(make_workspace(overrides), refusal, {1, 2})
    lost = r"final checkpoint is lost: could not save .*hydra\.run\.dir="
    with bound_by_permissions(), pytest.raises(CheckpointError, match=lost):
        workspace.run()
    assert (tmp_path / "run" / "report.html").exists()
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "latest.ckpt")["values"]["epoch"] == 1
    make_workspace(overrides).run()
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "latest.ckpt")["values"]["epoch"] == 3
    assert [record["global_step"] for record in read_log(tmp_path / "run")] == list(range(6))


def test_a_failed_save_ends_training_if_it_is_to(make_workspace, tmp_path):
    overrides = [*QUICK, "training.num_epochs=4", "checkpoint.on_save_error=raise"]
    workspace = _refuse_in_epochs(make_workspace(overrides), "full", {1})
    with pytest.raises(CheckpointError, match="could not save"):
        workspace.run()
    assert workspace.epoch == 2  # at once, not at the next save
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "latest.ckpt")["values"]["epoch"] == 1


def test_best_checkpoints_are_those_that_could_be_saved(make_workspace, tmp_path):
    workspace = make_workspace([*QUICK, *BY_LOSS, "training.num_epochs=4", "training.lr_scheduler=constant"])
    _refuse_in_epochs(workspace, "full", {1, 3})
    with pytest.raises(CheckpointError, match="final checkpoint is lost"):
        workspace.run()
    best = {path.name[:10] for path in (tmp_path / "run" / "checkpoints").glob("epoch=*")}
    assert best == {"epoch=0000", "epoch=0002"}
    assert {name[:10] for name in workspace.topk.state_dict()} == best


def test_an_error_in_the_loop_waits_for_the_save_and_is_not_hidden_by_its_failure(make_workspace, tmp_path, caplog):
    class StopError(Exception):
        pass

    def run(folder, disk):
        workspace = make_workspace(QUICK, folder)
        save = workspace._checkpoint

        def save_then_stop(record):
            save(record)
            raise StopError

        workspace._checkpoint = save_then_stop
        with disk, pytest.raises(StopError):
            workspace.run()
        assert workspace._saving.is_idle

    run(tmp_path / "a", nullcontext())
    assert read_checkpoint(tmp_path / "a" / "checkpoints" / "latest.ckpt")["values"]["epoch"] == 1
    run(tmp_path / "b", full_disk(FREE))
    assert "A checkpoint is missing: could not save" in caplog.text
    assert not list((tmp_path / "b").rglob("*.ckpt"))


def test_an_unknown_policy_for_failed_saves_is_refused(make_workspace):
    with pytest.raises(ConfigError, match="on_save_error must be warn or raise, got 'ignore'"):
        make_workspace(["checkpoint.on_save_error=ignore"])
