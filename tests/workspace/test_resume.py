import logging
import shutil

import pytest
from omegaconf import OmegaConf
from training_log import read_log

from diffusion_policy.common.checkpoint_file import CheckpointError, read_checkpoint

QUICK = ["training.rollout_every=10", "training.max_train_steps=2", "checkpoint.topk.k=2"]
BY_AGE = ["checkpoint.topk.monitor_key=epoch", "checkpoint.topk.mode=min", "training.num_epochs=3"]


def _damage(path, how):
    """Another file in its place: the damaged one's other names stay sound."""
    data = bytearray(path.read_bytes())
    path.unlink()
    if how == "flipped":
        data[len(data) // 2] ^= 1
    path.write_bytes({"flipped": data, "cut": data[:-1000], "empty": b"", "foreign": b"not a checkpoint"}[how])


@pytest.fixture
def run(make_workspace, tmp_path):
    """A run of three epochs whose last is not among its best two."""
    workspace = make_workspace([*QUICK, *BY_AGE])
    workspace.cfg.checkpoint.topk.format_str = "epoch={epoch:04d}.ckpt"
    workspace.run()
    folder = tmp_path / "run" / "checkpoints"
    names = {path.name for path in folder.iterdir()}
    assert names == {"epoch=0000.ckpt", "epoch=0001.ckpt", "latest.ckpt"}
    return folder


def _resume(make_workspace, num_epochs=4):
    workspace = make_workspace([*QUICK, *BY_AGE, f"training.num_epochs={num_epochs}"])
    workspace.cfg.checkpoint.topk.format_str = "epoch={epoch:04d}.ckpt"
    workspace.run()


def _warnings(caplog):
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("how", ["flipped", "cut", "empty", "foreign"])
def test_a_damaged_latest_checkpoint_is_reported_and_the_newest_sound_one_used(make_workspace, run, caplog, how):
    expected = [record["train_loss"] for record in read_log(run.parent)]
    _damage(run / "latest.ckpt", how)
    _damage(run / "epoch=0000.ckpt", how)
    (run / "epoch=0001.ckpt").rename(run / "a name of its own.ckpt")
    _resume(make_workspace)
    warnings = _warnings(caplog)
    assert sum("DAMAGED CHECKPOINT" in warning for warning in warnings) == 2
    assert any("latest.ckpt" in warning and "DAMAGED" in warning for warning in warnings)
    assert any("a name of its own.ckpt instead, the newest sound checkpoint" in warning for warning in warnings)
    log = read_log(run.parent)
    assert [record["global_step"] for record in log] == list(range(8))
    assert [record["train_loss"] for record in log[:4]] == expected[:4]
    assert read_checkpoint(run / "latest.ckpt")["values"]["epoch"] == 4


def test_the_newest_is_the_furthest_in_training_whatever_the_file_times(make_workspace, run, caplog):
    (run / "latest.ckpt").unlink()
    (run / "epoch=0000.ckpt").touch()
    caplog.set_level(logging.INFO)
    _resume(make_workspace)
    assert any("latest.ckpt is missing" in warning for warning in _warnings(caplog))
    assert "epoch=0001.ckpt instead, the newest sound checkpoint of the run (step 4)" in caplog.text
    assert [record["global_step"] for record in read_log(run.parent)] == list(range(8))


def test_without_a_sound_checkpoint_nothing_starts_and_nothing_changes(make_workspace, run):
    for path in run.iterdir():
        _damage(path, "cut")
    before = {path: path.read_bytes() for path in run.parent.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match=r"no sound checkpoint in .*epoch=0001\.ckpt.*training\.resume=False"):
        _resume(make_workspace)
    assert {path: path.read_bytes() for path in run.parent.rglob("*") if path.is_file()} == before


def test_resume_false_starts_afresh_whatever_lies_there(make_workspace, run):
    for path in run.iterdir():
        _damage(path, "cut")
    (run / ".latest.ckpt.123.tmp").touch()
    make_workspace([*QUICK, "training.num_epochs=1", "training.resume=false"]).run()
    assert not list(run.glob(".*"))
    assert read_checkpoint(run / "latest.ckpt")["values"]["epoch"] == 1
    assert len(read_log(run.parent)) == 2


def test_an_empty_folder_is_a_fresh_start(make_workspace, tmp_path, caplog):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    make_workspace([*QUICK, "training.num_epochs=1"]).run()
    assert len(read_log(tmp_path / "run")) == 2
    assert not any("CHECKPOINT" in warning for warning in _warnings(caplog))


def test_a_copied_run_resumes_without_its_links(make_workspace, run, tmp_path):
    """Copied to another disk, the names of one file become files of their own."""
    shutil.copytree(run.parent, tmp_path / "copy")
    workspace = make_workspace([*QUICK, *BY_AGE, "training.num_epochs=4"], tmp_path / "copy")
    workspace.run()
    assert OmegaConf.select(workspace.cfg, "training.num_epochs") == workspace.epoch == 4
