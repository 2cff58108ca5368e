"""Checkpoints become policies: the samples of the original, every workspace's names, and hostile configs."""

import importlib.util
import lzma
import subprocess
import sys
import time
from collections import OrderedDict

import pytest
import torch
from fixtures import Fixture
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from tiny import tiny

from diffusion_policy.common.checkpoint_file import CheckpointError, read_checkpoint, write_checkpoint
from diffusion_policy.common.config import register_resolvers
from diffusion_policy.policy.policy_loading import load_policy
from diffusion_policy.workspace.evaluation import evaluate

EMA = ("ema_model", "model")
SAMPLES = {
    "unet_lowdim_4steps": EMA,
    "transformer_lowdim": EMA,
    "image_multi": EMA,
    "hybrid_image": EMA,
    "bet_lowdim": ("policy",),
}
# One config of each workspace class, and the names of its weights.
WORKSPACES = {
    "train_diffusion_unet_lowdim_workspace": EMA,
    "train_diffusion_unet_image_workspace": EMA,
    "train_diffusion_unet_hybrid_workspace": EMA,
    "train_diffusion_unet_video_workspace": ("model",),
    "train_diffusion_transformer_lowdim_workspace": EMA,
    "train_diffusion_transformer_hybrid_workspace": EMA,
    "train_bet_lowdim_workspace": ("policy",),
    "train_ibc_dfo_lowdim_workspace": ("model",),
    "train_ibc_dfo_hybrid_workspace": ("model",),
    "train_robomimic_lowdim_workspace": ("model",),
    "train_robomimic_image_workspace": ("model",),
}
LINEAR = {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 2}


@pytest.fixture(scope="module")
def sample(compat, tmp_path_factory):
    """Path of a sample of the original's checkpoints, unpacked."""
    folder = tmp_path_factory.mktemp("samples")

    def path(name):
        plain = compat / "ckpt" / f"{name}.ckpt"
        if plain.exists():
            return plain
        target = folder / plain.name
        target.write_bytes(lzma.decompress(plain.with_suffix(".ckpt.xz").read_bytes()))
        return target

    return path


@pytest.mark.parametrize(("name", "weights"), [(name, each) for name, all_ in SAMPLES.items() for each in all_])
def test_samples_of_the_original_act_as_recorded(compat, sample, name, weights):
    policy, cfg = load_policy(sample(name), "cpu", weights=weights)
    assert not policy.training
    assert cfg.task.env_runner.max_steps > 0
    fixture = Fixture(compat / "ckpt" / f"{name}.npz")
    torch.manual_seed(1234)
    with torch.no_grad():
        result = policy.predict_action(fixture.tensors("in/"))
    expected = fixture.tensors(f"out/{weights}/")
    assert "action" in expected
    for key, value in expected.items():
        torch.testing.assert_close(result[key], value, rtol=0, atol=1e-4 * float(value.abs().max()))


def test_moving_average_is_what_is_evaluated(sample):
    path = sample("unet_lowdim_4steps")
    policy, _ = load_policy(path, "cpu")
    stored = read_checkpoint(path)["state_dicts"]
    state = policy.state_dict()
    assert all(torch.equal(state[key], value) for key, value in stored["ema_model"].items())
    assert not all(torch.equal(state[key], value) for key, value in stored["model"].items())


@pytest.mark.slow
def test_eval_command_takes_what_the_original_crashes_on(repository, sample, tmp_path):
    arguments = ["-c", str(sample("transformer_lowdim")), "-o", str(tmp_path / "out"), "-d", "cpu", "--n_test", "1"]
    done = subprocess.run(
        [sys.executable, "eval.py", *arguments], cwd=repository, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "mean max reward" in done.stdout
    assert (tmp_path / "out" / "eval_log.json").exists()


def config_of(repository, name, resolve):
    register_resolvers()
    overrides = tiny(name) if "diffusion" in name else [f"task=pusht_{'lowdim' if 'lowdim' in name else 'image'}"]
    with initialize_config_dir(str(repository / "diffusion_policy" / "config"), version_base=None):
        cfg = compose(name, overrides)
    if resolve:
        OmegaConf.resolve(cfg)
    return cfg


def write_original(path, cfg, state_dicts):
    """A file as the original's workspaces write: a config that is pickled, counters that are pickles in a pickle."""
    OmegaConf.set_struct(cfg, True)
    counters = {"global_step": b"\x80\x04K\x7b.", "epoch": b"\x80\x04K\x04.", "_output_dir": b"\x80\x04N."}
    torch.save({"cfg": cfg, "state_dicts": state_dicts, "pickles": counters}, path)


@pytest.mark.parametrize(
    ("name", "resolve"), [*((name, True) for name in WORKSPACES), ("train_diffusion_unet_lowdim_workspace", False)]
)
def test_files_of_every_workspace_of_the_original_load(repository, tmp_path, name, resolve):
    cfg = config_of(repository, name, resolve)
    source = instantiate(cfg.policy)
    with torch.no_grad():
        for i, parameter in enumerate(source.parameters()):
            parameter.add_(0.01 * (i % 7))
    if "use_ema" in cfg.training:
        cfg.training.use_ema = "ema_model" in WORKSPACES[name]
    state = source.state_dict()
    other = OrderedDict((key, value.clone().zero_()) for key, value in state.items())
    states = dict.fromkeys(WORKSPACES[name], other) | {WORKSPACES[name][0]: state, "optimizer": {"state": {}}}
    write_original(tmp_path / "latest.ckpt", cfg, states)
    payload = read_checkpoint(tmp_path / "latest.ckpt")
    assert payload["values"] == {"global_step": 123, "epoch": 4, "_output_dir": None}
    policy, loaded = load_policy(tmp_path / "latest.ckpt", "cpu")
    assert type(policy) is type(source)
    for key, value in policy.state_dict().items():
        assert torch.equal(value, state[key]), key
    assert loaded.horizon == cfg.horizon
    assert "${" not in OmegaConf.to_yaml(loaded)


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """Writes a checkpoint with a config of this policy; checks afterwards that nothing has run."""
    monkeypatch.chdir(tmp_path)

    def write(policy, **cfg):
        path = tmp_path / "a.ckpt"
        state = {"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}
        write_checkpoint(path, {"cfg": {"policy": policy, **cfg}, "state_dicts": {"model": state}, "values": {}})
        return path

    yield write
    assert not (tmp_path / "attacked").exists()


def target(name, *args, **kwargs):
    return {"_target_": name, **({"_args_": list(args)} if args else {}), **kwargs}


SYSTEM = target("os.system", "touch attacked")
NORMALIZER = "diffusion_policy.model.common.normalizer"
HOSTILE_POLICIES = {
    "os.system": SYSTEM,
    "posix.system": target("posix.system", "touch attacked"),
    "subprocess": target("subprocess.run", ["touch", "attacked"]),
    "builtins.eval": target("builtins.eval", "open('attacked', 'w')"),
    "partial": {**SYSTEM, "_partial_": True},
    "functools.partial": target("functools.partial", SYSTEM),
    "in _args_": target("torch.nn.Sequential", SYSTEM),
    "in a dict of arguments": {**LINEAR, "bias": {"a": {"b": SYSTEM}}},
    "in a list of arguments": {**LINEAR, "bias": [[SYSTEM]]},
    "get_method": target("hydra.utils.get_method", "os.system"),
    "get_class": target("hydra.utils.get_class", "os.system"),
    "get_object": target("hydra.utils.get_object", "os.system"),
    "locate": target("pydoc.locate", "os.system"),
    "instantiate": target("hydra.utils.instantiate", SYSTEM),
    "our hydra": target("diffusion_policy.common.config.hydra.utils.get_method", "os.system"),
    "our os": target("diffusion_policy.common.checkpoint_file.os.system", "touch attacked"),
    "os of a policy's module": target("diffusion_policy.policy.policy_loading.os.system", "touch attacked"),
    "torch's os": target("torch.nn.modules.module.os.system", "touch attacked"),
    "torch's warnings": target("torch.nn.modules.module.warnings.sys.exit"),
    "torch's functools": target("torch.nn.modules.module.functools.partial", SYSTEM),
    "method of a class": target("torch.nn.Module.load_state_dict"),
    "dunder": target("torch.nn.Linear.__init__.__globals__"),
    "function of torch.nn": target("torch.nn.init.uniform_", 1),
    "torch.load": target("torch.load", "attacked"),
    "torch.hub": target("torch.hub.load", "a/b", "c"),
    "our function": target("diffusion_policy.common.checkpoint_file.link_checkpoint", "a", "attacked"),
    "our script": target("diffusion_policy.scripts.export_policy.export_policy", "a", "attacked"),
    "our class that writes": target("diffusion_policy.common.json_logger.JsonLogger", "attacked"),
    "our video recorder": target("diffusion_policy.common.video_recorder.VideoRecorder", fps=1),
    "our workspace": target("diffusion_policy.workspace.base_workspace.BaseWorkspace", {}),
    "class that a module of ours imports": target(f"{NORMALIZER}.Tensor"),
    "factory of another name": target("diffusion_policy.model.vision.model_getter._load", LINEAR, "attacked"),
    "torchvision function that downloads": target("torchvision.models.resnet18", weights="DEFAULT"),
    "torchvision dataset": target("torchvision.datasets.MNIST", "attacked", download=True),
    "robomimic's eval": target(
        "robomimic.models.obs_core.VisualCore", input_shape=[3, 9, 9], backbone_class="open('attacked', 'w')"
    ),
    "robomimic's download": target("robomimic.models.base_nets.R3MConv"),
    "scheduler's method": target("diffusers.DDPMScheduler.from_pretrained", "a/b"),
    "other class of diffusers": target("diffusers.DiffusionPipeline"),
    "target built by an interpolation": {"_target_": "${evil}", "_args_": ["touch attacked"]},
    "target built in pieces": {"_target_": "o${letter}.system", "_args_": ["touch attacked"]},
    "expression": {**LINEAR, "in_features": "${eval:\"__import__('os').system('touch attacked')\"}"},
    "power of powers": {**LINEAR, "in_features": "${eval:'9**9**9'}"},
    "environment": {**LINEAR, "in_features": "${oc.env:HOME}"},
    "environment in pieces": {**LINEAR, "in_features": "${dollar}{oc.env:HOME}"},
    "target that is no text": {"_target_": ["os.system"]},
    "target with spaces": {"_target_": "os.system "},
    "relative target": {"_target_": ".os.system"},
    "huge number": {**LINEAR, "in_features": 10**9},
    "huge layer": {**LINEAR, "in_features": 10**6, "out_features": 10**6},
    "many layers": target("torch.nn.Sequential", *[{**LINEAR, "out_features": 200_000}] * 500),
    "no target": {"a": 1},
    "no policy": None,
}
ELSEWHERE = {"evil": "os.system", "letter": "s", "dollar": "$"}


@pytest.mark.parametrize("attack", HOSTILE_POLICIES)
def test_hostile_configs_are_refused(hostile, attack):
    path = hostile(HOSTILE_POLICIES[attack], **ELSEWHERE)
    start = time.monotonic()
    with pytest.raises(CheckpointError) as caught:
        load_policy(path, "cpu")
    assert str(path) in str(caught.value)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("where", ["task", "_target_", "ema"])
def test_targets_outside_known_packages_are_refused_wherever_they_are(hostile, where):
    cfg = {"_target_": "os.system"} if where == "_target_" else {where: {"dataset": [SYSTEM]}}
    with pytest.raises(CheckpointError, match=r"os\.system of the config is outside.*--trust"):
        load_policy(hostile(LINEAR, **cfg), "cpu")


def test_hostile_runners_are_refused(hostile, tmp_path):
    gym = {"_target_": "diffusion_policy.env_runner.gym_runner.GymRunner", "env_id": "attacker:Env-v0", "max_steps": 9}
    for runner in (SYSTEM, target("diffusion_policy.common.json_logger.JsonLogger", "attacked"), gym, None):
        with pytest.raises(CheckpointError):
            evaluate(str(hostile(LINEAR, task={"env_runner": runner})), str(tmp_path / "out"), "cpu", {})
    assert not (tmp_path / "out").exists()


def test_refusal_imports_nothing(hostile, monkeypatch, tmp_path):
    (tmp_path / "evil.py").write_text("open('attacked', 'w')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert importlib.util.find_spec("evil")
    with pytest.raises(CheckpointError, match=r"evil\.Policy of the config is outside"):
        load_policy(hostile({"_target_": "evil.Policy"}), "cpu")


def test_trust_builds_extensions_with_a_warning(hostile, monkeypatch, tmp_path, caplog):
    (tmp_path / "my_extension.py").write_text("from torch.nn import Linear\n\nclass Policy(Linear):\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    layer = {**LINEAR, "_target_": "my_extension.Policy", "in_features": "${eval:'len(str(22))'}"}
    path = hostile(layer)
    with pytest.raises(CheckpointError, match="--trust"):
        load_policy(path, "cpu")
    policy, cfg = load_policy(path, "cpu", trust=True)
    assert type(policy).__name__ == "Policy"
    assert cfg.policy.in_features == 2
    assert "--trust" in caplog.text


def test_nothing_is_fetched_or_read_by_arguments(hostile, repository, tmp_path):
    """A backbone's weights, by whatever name, are those of the checkpoint."""
    cfg = config_of(repository, "train_diffusion_unet_image_workspace", True)
    source = instantiate(cfg.policy)
    cfg.policy.obs_encoder.rgb_model.weights = "/dev/stdin"
    write_original(tmp_path / "a.ckpt", cfg, {"ema_model": source.state_dict()})
    load_policy(tmp_path / "a.ckpt", "cpu")


def test_weights_that_do_not_fit_are_one_clear_error(hostile):
    with pytest.raises(CheckpointError, match=r"(?s)the weights do not fit its config: .*size mismatch"):
        load_policy(hostile({**LINEAR, "in_features": 3}), "cpu")
    path = hostile(LINEAR, training={"use_ema": True})
    with pytest.raises(CheckpointError, match="no weights 'ema_model'; it has 'model'"):
        load_policy(path, "cpu")
