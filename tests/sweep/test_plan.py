import re
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from diffusion_policy.common.config import ConfigError
from diffusion_policy.sweep.plan import make_plan, parse_seeds

QUICKSTART = "quickstart"


def plan(tmp_path, *overrides, seeds=(42, 43), config_dir=None, config=QUICKSTART):
    return make_plan(config, config_dir, seeds, [f"multi_run.run_dir={tmp_path / 'sweep'}", *overrides])


def composed(folder, overrides):
    """What train.py makes of the config and the overrides of a seed."""
    with initialize_config_dir(str(folder), version_base=None):
        return OmegaConf.to_container(compose("config.yaml", overrides=overrides), resolve=True)


def test_seeds_share_a_config_that_is_written_down(tmp_path):
    sweep = plan(tmp_path, "training.num_epochs=7", "logging.group=mine")
    sweep.prepare()
    assert [folder.name for folder in sweep.run_folders] == ["train_0", "train_1"]
    assert all(folder.is_dir() for folder in sweep.run_folders)
    text = (tmp_path / "sweep" / "config.yaml").read_text()
    assert "${" not in text
    runs = [composed(sweep.folder, overrides) for overrides in sweep.overrides]
    for i, (seed, run) in enumerate(zip((42, 43), runs, strict=True)):
        assert run["training"]["num_epochs"] == 7
        assert run["training"]["seed"] == seed
        assert run["task"]["env_runner"]["test_start_seed"] == (seed + 1) * 100_000
        wandb = run["logging"]
        assert wandb["group"] == "mine"
        assert wandb["name"] == f"{sweep.config['multi_run']['wandb_name_base']}_train_{i}"
        assert wandb["id"] == f"{sweep.config['logging']['id']}_train_{i}"
    command = sweep.train_command(1)
    assert command[:4] == ["python", "train.py", f"--config-dir={sweep.folder}", "--config-name=config.yaml"]
    assert {"training.seed=43", f'hydra.run.dir="{sweep.folder}/train_1"'} <= set(command)


def test_what_is_derived_from_the_seed_follows_it(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "defaults: [quickstart, _self_]\n"
        "task: {dataset: {seed: '${eval:${training.seed}+1}'}}\n"
        "exp_name: 'a \"b\" ${training.seed}'\n"
        "training: {seed: 5}\n"
    )
    sweep = plan(tmp_path, "hydra.job.name=own", seeds=[5, 6], config="mine.yaml", config_dir=tmp_path)
    sweep.prepare()
    runs = [composed(sweep.folder, overrides) for overrides in sweep.overrides]
    assert [run["task"]["dataset"]["seed"] for run in runs] == [6, 7]
    assert [run["exp_name"] for run in runs] == ['a "b" 5', 'a "b" 6']
    assert "hydra.job.name=own" in sweep.train_command(0)


def test_task_without_simulation(tmp_path):
    sweep = plan(tmp_path, "task=real_pusht_image", config="train_diffusion_unet_real_image_workspace")
    assert not any("test_start_seed" in override for overrides in sweep.overrides for override in overrides)


def test_monitor_logs_like_the_runs(tmp_path):
    command = plan(tmp_path, "logging.mode=online").monitor_command(["test/mean_score", "train/mean_score"])
    assert command[:2] == ["python", "multirun_metrics.py"]
    assert {"--key=test/mean_score", "--key=train/mean_score", "--use_wandb"} <= set(command)
    assert "--project=diffusion_policy_metrics" in command
    assert plan(tmp_path, "logging.mode=offline").monitor_command(["a"])[:2] == ["env", "WANDB_MODE=offline"]
    assert "--use_wandb" not in plan(tmp_path, "logging.mode=disabled").monitor_command(["a"])


def test_a_sweep_is_continued_as_what_it_was(tmp_path):
    first = plan(tmp_path)
    first.prepare()
    again = plan(tmp_path, "training.num_epochs=50")
    assert again.config["training"]["num_epochs"] == 50
    assert again.config["logging"]["id"] == first.config["logging"]["id"]
    assert again.config["logging"]["name"] == first.config["logging"]["name"]
    run = tmp_path / "sweep" / "train_1" / ".hydra"
    run.mkdir()
    (run / "config.yaml").write_text("training: {seed: 43}\n")
    plan(tmp_path)
    with pytest.raises(ConfigError, match="train_1 is a run with seed 43, not 44"):
        plan(tmp_path, seeds=[42, 44])


def test_bad_input_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ConfigError, match=r"hydra\.run\.dir=x: the folder of a sweep is multi_run\.run_dir=FOLDER"):
        plan(tmp_path, "hydra.run.dir=x")
    with pytest.raises(ConfigError, match=r"quickstart has no multi_run\.run_dir"):
        make_plan(QUICKSTART, None, [1], ["~multi_run"])
    assert not list(tmp_path.iterdir())
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="holds no sweep"):
        plan(tmp_path)


@pytest.mark.parametrize("text", ["", "42,", "a", "42,43,42", "1.5"])
def test_seeds(text):
    assert parse_seeds("42,43, 44") == [42, 43, 44]
    with pytest.raises(ConfigError, match="expected seeds such as 42,43,44"):
        parse_seeds(text)


def test_one_file_knows_ray(repository):
    """What watches a sweep or works for it needs no Ray."""
    sources = [*repository.glob("*.py"), *(repository / "diffusion_policy").rglob("*.py")]
    importers = [path.name for path in sources if re.search(r"^ *(import|from) ray\b", path.read_text(), re.M)]
    assert importers == ["cluster.py"]
    code = "import sys; sys.modules['ray'] = None; import multirun_metrics, diffusion_policy.sweep.worker"
    subprocess.run([sys.executable, "-c", code], cwd=repository, check=True)
    code = "import sys; sys.modules['ray'] = None; import ray_exec"
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True)
    assert "pip install 'diffusion_policy[sweep]'" in done.stderr
