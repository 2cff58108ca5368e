"""What training on images adds: encoders that are frozen or have batch norm, robots, memory."""

import json
import re

import pytest
import torch
import torchvision
from training_log import read_log

from diffusion_policy.common.config import ConfigError
from diffusion_policy.policy.policy_loading import load_policy
from diffusion_policy.workspace.evaluation import evaluate

IMAGE = "train_diffusion_unet_image_workspace"
HYBRID = "train_diffusion_unet_hybrid_workspace"
PRETRAINED = "train_diffusion_unet_image_pretrained_workspace"
BATCH_NORM = {IMAGE: "policy.obs_encoder.use_group_norm=false", HYBRID: "policy.obs_encoder_group_norm=false"}
FREEZE = "++training.freeze_encoder=true"
ROBOT = [
    "~task.env_runner",
    "+task.env_runner={_target_: diffusion_policy.env_runner.real_pusht_image_runner.RealPushTImageRunner}",
]
NO_CHECKPOINTS = ["checkpoint.topk.k=0", "checkpoint.save_last_ckpt=false"]


@pytest.fixture
def data(few_demonstrations):
    return f"task.dataset.zarr_path={few_demonstrations}"


def _copy(module):
    return {key: value.clone() for key, value in module.state_dict().items()}


def _changed(before, module, part):
    """Names of the parameters and statistics of a part that are other than before."""
    state = module.state_dict()
    return {key for key in before if key.startswith(f"{part}.") and not torch.equal(before[key], state[key])}


def _titles(report):
    return re.findall(r"<h3>(.*?)</h3>", report)


@pytest.mark.parametrize(
    ("config", "overrides"),
    [(IMAGE, [BATCH_NORM[IMAGE], FREEZE]), (HYBRID, [BATCH_NORM[HYBRID], FREEZE]), (PRETRAINED, [])],
)
def test_frozen_encoder_keeps_every_bit_of_weights_and_statistics(make_workspace, data, config, overrides):
    workspace = make_workspace([data, *NO_CHECKPOINTS, *overrides], config=config)
    before = _copy(workspace.model)
    assert any(key.endswith("running_var") for key in before)
    workspace.run()
    for policy in (workspace.model, workspace.ema_model):
        assert _changed(before, policy, "obs_encoder") == set()
        assert _changed(before, policy, "model") == {name for name in before if name.startswith("model.")}


def test_encoder_that_is_not_frozen_learns(make_workspace, data):
    workspace = make_workspace([data, *NO_CHECKPOINTS, BATCH_NORM[IMAGE], "training.num_epochs=1"], config=IMAGE)
    before = _copy(workspace.model)
    workspace.run()
    changed = _changed(before, workspace.model, "obs_encoder")
    assert {key for key in before if key.endswith(("running_mean", "running_var"))} <= changed
    assert {key for key in before if key.startswith("obs_encoder.") and key.endswith("conv1.weight")} <= changed


@pytest.mark.parametrize("config", ["quickstart", "train_diffusion_transformer_lowdim_pusht_workspace"])
def test_no_encoder_can_be_frozen_where_there_is_none(make_workspace, config):
    with pytest.raises(ConfigError, match=r"training.freeze_encoder: Diffusion.*LowdimPolicy has no obs_encoder"):
        make_workspace([FREEZE], config=config)


@pytest.mark.parametrize(
    ("config", "overrides", "named"),
    [
        (IMAGE, [BATCH_NORM[IMAGE]], "obs_encoder.key_model_map.image.bn1 and 19 more"),
        (HYBRID, [BATCH_NORM[HYBRID]], "obs_encoder.obs_nets.image."),
        (PRETRAINED, ["training.freeze_encoder=false"], "obs_encoder.key_model_map.rgb.bn1"),
        (IMAGE, [], None),
        (IMAGE, [BATCH_NORM[IMAGE], FREEZE], None),
        (IMAGE, [BATCH_NORM[IMAGE], "training.use_ema=false"], None),
        (HYBRID, [], None),
        (PRETRAINED, [], None),
    ],
)
def test_batch_norm_that_is_averaged_is_warned_of(make_workspace, caplog, config, overrides, named):
    make_workspace(overrides, config=config)
    warnings = [record.getMessage() for record in caplog.records if "Batch norm" in record.getMessage()]
    assert len(warnings) == (named is not None)
    assert all(named in warning and "use_group_norm" in warning for warning in warnings)


def test_training_for_a_robot_keeps_checkpoints_by_loss(make_workspace, data, tmp_path):
    overrides = [data, *ROBOT, "checkpoint.topk.k=2"]
    every_epoch = ["training.num_epochs=4", "training.checkpoint_every=1", "training.max_train_steps=1"]
    make_workspace([*overrides, *every_epoch], config="train_diffusion_unet_real_image_workspace").run()
    run = tmp_path / "run"
    losses = {record["epoch"]: record["train_loss"] for record in read_log(run)}
    assert len(losses) == 4
    best = sorted(losses, key=losses.__getitem__)[:2]
    kept = {f"epoch={epoch:04d}-train_loss={losses[epoch]:.3f}.ckpt" for epoch in best}
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"latest.ckpt", *kept}
    assert json.loads((run / "eval_log.json").read_text()) == {}
    report = (run / "report.html").read_text()
    assert "Loss" in _titles(report)
    assert "Mean score" not in _titles(report)


def test_memory_and_speed_of_training_are_logged(make_workspace, data, tmp_path):
    workspace = make_workspace([data, *NO_CHECKPOINTS], config=IMAGE)
    workspace.run()
    records = [json.loads(line) for line in (tmp_path / "run" / "logs.json.txt").read_text().splitlines()]
    epochs = [record for record in records if "peak_memory_mb" in record]
    assert [record["epoch"] for record in epochs] == [0, 1]
    n_bytes = sum(parameter.nbytes for parameter in workspace.model.parameters())
    for record in epochs:
        # Weights, their average, gradients and the optimizer's two moments, at the least.
        assert record["peak_memory_mb"] > 5 * n_bytes / 1e6
        assert record["samples_per_second"] == pytest.approx(2 * record["steps_per_second"])


def test_evaluating_a_policy_for_a_robot_says_that_there_are_no_scores(make_workspace, data, tmp_path):
    make_workspace([data, *ROBOT, "training.num_epochs=1"], config="train_diffusion_unet_real_image_workspace").run()
    checkpoint = tmp_path / "run" / "checkpoints" / "latest.ckpt"
    message = evaluate(str(checkpoint), str(tmp_path / "eval"), "cpu", {})
    assert message == "RealPushTImageRunner rolls nothing out: there are no scores"


def test_a_checkpoint_needs_no_file_of_pretrained_weights(make_workspace, data, tmp_path):
    weights = tmp_path / "resnet18.pth"
    torch.save(torchvision.models.resnet18().state_dict(), weights)
    overrides = [data, f"policy.obs_encoder.rgb_model.weights={weights}", "training.num_epochs=1"]
    workspace = make_workspace(overrides, config=PRETRAINED)
    workspace.run()
    pretrained = torch.load(weights, weights_only=True)["conv1.weight"]
    assert torch.equal(workspace.model.obs_encoder.key_model_map["rgb"].conv1.weight, pretrained)
    weights.unlink()
    policy, cfg = load_policy(tmp_path / "run" / "checkpoints" / "latest.ckpt", "cpu")
    assert torch.equal(policy.obs_encoder.key_model_map["rgb"].conv1.weight, pretrained)
    assert cfg.policy.obs_encoder.rgb_model.weights == str(weights)


def test_nor_does_it_with_a_backbone_for_each_camera(make_workspace, data, tmp_path):
    weights = tmp_path / "resnet18.pth"
    torch.save(torchvision.models.resnet18().state_dict(), weights)
    backbone = (
        f"{{_target_: diffusion_policy.model.vision.model_getter.get_resnet, name: resnet18, weights: {weights}}}"
    )
    own = ["~policy.obs_encoder.rgb_model", f"+policy.obs_encoder.rgb_model={{image: {backbone}}}"]
    make_workspace([data, *own, "training.num_epochs=1"], config=IMAGE).run()
    weights.unlink()
    policy, _ = load_policy(tmp_path / "run" / "checkpoints" / "latest.ckpt", "cpu")
    assert "image" in policy.obs_encoder.key_model_map
