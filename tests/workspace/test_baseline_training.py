"""What the training of BET, IBC and BC-RNN-GMM has of its own, and the ways of running steps that all share."""

import pytest
import torch
from training_log import read_log

SHIPPED_DATA = "task.dataset.zarr_path=assets/pusht_demo.zarr.zip"
BASELINES = [f"train_{method}_lowdim_workspace" for method in ("bet", "ibc_dfo", "robomimic")]
BET, IBC, BC_RNN_GMM = BASELINES


def _losses(make_workspace, folder, config, overrides):
    make_workspace([SHIPPED_DATA, "training.num_epochs=1", *overrides], folder, config).run()
    return torch.tensor([record["train_loss"] for record in read_log(folder)])


@pytest.mark.parametrize("config", BASELINES)
def test_half_precision_comes_close(make_workspace, tmp_path, config):
    full, half = (
        _losses(make_workspace, tmp_path / precision, config, [f"training.precision={precision}"])
        for precision in ("float32", "bf16")
    )
    torch.testing.assert_close(half, full, rtol=0.02, atol=0)
    # Modes of the mixture are narrower than half precision could say.
    assert torch.equal(half, full) == (config == BC_RNN_GMM)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("config", BASELINES)
def test_graphs_hold_the_steps_of_baselines(make_workspace, tmp_path, config):
    overrides = ["training.device=cuda:0", "training.precision=float32", "training.max_train_steps=12"]
    eager, graph = (
        _losses(make_workspace, tmp_path / step, config, [f"training.step={step}", *overrides])
        for step in ("eager", "graph")
    )
    torch.testing.assert_close(graph, eager, rtol=1e-2, atol=1e-3)


def test_bet_logs_the_parts_of_its_loss_and_keeps_its_learning_rate(make_workspace, tmp_path):
    make_workspace([SHIPPED_DATA], config=BET).run()
    log = read_log(tmp_path / "run")
    assert len(log) == 8
    for record in (log[0], log[4]):  # epochs end with the mean of the whole, and the parts of the last step
        assert record["train_loss"] == pytest.approx(record["train_loss_offset"] + record["train_loss_class"])
    assert {"train_loss_offset", "train_loss_class"} <= log[-1].keys()
    assert {record["lr"] for record in log} == {1e-4}


def test_bet_without_normalizer(make_workspace):
    workspace = make_workspace([SHIPPED_DATA, "training.num_epochs=1", "training.enable_normalizer=false"], config=BET)
    workspace.run()
    centers = workspace.model.action_ae.suggested_actions
    assert centers.max() > 100  # px
    obs = torch.rand(1, 3, 20)
    assert torch.equal(workspace.model.normalizer["obs"].normalize(obs), obs)


def test_bet_takes_a_model_that_is_named_policy(make_workspace, tmp_path):
    """As in checkpoints of the original."""
    trained = make_workspace([SHIPPED_DATA, "training.num_epochs=1"], config=BET)
    trained.run()
    payload = trained.state()
    payload["state_dicts"]["policy"] = payload["state_dicts"].pop("model")
    other = make_workspace([SHIPPED_DATA, "training.seed=1"], tmp_path / "other", BET)
    other.load_payload(payload)
    expected = trained.model.state_dict()
    assert other.model.state_dict().keys() == expected.keys()
    for key, value in other.model.state_dict().items():
        assert torch.equal(value, expected[key]), key
    assert len(other.optimizer.state) == len(trained.optimizer.state) > 0


def test_recurrent_policies_are_sampled_over_whole_windows(make_workspace, tmp_path):
    workspace = make_workspace([SHIPPED_DATA, "training.num_epochs=1"], config=BC_RNN_GMM)
    workspace.run()
    workspace.policy.eval()
    batch = {"obs": 500 * torch.rand(3, 10, 20), "action": torch.rand(3, 10, 2)}
    sampled, demonstrated = workspace.sampled_and_demonstrated(batch)
    assert sampled.shape == demonstrated.shape == (3, 10, 2)
    # It starts afresh, whatever it saw before, and leaves nothing behind.
    torch.manual_seed(0)
    first = workspace.policy.predict_action({"obs": batch["obs"][:, :1]})["action"]
    torch.manual_seed(0)
    again, _ = workspace.sampled_and_demonstrated(batch)
    assert torch.equal(first[:, 0], again[:, 0])
