"""Runs of the original, continued."""

import json
import logging
import pickle
import shutil

import hydra
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from diffusion_policy.common.checkpoint_file import CheckpointError, read_checkpoint, write_checkpoint
from diffusion_policy.common.config import register_resolvers
from diffusion_policy.common.random_state import set_random_state
from diffusion_policy.workspace.reference_run import with_training_state

SAMPLES = {
    "unet_lowdim_4steps": "train_diffusion_unet_lowdim_workspace",
    "transformer_lowdim": "train_diffusion_transformer_lowdim_pusht_workspace",
    "image_multi": "train_diffusion_unet_image_workspace",
}
BUFFERS = ("running_mean", "running_var", "num_batches_tracked", "mask", "memory_mask")


def _place(payload, folder):
    (folder / "checkpoints").mkdir(parents=True)
    content = {key: value for key, value in payload.items() if key != "format"}
    write_checkpoint(folder / "checkpoints" / "latest.ckpt", content)


def _optimized(compat, config, model_state):
    """Names of a sample's parameters, group by group, in the order of the original's optimizer.

    Where there are several groups, as the facts order those of the config at full size; else as the model lists them.
    """
    facts = json.loads((compat / "state_dicts" / "_optimizer_param_order.json").read_text())["configs"]
    (groups,) = (each["groups"] for name, each in facts.items() if name.startswith(f"{config}__"))
    own = [key for key in model_state if not key.startswith("normalizer.") and key.split(".")[-1] not in BUFFERS]
    if len(groups) == 1:
        return [own]
    return [[key for key in group["param_names_in_order"] if key in own] for group in groups]


def _make(repository, config, overrides, folder):
    register_resolvers()
    with initialize_config_dir(str(repository / "diffusion_policy" / "config"), version_base=None):
        cfg = compose(config, overrides=overrides)
    OmegaConf.resolve(cfg)
    return hydra.utils.get_class(cfg._target_)(cfg, output_dir=str(folder))


@pytest.mark.parametrize("name", SAMPLES)
def test_a_run_of_the_original_goes_on(repository, compat, real_pusht, tmp_path, caplog, monkeypatch, name):
    monkeypatch.chdir(repository)
    caplog.set_level(logging.INFO)
    register_resolvers()
    payload = read_checkpoint(compat / "ckpt" / f"{name}.ckpt")
    (tmp_path / "checkpoints").mkdir()
    shutil.copyfile(compat / "ckpt" / f"{name}.ckpt", tmp_path / "checkpoints" / "latest.ckpt")
    best = tmp_path / "checkpoints" / "epoch=0000-test_mean_score=0.089.ckpt"
    shutil.copy(tmp_path / "checkpoints" / "latest.ckpt", best)
    shutil.copy(compat / "ckpt" / f"{name}.logs.json.txt", tmp_path / "logs.json.txt")
    (tmp_path / "logs.json.txt").chmod(0o644)
    before = (tmp_path / "logs.json.txt").read_text()
    overrides = OmegaConf.to_container(OmegaConf.load(compat / "ckpt" / f"{name}.overrides.yaml"))

    def make(num_epochs):
        ours = [f"task.dataset.zarr_path={real_pusht}", f"training.num_epochs={num_epochs}"]
        return _make(repository, SAMPLES[name], [*overrides, *ours], tmp_path)

    done = make(num_epochs=1)
    done.run()  # nothing is left to do: what follows is the state that was resumed
    states = payload["state_dicts"]
    assert (done.epoch, done.global_step) == (1, 4)
    for part in ("model", "ema_model"):
        for key, value in getattr(done, part).state_dict().items():
            if not key.startswith("normalizer."):
                assert torch.equal(value, states[part][key]), (part, key)
    normalizer = done.model.normalizer.state_dict()
    assert normalizer.keys() == {k.removeprefix("normalizer.") for k in states["model"] if k.startswith("normalizer.")}

    parameters = dict(done.model.named_parameters())
    compared = 0
    names_by_group = _optimized(compat, SAMPLES[name], states["model"])
    for group, names in zip(states["optimizer"]["param_groups"], names_by_group, strict=True):
        for key, index in zip(names, group["params"], strict=True):
            mine = done.optimizer.state.get(parameters[key], {})
            theirs = states["optimizer"]["state"].get(index, {})
            assert mine.keys() == theirs.keys()
            for what, value in theirs.items():
                assert torch.equal(mine[what].reshape(value.shape), value), (key, what)
                compared += 1
    assert compared > 100
    assert done.ema.optimization_step == 4
    assert done.ema.decay == done.ema.get_decay(3) > 0
    lrs = [group["lr"] for group in states["optimizer"]["param_groups"]]
    assert done.lr_scheduler.get_last_lr() == pytest.approx(lrs, rel=1e-12)
    assert done.lr_scheduler.last_epoch == 4
    assert (tmp_path / "logs.json.txt").read_text() == before

    resumed = make(num_epochs=2)
    resumed.run()
    assert "Continuing a run of the original at epoch 1, step 4" in caplog.text
    assert "seeded anew with 43" in caplog.text
    assert resumed.ema.optimization_step == 8
    log = (tmp_path / "logs.json.txt").read_text()
    assert log.startswith(before)
    records = [json.loads(line) for line in log.removeprefix(before).splitlines()]
    assert [(record["epoch"], record["global_step"]) for record in records] == [(1, step) for step in range(4, 8)]
    assert all(0.5 < record["train_loss"] < 1.5 for record in records)
    assert best.name in resumed.topk.state_dict()
    assert len(resumed.topk.state_dict()) == 2
    for path in (tmp_path / "checkpoints").iterdir():
        path.unlink()


def test_a_run_of_bet_goes_on(repository, compat, real_pusht, tmp_path):
    """Its model is called `policy` there, it keeps no average, and its bins are those that it was trained with."""
    (tmp_path / "checkpoints").mkdir()
    shutil.copyfile(compat / "ckpt" / "bet_lowdim.ckpt", tmp_path / "checkpoints" / "latest.ckpt")
    states = read_checkpoint(compat / "ckpt" / "bet_lowdim.ckpt")["state_dicts"]
    overrides = OmegaConf.to_container(OmegaConf.load(compat / "ckpt" / "bet_lowdim.overrides.yaml"))
    overrides += [f"task.dataset.zarr_path={real_pusht}", "task.env_runner.n_train=0", "task.env_runner.n_train_vis=0"]
    config = "train_bet_lowdim_workspace"
    done = _make(repository, config, overrides, tmp_path)
    done.run()
    assert (done.epoch, done.global_step) == (1, 4)
    for key, value in done.model.state_dict().items():
        if not key.startswith("normalizer."):
            assert torch.equal(value, states["policy"][key]), key
    facts = json.loads((compat / "state_dicts" / "_optimizer_param_order.json").read_text())["configs"]
    (groups,) = (each["groups"] for name, each in facts.items() if name.startswith(f"{config}__"))
    parameters = dict(done.model.named_parameters())
    compared = 0
    for group, saved in zip(groups, states["optimizer"]["param_groups"], strict=True):
        names = [name for name in group["param_names_in_order"] if name in parameters]  # the sample has fewer layers
        for name, index in zip(names, saved["params"], strict=True):
            for what, value in states["optimizer"]["state"][index].items():
                assert torch.equal(done.optimizer.state[parameters[name]][what].reshape(value.shape), value), name
                compared += 1
    assert compared == 3 * len(states["optimizer"]["state"]) > 60

    resumed = _make(repository, config, [*overrides, "training.num_epochs=2"], tmp_path)
    resumed.run()
    assert (resumed.epoch, resumed.global_step) == (2, 8)
    bins = states["policy"]["action_ae.params_dict.bin_centers"]
    assert torch.equal(resumed.model.state_dict()["action_ae.params_dict.bin_centers"], bins)


def test_a_run_of_robomimic_goes_on_with_a_new_optimizer(repository, real_pusht, tmp_path, caplog):
    """The original's model holds its optimizer itself, and its checkpoints do not have it."""
    overrides = [
        *("task=pusht_lowdim", "training.device=cpu", "training.max_train_steps=2", "training.max_val_steps=1"),
        *("task.env_runner.n_test=1", "task.env_runner.n_test_vis=0", "task.env_runner.max_steps=8"),
        *("dataloader.batch_size=8", "dataloader.num_workers=0", "val_dataloader.num_workers=0"),
        *("logging.mode=disabled", "training.num_epochs=2", f"task.dataset.zarr_path={real_pusht}"),
        *("task.env_runner.n_train=0", "task.env_runner.n_train_vis=0"),
    ]
    workspace = _make(repository, "train_robomimic_lowdim_workspace", overrides, tmp_path)
    weights = {key: value.clone() for key, value in workspace.model.state_dict().items()}
    (tmp_path / "checkpoints").mkdir()
    counters = {"global_step": pickle.dumps(1, 2), "epoch": pickle.dumps(0, 2)}
    content = {"cfg": workspace.cfg, "state_dicts": {"model": weights}, "pickles": counters}
    torch.save(content, tmp_path / "checkpoints" / "latest.ckpt")
    workspace.run()
    assert "no state of an optimizer" in caplog.text
    assert workspace.epoch == 2
    steps = {int(state["step"]) for state in workspace.optimizer.state.values()}
    assert steps == {2}  # those of the second epoch alone


@pytest.mark.parametrize("n_batches", [None, 2], ids=["whole epochs", "epochs cut short"])
def test_what_the_original_leaves_out_is_worked_out_as_it_was(make_workspace, few_demonstrations, tmp_path, n_batches):
    """A run of ours whose checkpoint is cut down to what the original's hold ends as if it had not been stopped."""
    overrides = [
        *("training.num_epochs=4", "training.rollout_every=10", "dataloader.batch_size=32"),
        *(f"training.max_train_steps={n_batches or 'null'}", f"task.dataset.zarr_path={few_demonstrations}"),
    ]
    make_workspace(overrides, tmp_path / "whole").run()

    class StopError(Exception):
        pass

    stopped = make_workspace(overrides, tmp_path / "stopped")
    save = stopped._checkpoint

    def save_then_stop(record):
        save(record)
        if record["epoch"] == 1:
            raise StopError

    stopped._checkpoint = save_then_stop
    with pytest.raises(StopError):
        stopped.run()
    payload = read_checkpoint(tmp_path / "stopped" / "checkpoints" / "latest.ckpt")
    steps = payload["values"]["global_step"]
    original = {
        "cfg": payload["cfg"],
        "state_dicts": {key: payload["state_dicts"][key] for key in ("model", "ema_model", "optimizer")},
        # As it counts: one less than are done, or one more for every epoch that was cut short before.
        "values": {"epoch": 1, "global_step": steps + 1 if n_batches else steps - 1, "_output_dir": "elsewhere"},
    }
    _place(original, tmp_path / "resumed")
    resumed = make_workspace(overrides, tmp_path / "resumed")
    resume = resumed._resume

    def resume_with_the_same_random_numbers(*args):
        resume(*args)
        set_random_state(payload["random_state"])

    resumed._resume = resume_with_the_same_random_numbers
    resumed.run()
    ends = [read_checkpoint(tmp_path / run / "checkpoints" / "latest.ckpt") for run in ("resumed", "whole")]
    for part in ("model", "ema_model"):
        for key, value in ends[1]["state_dicts"][part].items():
            assert torch.equal(ends[0]["state_dicts"][part][key], value), (part, key)
    for part in ("ema", "lr_scheduler"):
        assert ends[0]["state_dicts"][part] == ends[1]["state_dicts"][part]
    for index, state in ends[1]["state_dicts"]["optimizer"]["state"].items():
        for key, value in state.items():
            assert torch.equal(ends[0]["state_dicts"]["optimizer"]["state"][index][key], value)
    assert ends[0]["values"]["epoch"] == ends[1]["values"]["epoch"] == 4
    if n_batches is None:
        assert ends[0]["values"]["global_step"] == ends[1]["values"]["global_step"]


def test_optimizer_state_goes_by_name_and_not_by_place(make_workspace, tmp_path):
    workspace = make_workspace(["training.num_epochs=1", "training.rollout_every=10"])
    workspace.run()
    payload = read_checkpoint(tmp_path / "run" / "checkpoints" / "latest.ckpt")
    states = payload["state_dicts"]
    names = [name for name, _ in workspace.model.named_parameters() if not name.startswith("normalizer.")]
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(0)).tolist()
    by_place = states["optimizer"]["state"]
    shuffled = {new: by_place[old] for new, old in enumerate(order) if old in by_place}
    model = {names[old]: states["model"][names[old]] for old in order}
    model |= {key: value for key, value in states["model"].items() if key not in model}
    original = {
        "cfg": payload["cfg"],
        "state_dicts": {"model": model, "optimizer": {**states["optimizer"], "state": shuffled}},
        "values": {"epoch": 0, "global_step": 4},
    }
    completed = with_training_state(original, workspace, batches_per_epoch=1000)["state_dicts"]["optimizer"]
    assert completed["state"].keys() == by_place.keys()
    for place, state in by_place.items():
        for key, value in state.items():
            assert torch.equal(completed["state"][place][key], value)

    bad = {**original, "state_dicts": {**original["state_dicts"], "model": dict(sorted(model.items()))}}
    with pytest.raises(CheckpointError, match="another shape for"):
        with_training_state(bad, workspace, batches_per_epoch=1000)
    for missing in ("model", "optimizer"):
        states = {key: value for key, value in original["state_dicts"].items() if key != missing}
        with pytest.raises(CheckpointError, match=f"no state of {missing}"):
            with_training_state({**original, "state_dicts": states}, workspace, batches_per_epoch=1000)
    with pytest.raises(CheckpointError, match="not at which step"):
        with_training_state({**original, "values": {}}, workspace, batches_per_epoch=1000)
