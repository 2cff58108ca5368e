"""Whole trainings by several processes, held against those by one."""

import pytest
import torch
from omegaconf import open_dict
from training_log import read_log
from training_processes import run_together

from diffusion_policy.common.checkpoint_file import read_checkpoint
from diffusion_policy.common.distributed import rank

BET = "train_bet_lowdim_workspace"
NO_DROPOUT = [f"+policy.state_prior.{where}_pdrop=0" for where in ("embd", "attn", "resid")]
NOTHING_ROLLED_OUT = "diffusion_policy.env_runner.real_pusht_image_runner.RealPushTImageRunner"


@pytest.fixture
def train(make_workspace, tmp_path):
    """Trains in n processes; returns the log, and the weights of each by name."""

    def train(name, n, *overrides, config="quickstart", rolls_out=False):
        def run():
            data = "task.dataset.zarr_path=assets/pusht_demo.zarr.zip"
            folder = name(rank()) if callable(name) else name
            workspace = make_workspace([data, *overrides], tmp_path / folder, config)
            if not rolls_out:
                with open_dict(workspace.cfg):
                    workspace.cfg.task.env_runner = {"_target_": NOTHING_ROLLED_OUT}
                    workspace.cfg.checkpoint.topk.monitor_key = "train_loss"
                    workspace.cfg.checkpoint.topk.format_str = "epoch={epoch:04d}.ckpt"
            workspace.run()
            return _weights(workspace)

        weights = [run()] if n == 1 else run_together(run, n)
        return read_log(tmp_path / (name(0) if callable(name) else name)), weights

    return train


def _weights(workspace):
    models = {"model": workspace.model, "ema_model": workspace.ema_model}
    return {
        f"{name}.{key}": value.clone()
        for name, model in models.items()
        if model is not None
        for key, value in model.state_dict().items()
    }


def _assert_equal(weights, others):
    assert weights.keys() == others.keys()
    for key, value in weights.items():
        assert torch.equal(value, others[key]), key


def _saved(folder):
    states = read_checkpoint(folder / "checkpoints" / "latest.ckpt")["state_dicts"]
    return {f"{name}.{key}": value for name in ("model", "ema_model") for key, value in states[name].items()}


def test_two_processes_train_as_one_does(train, tmp_path):
    """BET draws nothing while it trains, so the losses are the same but for rounding, and so is all that follows."""
    overrides = ["training.num_epochs=1", "training.max_train_steps=12", "training.max_val_steps=3", *NO_DROPOUT]
    overrides += ["training.gradient_accumulate_every=2", "training.grad_norm_clip=1.0", "task.env_runner.n_test=3"]
    logs = [train(str(n), n, *overrides, config=BET, rolls_out=True)[0] for n in (1, 2)]
    assert len(logs[0]) == 12
    for mine, theirs in zip(*logs, strict=True):
        assert mine.keys() == theirs.keys()
        for key in mine.keys() - {"train_action_mse_error"}:  # its sampling draws
            assert mine[key] == pytest.approx(theirs[key], rel=1e-4, abs=1e-7), key
    assert "test/sim_max_reward_100002" in logs[0][-1]
    assert (tmp_path / "2" / "report.html").exists()


def test_losses_with_noise_agree_within_it(train, tmp_path):
    overrides = ["training.num_epochs=1", "training.max_train_steps=50", "dataloader.batch_size=32"]
    (one, _), (two, (first, second)) = (train(str(n), n, *overrides) for n in (1, 2))
    early, late = ([_mean_loss(log, steps) for log in (one, two)] for steps in (slice(0, 10), slice(-25, None)))
    assert late[0] < 0.7 * early[0]
    assert late[1] == pytest.approx(late[0], rel=0.05)
    assert late[1] != late[0]
    _assert_equal(first, second)
    _assert_equal(_saved(tmp_path / "2"), first)


def _mean_loss(log, steps):
    return sum(record["train_loss"] for record in log[steps]) / len(log[steps])


def test_goes_on_as_if_it_had_not_been_stopped(train, tmp_path):
    how = ["training.lr_scheduler=constant", "training.checkpoint_every=1"]
    whole, (weights, _) = train("whole", 2, "training.num_epochs=4", *how)
    train("parts", 2, "training.num_epochs=2", *how)
    parts, _ = train("parts", 2, "training.num_epochs=4", *how)
    assert parts == whole
    _assert_equal(_saved(tmp_path / "parts"), weights)


def test_goes_on_with_another_number_of_processes(train, tmp_path):
    how = ["training.lr_scheduler=constant", "training.checkpoint_every=1"]
    before, latest = [], None
    for n_epochs, n in enumerate((1, 2, 1), 1):
        log, all_weights = train("run", n, f"training.num_epochs={n_epochs}", *how)
        assert log[: len(before)] == before
        assert [record["global_step"] for record in log] == list(range(4 * n_epochs))
        saved = _saved(tmp_path / "run")
        for weights in all_weights:
            _assert_equal(weights, saved)
        checkpoint = read_checkpoint(tmp_path / "run" / "checkpoints" / "latest.ckpt")
        assert ("other_random_states" in checkpoint) == (n > 1)
        assert latest is None or any(not torch.equal(value, saved[key]) for key, value in latest.items())
        before, latest = log, saved

    with pytest.raises(RuntimeError, match=r"checkpoints of steps \[12, 0\]: .* has to be one folder"):
        train(lambda rank: ("run", "elsewhere")[rank], 2)


@pytest.mark.parametrize("loader", ["dataloader", "val_dataloader"])
def test_batches_that_do_not_divide_are_refused_at_once(train, loader):
    message = rf"{loader}.batch_size=8 is the batch of all 3 processes together .* use {loader}.batch_size=9"
    other = {"dataloader": "val_dataloader", "val_dataloader": "dataloader"}[loader]
    with pytest.raises(RuntimeError, match=message):
        train("run", 3, f"{other}.batch_size=9", "task.dataset.zarr_path=absent")


def test_each_process_may_hold_a_part_of_the_data(train):
    log, (first, second) = train("run", 2, "training.data_device=shards", "training.max_train_steps=12")
    assert len(log) == 24
    _assert_equal(first, second)
