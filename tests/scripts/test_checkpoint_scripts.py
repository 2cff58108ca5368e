import pytest
import torch
from click.testing import CliRunner
from hostile import call, original, write_archive

from diffusion_policy.common.checkpoint_file import read_checkpoint
from diffusion_policy.policy.policy_loading import load_policy
from diffusion_policy.scripts.convert_checkpoint import main as convert
from diffusion_policy.scripts.inspect_checkpoint import main as inspect


def run(command, *arguments):
    return CliRunner().invoke(command, list(map(str, arguments)))


def test_converted_checkpoint_is_plain_and_equal(compat, tmp_path):
    source, target = compat / "ckpt" / "image_multi.ckpt", tmp_path / "converted.ckpt"
    result = run(convert, source, target)
    assert result.exit_code == 0, result.output
    assert "tensors, equal to those of" in result.output
    one, two = read_checkpoint(source), torch.load(target, weights_only=True)
    assert two["values"] == one["values"]
    assert two["cfg"] == one["cfg"]
    for name in ("model", "ema_model"):
        assert list(two["state_dicts"][name]) == list(one["state_dicts"][name])
        for key, value in one["state_dicts"][name].items():
            assert torch.equal(two["state_dicts"][name][key], value)
    load_policy(target, "cpu")


def test_conversion_never_overwrites_and_explains_what_it_refuses(tmp_path):
    hostile = write_archive(tmp_path / "hostile.ckpt", original(state=call("os", "system", "true")))
    (tmp_path / "there.ckpt").write_text("precious")
    assert "exists already" in run(convert, hostile, tmp_path / "there.ckpt").output
    assert (tmp_path / "there.ckpt").read_text() == "precious"
    result = run(convert, hostile, tmp_path / "out.ckpt")
    assert result.exit_code == 1
    assert "asks for os.system" in result.output
    assert not (tmp_path / "out.ckpt").exists()


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        (
            "image_multi",
            ["train_diffusion_unet_image", "pusht_image", "[3, 96, 96] rgb", "global_step     4", "ema_model"],
        ),
        ("bet_lowdim", ["BETLowdimPolicy", "obs_dim         20", "policy, ", "optimizer"]),
    ],
)
def test_inspection_says_what_is_inside(compat, tmp_path, sample, expected):
    path = tmp_path / "epoch=0000-test_mean_score=0.089.ckpt"
    path.write_bytes((compat / "ckpt" / f"{sample}.ckpt").read_bytes())
    result = run(inspect, path)
    assert result.exit_code == 0, result.output
    for text in [*expected, "test_mean_score 0.089", "epoch           0", "input min  12 25", "0.004008 0.004115"]:
        assert text in result.output


def test_inspection_of_our_own_format_counts_parameters(repository):
    output = run(inspect, repository / "assets" / "pusht_demo.ckpt").output
    _, cfg = load_policy(repository / "assets" / "pusht_demo.ckpt", "cpu")
    weights = read_checkpoint(repository / "assets" / "pusht_demo.ckpt")["state_dicts"]["ema_model"]
    count = sum(value.numel() for key, value in weights.items() if "normalizer" not in key)
    assert f"{count:,} parameters" in output
    assert f"horizon         {cfg.horizon}" in output


def test_inspection_of_other_files_is_one_line(tmp_path):
    (tmp_path / "a.ckpt").write_text("not a checkpoint, but text")
    result = run(inspect, tmp_path / "a.ckpt")
    assert result.exit_code == 1
    assert "a text file" in result.output
    assert "Traceback" not in result.output
